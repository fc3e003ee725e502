"""DiceCoefLoss, a layer that was added to many Caffes (HolmesShuan/A-Variation-of-Dice-coefficient-Loss-Caffe-Layer)."""

from __future__ import annotations

from torch import Tensor

from ...layers.loss import LossLayer, precise
from ...layers.registry import register
from ...layers.slope import WithSlope


@register("DiceCoefLoss", fork="dice")
class DiceCoefLoss(LossLayer):
    """1 minus the mean over images of ``(2 x·y + 1) / (x·x + y·y + 1)``; both bottoms get gradients.

    The gradient of each image is not divided by their number, as in the source, ``dice_coef_loss_layer.cpp``.
    """

    options = ()
    differentiable = (True,)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        n = self.batch_size(x, y)
        self.same_count(x, y)
        a, b = precise(x).flatten(1), precise(y).flatten(1)
        coefficients = (2 * (a * b).sum(1) + 1) / (a.square().sum(1) + b.square().sum(1) + 1)
        # the source sums their absolute values
        return 1 - WithSlope.apply(coefficients, coefficients.detach().abs() / n, None).sum()
