"""What SIGINT and SIGHUP ask of a running solver, as with Caffe's own command line: to stop, or to take a snapshot."""

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

    A second SIGINT while the first waits, or after it asked for a stop, does at once what SIGINT did before. Outside
    the main thread, where Python cannot have handlers, nothing is changed.

    Args:
        sigint, sighup: ``"stop"``, ``"snapshot"`` or ``"none"``.
    """

    def __init__(self, sigint: str = STOP, sighup: str = SNAPSHOT) -> None:
        for option, effect in (("sigint_effect", sigint), ("sighup_effect", sighup)):
            if effect not in EFFECTS:
                raise SolverError(f'{option}: "{effect}" is not known; valid: {", ".join(EFFECTS)}')
        self._effects = {signal.SIGINT: sigint}
        if hasattr(signal, "SIGHUP"):
            self._effects[signal.SIGHUP] = sighup
        self._before: dict[signal.Signals, Any] = {}
        self._waiting: list[str] = []
        self._stopping = False

    def __enter__(self) -> Signals:
        self._stopping = False
        if threading.current_thread() is threading.main_thread():
            for number in self._effects:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        effect = self._effects[signal.Signals(number)]
        if number == signal.SIGINT and effect != "none" and (self._stopping or effect in self._waiting):
            self.__exit__()
            signal.raise_signal(signal.SIGINT)
        elif effect != "none":
            self._waiting.append(effect)
            self._stopping = self._stopping or (number == signal.SIGINT and effect == STOP)

    def take(self) -> str | None:
        """Return what a signal asked for since the last call, ``"stop"`` before ``"snapshot"``, or None."""
        if not self._waiting:
            return None
        effect = STOP if STOP in self._waiting else SNAPSHOT
        self._waiting.remove(effect)
        return effect
