"""What MS-CNN's and Cascade R-CNN's nets are trained on, at the places of a map."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

COLUMNS = 6  # at each place: label, centre (2), width, height, overlap


class Truth(NamedTuple):
    """What is at the places of maps: labels and overlaps (M, P), and boxes (M, 4, P), centre, width and height."""

    label: Tensor
    box: Tensor
    overlap: Tensor

    @classmethod
    def read(cls, maps: Tensor) -> Truth:
        """Read maps (M, 6, H, W). Labels are truncated to integers."""
        label, box, overlap = maps.detach().flatten(2).split((1, 4, 1), 1)
        return cls(label[:, 0].long(), box, overlap[:, 0])

    def background(self, below: float) -> Tensor:
        """Where there is nothing, (M, P): label 0 with an overlap below ``below``. More is neither object nor background."""
        return (self.label == 0) & (self.overlap < below)
