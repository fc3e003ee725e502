"""Choosing among boxes: what the layers of detectors share."""

from __future__ import annotations

import numpy as np

from .emitter import FLOAT, INT64, Emitter

NONE = -np.inf  # the score of what is no candidate
LOWEST = float(np.finfo(np.float32).min)


def part(e: Emitter, x: object, start: int, stop: int) -> str:
    """``x[..., start:stop]``."""
    return str(e.op("Slice", x, e.ints(start), e.ints(stop), e.ints(-1)))


def whole(e: Emitter, boxes: object) -> str:
    """Boxes (…, 4) with the last corner after their last pixel."""
    return str(e.op("Add", boxes, e.constant([0.0, 0.0, 1.0, 1.0])))


def suppressed(e: Emitter, boxes: object, scores: object, most: int, overlap: float, least: float | None = None) -> str:
    """1 for each box that stays, 0 for the others: (groups * width) by ``NonMaxSuppression``.

    Args:
        boxes: of each group (groups, width, 4), the best first: left, top, right, bottom.
        scores: theirs, (groups, width).
        most: how many of a group may stay.
        overlap: a box that overlaps a better one by more goes.
        least: only scores above it count; None for all.
    """
    corner = part(e, boxes, 0, 2)
    upright = e.op("Concat", corner, e.op("Max", corner, part(e, boxes, 2, 4)), axis=-1)  # of any corners
    chosen = e.op(
        "NonMaxSuppression",
        upright,
        e.op("Unsqueeze", scores, e.ints(1)),
        e.ints(most),
        e.number(min(overlap, 1)),
        None if least is None else e.number(least),
    )
    width = e.op("Slice", e.op("Shape", scores), e.ints(1), e.ints(2))
    spot = e.op("Add", e.op("Mul", part(e, chosen, 0, 1), width), part(e, chosen, 2, 3))
    spot = e.op("Reshape", spot, e.ints(-1))
    ones = e.op("Cast", e.op("GreaterOrEqual", spot, e.constant(0, np.int64)), to=FLOAT)
    none = e.zeros(e.op("Reshape", e.op("Size", scores), e.ints(1)))
    return str(e.op("ScatterElements", none, spot, ones))


def nothing(e: Emitter, batch: object, where: str, one_row: bool = False) -> str:
    """A row (image, -1, -1, -1, -1, -1, -1) for each image of ``batch`` if ``where`` has no row; else no row.

    With ``one_row`` it is a single one of -1.
    """
    images: object = e.ints(1) if one_row else e.op("Gather", e.op("Shape", batch), e.ints(0))
    found = e.op("Gather", e.op("Shape", where), e.ints(0))
    empty = e.op("Cast", e.op("Equal", found, e.ints(0)), to=INT64)
    index = e.op("Range", e.constant(0, np.int64), e.op("Squeeze", e.op("Mul", images, empty)), e.constant(1, np.int64))
    image = e.op("Unsqueeze", e.op("Cast", index, to=FLOAT), e.ints(1))
    if one_row:
        image = e.op("Sub", image, e.number(1))
    return str(e.op("Pad", image, e.ints(0, 0, 0, 6), e.number(-1)))
