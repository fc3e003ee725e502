"""``batch_sampler`` of SSD's Caffe: random windows of a picture that hold objects in a given way.

The rules are those of weiliu89/caffe, branch ssd (``sampler.cpp``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .boxes import Boxes, coverage, jaccard

_KINDS = ("jaccard_overlap", "sample_coverage", "object_coverage")


class WindowSampler:
    """Draws windows as each ``BatchSampler`` says, and chooses one of all that pass.

    Each sampler draws until ``max_sample`` windows have passed, ``max_trials`` times at most. A window passes if an object meets
    the constraint. Of ``jaccard_overlap``, ``sample_coverage`` and ``object_coverage`` only the first that has a bound decides;
    that is how SSD's Caffe behaves, whose search ends with the first object that is found.

    Args:
        samplers: ``batch_sampler``.
        square: windows are squares of a share of the picture's shorter side, as in FaceBoxes' Caffe, whatever the aspect ratio.

    Attributes:
        draws: how many random numbers a picture needs.

    Raises:
        DataError: a range that is empty, or scales that are not above 0 and at most 1.
    """

    def __init__(self, samplers: Sequence[Any], square: bool = False) -> None:
        self._square = square
        ranges, bounds, kinds, self._parts = [], [], [], []
        for number, each in enumerate(samplers):
            scales, aspects = _ranges(each.sampler, f"annotated_data_param.batch_sampler[{number}].sampler")
            kind = next((kind for kind in _KINDS if any(map(each.sample_constraint.HasField, _names(kind)))), "")
            most: int | None = each.max_sample if each.HasField("max_sample") else None
            trials = each.max_trials if each.use_original_image and most != 0 else 0
            if not kind and most is not None:
                trials = min(trials, most)  # every window passes
            self._parts.append((trials, most))
            ranges += [(*scales, *aspects)] * trials
            bounds += [_bounds(each.sample_constraint, kind)] * trials
            kinds += [kind] * trials
        self._low_scale, self._high_scale, self._narrow, self._wide = np.array(ranges, np.float64).reshape(-1, 4).T
        self._least, self._most = np.array(bounds, np.float32).reshape(-1, 2, 1).transpose(1, 0, 2)
        self._of_kind = {kind: np.flatnonzero(np.array(kinds) == kind) for kind in set(kinds)}
        self._trials = len(kinds)
        self.draws = 1 + 4 * self._trials

    def __call__(self, boxes: Boxes, drawn: np.ndarray, size: tuple[int, int] = (1, 1)) -> np.ndarray | None:
        """Return one of the windows that pass, each as likely as the others; None if none passes.

        Args:
            boxes: the objects of the picture.
            drawn: :attr:`draws` random numbers from 0 to 1.
            size: height and width of the picture.

        Returns:
            Left, top, right and bottom, ``float32``, as fractions of the picture.
        """
        windows = self.windows(drawn[1:], size)
        passed, found, start = self.passed(windows, boxes), [], 0
        for trials, most in self._parts:
            found.append(start + np.flatnonzero(passed[start : start + trials])[:most])
            start += trials
        chosen = np.concatenate(found) if found else np.empty(0, int)
        return windows[chosen[int(drawn[0] * len(chosen))]] if len(chosen) else None

    def windows(self, drawn: np.ndarray, size: tuple[int, int] = (1, 1)) -> np.ndarray:
        """Return the windows of all trials, T×4, in a picture of this size; ``drawn`` are four random numbers for each."""
        share = drawn.reshape(4, -1)
        scale = (self._low_scale + (self._high_scale - self._low_scale) * share[0]).astype(np.float32)
        if self._square:
            height, width = map(np.float32, size)
            extent = np.stack([scale * min(height / width, 1), scale * min(width / height, 1)]).astype(np.float32)
            return self._placed(extent, share[2:])
        aspect = (self._narrow + (self._wide - self._narrow) * share[1]).astype(np.float32)
        square = scale.astype(np.float64) ** 2
        root = np.sqrt(np.clip(aspect, square.astype(np.float32), (1 / square).astype(np.float32)))
        return self._placed(np.stack([scale * root, scale / root]), share[2:])

    @staticmethod
    def _placed(extent: np.ndarray, share: np.ndarray) -> np.ndarray:
        origin = (np.maximum(np.float32(1) - extent, 0) * share).astype(np.float32)
        return np.concatenate([origin, origin + extent]).T

    def passed(self, windows: np.ndarray, boxes: Boxes) -> np.ndarray:
        """Return whether each window, T×4, passes its constraint."""
        objects, areas = boxes.corners[None], boxes.areas()[None]
        passed = np.ones(self._trials, bool)
        for kind, rows in self._of_kind.items():
            if not kind:
                continue
            each = windows[rows][:, None]
            sizes = (each[..., 2] - each[..., 0]) * (each[..., 3] - each[..., 1])
            if kind == "jaccard_overlap":
                found = jaccard(each, objects, sizes, areas)
            elif kind == "sample_coverage":
                found = coverage(each, sizes, objects)
            else:
                found = coverage(objects, areas, each)
            passed[rows] = np.any((found >= self._least[rows]) & (found <= self._most[rows]), axis=1)
        return passed


class JitterSampler:
    """Draws a window somewhat smaller than the picture (MobileNet-YOLO's ``GenerateJitterSamples``).

    One of five pictures stays whole; one loses up to half of ``jitter`` of its sides, and three up to ``jitter``.

    Args:
        jitter: the share of a side, from 0 to 1.
        keeps_proportions: both sides lose the same share.

    Attributes:
        draws: how many random numbers a picture needs.

    Raises:
        DataError: ``jitter`` is not from 0 to 1.
    """

    draws = 5

    def __init__(self, jitter: float, keeps_proportions: bool) -> None:
        if not 0 <= jitter < 1:
            raise DataError(f"annotated_data_param.yolo_data_jitter: {jitter:g} must be at least 0 and below 1")
        self._jitter, self._keeps = jitter, keeps_proportions

    def __call__(self, boxes: Boxes, drawn: np.ndarray, size: tuple[int, int] = (1, 1)) -> np.ndarray:
        """Return left, top, right and bottom of a window, ``float32``, as fractions of the picture.

        Args:
            boxes, size: the objects and the size of the picture, which play no part.
            drawn: :attr:`draws` random numbers from 0 to 1.
        """
        kind, across, down, left, top = drawn
        if kind < 0.2:
            return np.array([0, 0, 1, 1], np.float32)
        most = self._jitter / 2 if kind < 0.4 else self._jitter
        width = 1 - most * across
        height = width if self._keeps else 1 - most * down
        x, y = left * (1 - width), top * (1 - height)
        return np.array([x, y, x + width, y + height], np.float32)


def _ranges(sampler: Any, where: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ranges of scale and aspect ratio."""
    low, high = sampler.min_scale, sampler.max_scale
    if not 0 < low <= high <= 1:
        raise DataError(f"{where}: min_scale is {low:g} and max_scale {high:g}; expected 0 < min_scale ≤ max_scale ≤ 1")
    narrow, wide = sampler.min_aspect_ratio, sampler.max_aspect_ratio
    if not 0 < narrow <= wide < np.finfo(np.float32).max:
        raise DataError(
            f"{where}: min_aspect_ratio is {narrow:g} and max_aspect_ratio {wide:g}; expected "
            "0 < min_aspect_ratio ≤ max_aspect_ratio"
        )
    return (low, high), (narrow, wide)


def _names(kind: str) -> tuple[str, str]:
    return f"min_{kind}", f"max_{kind}"


def _bounds(constraint: Any, kind: str) -> tuple[float, float]:
    """The least and the most that a constraint allows."""
    if not kind:
        return -np.inf, np.inf
    least, most = _names(kind)
    return (
        getattr(constraint, least) if constraint.HasField(least) else -np.inf,
        getattr(constraint, most) if constraint.HasField(most) else np.inf,
    )
