"""Maps for several fields a place, as Cascade R-CNN has them: those of an image lie one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...layers.base import Layer, Shape
from ...tables import dims
from ..mscnn.truth import COLUMNS


def read_groups(layer: Layer, options: Any) -> tuple[list[tuple[int, int]], int]:
    """The width and height of each field, and the pixels from place to place.

    Raises:
        LayerError: there are not as many of both, or none, or one is 0.
    """
    widths, heights = list(options.field_w), list(options.field_h)
    if not widths or len(widths) != len(heights) or min(widths + heights) < 1 or not options.stride:
        raise layer.error(
            f"needs field_w and field_h for each field, and stride, all above 0; they are given {len(widths)}, {len(heights)} "
            f"and {int(options.HasField('stride'))} times"
        )
    return list(zip(widths, heights, strict=True)), options.stride


def check_maps(layer: Layer, classes: int, groups: int, shapes: Sequence[Shape]) -> None:
    """Check the shapes of scores, boxes and truth.

    Raises:
        LayerError: they are not those of the same places.
    """
    scores, boxes, truth = shapes
    n, places = scores[:1], scores[2:]
    if (
        len(scores) != 4
        or n[0] % groups
        or (scores[1], boxes, truth)
        != (
            classes,
            (*n, 4, *places),
            (*n, COLUMNS, *places),
        )
    ):
        raise layer.error(
            f"needs scores N G×{classes}×H×W, boxes N G×4×H×W and a truth N G×{COLUMNS}×H×W for G = {groups} fields, not "
            f"{', '.join(map(dims, shapes))}"
        )
