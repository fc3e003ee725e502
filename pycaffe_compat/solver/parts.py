"""Where the time of training goes: data, forward, backward, update."""

from __future__ import annotations

import time

import torch

PARTS = ("data", "forward", "backward", "update")


class Parts:
    """Adds up the seconds of each part of the iterations.

    Args:
        device: where the work is done.
        synchronize: wait for a GPU at the end of every part, so that its work counts where it belongs. Without, the parts
            on a GPU hold only what the host spends on them, and nothing is slowed down.

    Attributes:
        seconds: by part, since :meth:`reset`.
    """

    def __init__(self, device: torch.device, synchronize: bool = False) -> None:
        self._waits = synchronize and device.type == "cuda"
        self._device = device
        self.reset()

    def reset(self) -> None:
        """Start over."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.begin()

    def begin(self) -> None:
        """The next part begins now; what passed since the last one counts for none."""
        self._since = self._now()

    def end(self, part: str) -> None:
        """The time since the last beginning or end was spent on ``part``."""
        now = self._now()
        self.seconds[part] += now - self._since
        self._since = now

    def share(self, part: str) -> float:
        """The share of ``part`` in all that was counted, 0 to 1."""
        total = sum(self.seconds.values())
        return self.seconds[part] / total if total else 0.0

    def _now(self) -> float:
        if self._waits:
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
