"""AnnotatedData, as FaceBoxes has it (sfzhang15/FaceBoxes, sampler.cpp and bbox_util.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...data.augmentation import Augmentation
from ...data.sampling import WindowSampler
from ...layers.registry import register
from ..ssd.annotated_data import AnnotatedData

LEAST = 16.0  # pixels


@register("AnnotatedData", fork="faceboxes")
class SquareAnnotatedData(AnnotatedData):
    """SSD's, but the windows of ``batch_sampler`` are squares, sized as a fraction of the image's shorter side.

    ``emit_constraint`` by CENTER drops boxes with a side of 16 pixels or less.
    """

    def augmentation(self, transform: Any, samplers: Sequence[Any], color: bool | None) -> Augmentation:
        sampler = WindowSampler(samplers, square=True) if samplers else None
        return Augmentation(transform, (), color, sampler, LEAST)
