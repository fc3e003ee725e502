"""Layers whose result depends on how many passes there have been."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .base import Layer, Shape


class CountsPasses(Layer):
    """The base class of layers that count their passes, in a tensor on their device, and go on from the count of a snapshot.

    Attributes:
        passes: the count, int64 without axes. A subclass adds to it in ``forward``.
    """

    passes: Tensor

    def count_passes(self, first: int = 0) -> None:
        """Begin to count, at ``first``; for the constructor."""
        self.register_buffer("passes", torch.tensor(first, dtype=torch.int64), persistent=False)

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        self.passes = self.passes.to(device)

    def state(self) -> dict[str, Any]:
        """The number of passes."""
        return {"passes": int(self.passes)}

    def seek(self, state: dict[str, Any]) -> None:
        self.passes.fill_(state["passes"])
