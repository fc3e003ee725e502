"""``batch_sampler`` of SSD's Caffe: random windows of a picture that hold objects in a given way.

The rules are those of weiliu89/caffe, branch ssd (``sampler.cpp``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .boxes import Boxes, coverage, jaccard

_ONE = np.float32(1)
_KINDS = ("jaccard_overlap", "sample_coverage", "object_coverage")


class BoxSampler:
    """Draws windows as a ``BatchSampler`` says: the first ``max_sample`` that pass, of at most ``max_trials``.

    A window passes if an object meets the constraint. Of ``jaccard_overlap``, ``sample_coverage`` and ``object_coverage``
    the first that has a bound decides alone; that is how SSD's Caffe behaves, whose search ends with the first it finds.

    Args:
        param: the ``BatchSampler``.
        where: its name in messages.

    Attributes:
        draws: how many random numbers a picture needs.

    Raises:
        DataError: a range that is empty, or scales that are not above 0 and at most 1.
    """

    def __init__(self, param: Any, where: str) -> None:
        sampler, self._constraint = param.sampler, param.sample_constraint
        low, high = sampler.min_scale, sampler.max_scale
        if not 0 < low <= high <= 1:
            raise DataError(
                f"{where}.sampler: min_scale is {low:g} and max_scale {high:g}; wanted 0 < min_scale ≤ max_scale ≤ 1"
            )
        narrow, wide = sampler.min_aspect_ratio, sampler.max_aspect_ratio
        if not 0 < narrow <= wide < np.finfo(np.float32).max:
            raise DataError(
                f"{where}.sampler: min_aspect_ratio is {narrow:g} and max_aspect_ratio {wide:g}; wanted "
                "0 < min_aspect_ratio ≤ max_aspect_ratio"
            )
        self._scales, self._aspects = (low, high), (narrow, wide)
        self._trials: int = param.max_trials if param.use_original_image else 0
        self._most: int | None = param.max_sample if param.HasField("max_sample") else None
        if self._most == 0:
            self._trials = 0
        self._kind = next((kind for kind in _KINDS if any(map(self._constraint.HasField, _bounds(kind)))), None)
        if self._kind is None and self._most is not None:
            self._trials = min(self._trials, self._most)  # every window passes
        self.draws = 4 * self._trials

    def windows(self, boxes: Boxes, drawn: np.ndarray) -> np.ndarray:
        """Return the windows that pass, N×4, ``float32``: left, top, right, bottom as fractions.

        Args:
            boxes: the objects of the picture.
            drawn: :attr:`draws` random numbers from 0 to 1.
        """
        share = drawn.reshape(4, -1)
        scale = _between(*self._scales, share[0])
        square = scale * scale
        aspect = np.minimum(np.maximum(_between(*self._aspects, share[1]), square), _ONE / square)
        root = np.sqrt(aspect)
        width, height = scale * root, scale / root
        left, top = (
            (np.maximum(_ONE - side, 0) * each).astype(np.float32)
            for side, each in ((width, share[2]), (height, share[3]))
        )
        windows = np.stack([left, top, left + width, top + height], 1)
        return windows[self._pass(windows, boxes)][: self._most]

    def _pass(self, windows: np.ndarray, boxes: Boxes) -> np.ndarray:
        if self._kind is None:
            return np.ones(len(windows), bool)
        each, sizes = windows[:, None], (windows[:, 2:] - windows[:, :2]).prod(1)[:, None]
        objects, areas = boxes.corners[None], boxes.areas()[None]
        if self._kind == "jaccard_overlap":
            found = jaccard(each, objects, sizes, areas)
        elif self._kind == "sample_coverage":
            found = coverage(each, sizes, objects)
        else:
            found = coverage(objects, areas, each)
        passed = np.ones(found.shape, bool)
        least, most = _bounds(self._kind)
        if self._constraint.HasField(least):
            passed &= found >= np.float32(getattr(self._constraint, least))
        if self._constraint.HasField(most):
            passed &= found <= np.float32(getattr(self._constraint, most))
        return np.any(passed, axis=1)


def _bounds(kind: str) -> tuple[str, str]:
    return f"min_{kind}", f"max_{kind}"


def _between(low: float, high: float, share: np.ndarray) -> np.ndarray:
    return (low + (high - low) * share).astype(np.float32)


def choose_window(samplers: Sequence[BoxSampler], boxes: Boxes, drawn: np.ndarray) -> np.ndarray | None:
    """Return one of the windows of all samplers, each as likely as the others; None if no window passes.

    Args:
        samplers: those of the layer.
        boxes: the objects of the picture.
        drawn: random numbers from 0 to 1: one, and as many as each sampler needs.
    """
    windows, at = [np.empty((0, 4), np.float32)], 1
    for sampler in samplers:
        windows.append(sampler.windows(boxes, drawn[at : at + sampler.draws]))
        at += sampler.draws
    passed = np.concatenate(windows)
    return passed[int(drawn[0] * len(passed))] if len(passed) else None
