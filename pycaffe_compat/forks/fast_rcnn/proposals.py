"""Region proposals for one image: what the layers of several forks have in common."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ...layers.base import Layer
from ...tables import dims


class Proposals(Layer):
    """Regions of interest from the scores and shifts of anchors.

    The bottoms are scores (1, 2 A, H, W), of which the second half counts; shifts (1, 4 A, H, W); and height, width and
    scale of the image. The tops are regions (R, 5) of 0, x1, y1, x2, y2, and their scores (R, 1). No gradient flows.

    Attributes:
        anchors: the boxes (A, 4) around a place.
        nominal: how many regions there are before a pass.
    """

    bottoms = (3, 3)
    tops = (1, 2)
    differentiable = (False,)
    open_axes = (0,)
    traceable = False
    anchors: np.ndarray
    nominal = 1

    def check_shapes(self, scores: Sequence[int], shifts: Sequence[int], sizes: Sequence[int]) -> None:
        """Check that scores and shifts are of one image, of the same places and of all anchors.

        Raises:
            LayerError: they are not, or the image has no size.
        """
        a = len(self.anchors)
        wanted = [(1, number * a, *scores[2:]) for number in (2, 4)]
        if len(scores) != 4 or [tuple(scores), tuple(shifts)] != wanted:
            raise self.error(
                f"needs scores 1×{2 * a}×H×W and shifts 1×{4 * a}×H×W for its {a} anchors, not {dims(scores)} and {dims(shifts)}"
            )
        if math.prod(sizes) < 3:
            raise self.error(
                f"needs height, width and scale of the image in its third bottom, which has shape {dims(sizes)}"
            )

    def forward(self, scores: Tensor, shifts: Tensor, sizes: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return regions (R, 5), and their scores (R, 1) if there is a top for them."""
        self.check_shapes(scores.shape, shifts.shape, sizes.shape)
        if scores.is_meta:
            regions, found = scores.new_empty((self.nominal, 5)), scores.new_empty((self.nominal, 1))
        else:
            regions, found = self.propose(scores.detach(), shifts.detach(), sizes.detach().flatten())
        return regions if self.n_tops == 1 else (regions, found)

    def propose(self, scores: Tensor, shifts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, for tensors with memory; both tops."""
        raise NotImplementedError
