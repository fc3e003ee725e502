"""What signals ask of a running solver, as with Caffe's own command line: to stop, or to take a snapshot."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from ..errors import SolverError

EFFECTS = ("stop", "snapshot", "none")
STOP, SNAPSHOT = "stop", "snapshot"


class Signals:
    """While it is entered, signals are noted, and :meth:`take` hands them on at the end of an iteration.

    After a SIGINT that waits or has asked for a stop, a second one does at once what SIGINT did before. Outside the main
    thread, where Python cannot have handlers, nothing is changed.

    Args:
        sigint, sighup, sigterm: ``"stop"``, ``"snapshot"`` or ``"none"``. SIGTERM is not handled where it is ``"none"``.

    Attributes:
        stopped_by: the signal that asked for a stop since this was entered; None for none.
    """

    def __init__(self, sigint: str = STOP, sighup: str = SNAPSHOT, sigterm: str = "none") -> None:
        effects = {"sigint_effect": sigint, "sighup_effect": sighup, "sigterm_effect": sigterm}
        for option, effect in effects.items():
            if effect not in EFFECTS:
                raise SolverError(f'{option}: "{effect}" is not known; valid: {", ".join(EFFECTS)}')
        self._effects = {signal.SIGINT: sigint}
        if hasattr(signal, "SIGHUP"):
            self._effects[signal.SIGHUP] = sighup
        if sigterm != "none":
            self._effects[signal.SIGTERM] = sigterm
        self._before: dict[signal.Signals, Any] = {}
        self._waiting: list[str] = []
        self.stopped_by: signal.Signals | None = None

    def __enter__(self) -> Signals:
        self.stopped_by = None
        if threading.current_thread() is threading.main_thread():
            for number in self._effects:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        which = signal.Signals(number)
        effect = self._effects[which]
        again = effect in self._waiting or self.stopped_by == which
        if which == signal.SIGINT and effect != "none" and again:
            self.__exit__()
            signal.raise_signal(signal.SIGINT)
        elif effect != "none":
            self._waiting.append(effect)
            if effect == STOP:
                self.stopped_by = which

    def take(self) -> str | None:
        """Return what a signal asked for since the last call, ``"stop"`` before ``"snapshot"``, or None."""
        if not self._waiting:
            return None
        effect = STOP if STOP in self._waiting else SNAPSHOT
        self._waiting.remove(effect)
        return effect
