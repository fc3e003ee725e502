"""MultiBoxLoss, as RefineDet's Caffe has it (sfzhang15/RefineDet, multibox_loss_layer.cpp and bbox_util.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...layers.base import Shape, count
from ...layers.loss import precise
from ...layers.registry import register
from ...tables import dims
from ..ssd.multibox_loss import MultiBoxLoss, Options, Priors


def one_object(labels: Tensor, classes: int) -> Tensor:
    """RefineDet's way of reading labels: where there are 2 classes, all above 1 are 1."""
    return labels.long().clamp(max=1) if classes == 2 else labels.long()


@register("MultiBoxLoss", fork="refinedet")
class RefinedMultiBoxLoss(MultiBoxLoss):
    """SSD's, with two more bottoms: background and object scores of priors (N, P 2), and codes that refine the priors.

    Negatives whose score as an object is below ``objectness_score`` are not mined. The sixth bottom, (N, P 4), holds codes
    that turn the priors into those that are matched, and that the first bottom's codes are against. With 2 classes every
    true box is of class 1, whatever its label.
    """

    bottoms = (4, 6)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.objectness: float = param.multibox_loss_param.objectness_score
        if len(bottom_shapes) > 4 and self.suppresses and self.mining != Options.NONE:
            raise self.error(
                "nms_param cannot be used with scores of priors (its fifth bottom): RefineDet mixes up boxes then"
            )
        if len(bottom_shapes) == 6 and not self.shared:
            raise self.error("codes of priors (its sixth bottom) need share_location: true")

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) > 4 or param.multibox_loss_param.HasField("objectness_score")

    def relabel(self, labels: Tensor) -> Tensor:
        return one_object(labels, self.classes)

    def sizes(self, loc: Tensor, conf: Tensor, prior: Tensor, *more: Tensor) -> tuple[int, int]:
        images, places = super().sizes(loc, conf, prior)
        for blob, each, words in zip(
            more, (2, 4), ("fifth bottom, scores of priors", "sixth, codes of priors"), strict=False
        ):
            if blob.shape[:1] != (images,) or count(blob.shape, 1) != places * each:
                raise self.error(f"its {words}, must be ({images}, {places} * {each}), not of shape {dims(blob.shape)}")
        return images, places

    def refined(self, priors: Priors, *more: Tensor) -> Priors:
        if len(more) < 2:
            return priors
        moves = precise(more[1].detach()).reshape(len(more[1]), 1, -1, 4)
        return priors._replace(boxes=self.decode(moves, priors)[:, 0])

    def minable(self, index: Tensor, most: Tensor, *more: Tensor) -> Tensor:
        able = super().minable(index, most)
        if more:
            able &= precise(more[0].detach()).reshape(*index.shape, 2)[..., 1] >= self.objectness
        return able
