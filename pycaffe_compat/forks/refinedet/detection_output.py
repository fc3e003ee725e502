"""DetectionOutput, as RefineDet's Caffe has it (sfzhang15/RefineDet, detection_output_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.registry import register
from ...tables import dims
from ..ssd import boxes as bx
from ..ssd.detection_output import DetectionOutput


@register("DetectionOutput", fork="refinedet")
class RefinedDetectionOutput(DetectionOutput):
    """SSD's, with two more bottoms: background and object scores of priors (N, priors · 2), and codes that refine the priors.

    A prior whose score as an object is below ``objectness_score`` counts as class 0. The fifth bottom, (N, priors · 4),
    holds codes that turn the priors into those that the first bottom's codes are against.
    """

    bottoms = (3, 5)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.objectness: float = param.detection_output_param.objectness_score
        if len(bottom_shapes) == 5 and not self.share_location:
            raise self.error("codes of priors (its fifth bottom) need share_location: true")

    @classmethod
    def fits(cls, param: Any) -> bool:
        return not super().fits(param) or param.detection_output_param.HasField("objectness_score")

    def check_bottoms(self, shapes: Sequence[Shape]) -> int:
        priors = super().check_bottoms(shapes)
        for shape, each, words in zip(
            shapes[3:], (2, 4), ("fourth bottom, scores of priors", "fifth, codes of priors"), strict=False
        ):
            if shape[:1] != shapes[0][:1] or count(shape, 1) != priors * each:
                raise self.error(
                    f"its {words}, must be ({shapes[0][0]}, {priors} * {each}), not of shape {dims(shape)}"
                )
        return priors

    def decode(self, codes: Tensor, prior: Tensor, variance: Tensor, *more: Tensor) -> Tensor:
        if len(more) > 1:
            moves = more[1].reshape(len(codes), len(prior), 1, 4)
            prior = bx.decode(self.code_type, self.variance_in_target, self.with_area(prior), variance, moves)
        return super().decode(codes, prior, variance)

    def scores(self, conf: Tensor, *more: Tensor) -> Tensor:
        if not more:
            return conf
        weak = more[0].reshape(*conf.shape[:2], 2)[..., 1:] < self.objectness
        return torch.where(weak, conf.new_tensor([1.0] + [0.0] * (self.classes - 1)), conf)
