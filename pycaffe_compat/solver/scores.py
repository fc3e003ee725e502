"""What a test says of a net: the means of its outputs, or the average precision of what it detects.

The latter is that of SSD's Caffe (weiliu89/caffe, branch ssd, solver.cpp and bbox_util.cpp).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SolverError, nearest
from ..net import Net
from ..tables import dims
from . import log as lines
from .log import log

FIELDS = frozenset({"eval_type", "ap_version", "show_per_class_result"})
"""The fields that say how detections are scored."""
KINDS = ("classification", "detection")
POINTS = {"11point": 10, "101point": 100}  # the recalls from 0 to 1 in so many steps
VERSIONS = (*POINTS, "MaxIntegral", "Integral")
EPS = 1e-6


class Means:
    """Gathers the outputs of a test's batches, and averages each number of them.

    Args:
        holey: the outputs of which numbers below 0 are left out, as in the solvers of MS-CNN's and Cascade R-CNN's Caffe; the
            mean of none is NaN.
    """

    def __init__(self, holey: Collection[str] = ()) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor | int] = {}
        self._holey = holey

    def add(self, outputs: Mapping[str, Tensor]) -> None:
        """Take the outputs of a batch.

        Raises:
            SolverError: an output has another shape than before, as detections have; it has no mean.
        """
        for name, output in outputs.items():
            value = output.detach().double()
            before = self._sums.setdefault(name, torch.zeros_like(value))
            if before.shape != value.shape:
                raise SolverError(
                    f'output "{name}" has shape {dims(value.shape)}, but had {dims(before.shape)} in earlier batches, so it has '
                    'no mean. Score detections with a DetectionEvaluate layer, in solvers with eval_type: "detection"'
                )
            number: Tensor | int = 1
            if name in self._holey:
                number = (value >= 0).to(value.dtype)
                value = value.clamp(min=0)
            self._sums[name] = before + value
            self._counts[name] = self._counts.get(name, 0) + number

    def scores(self) -> dict[str, np.ndarray]:
        """The means, by the names of the outputs."""
        return {name: (total / self._counts[name]).cpu().numpy() for name, total in self._sums.items()}


class Precision:
    """Gathers the outputs of a test, and averages the precision of each label.

    Args:
        version: ``ap_version`` of the solver.
        shows_labels: whether the precision of each label is logged.
    """

    def __init__(self, version: str, shows_labels: bool) -> None:
        self._version, self._shows_labels = version, shows_labels
        self._rows: defaultdict[str, list[np.ndarray]] = defaultdict(list)

    def add(self, outputs: Mapping[str, Tensor]) -> None:
        """Take the outputs of a batch, tables of DetectionEvaluate."""
        for name, output in outputs.items():
            self._rows[name].append(output.detach().float().cpu().numpy().reshape(-1, 5))

    def scores(self) -> dict[str, np.ndarray]:
        """The mean average precision of each output over its labels; a label without a detection counts 0, and is warned of."""
        return {name: self._mean(np.concatenate(tables)) for name, tables in self._rows.items()}

    def _mean(self, rows: np.ndarray) -> np.ndarray:
        numbers = rows[:, 0].astype(int) == -1
        rows, heads = rows[~numbers], rows[numbers]
        rows = rows[rows[:, 3:].astype(int).any(1)]  # neither right nor wrong: a difficult box that does not count
        total = np.float32(0)
        labels = np.unique(heads[:, 1].astype(int))
        if not len(labels):
            log(
                lines.TEST_OUTPUT,
                "No true box that counts in the whole test: its precision is 0",
                level=logging.WARNING,
            )
        for label in labels.tolist():
            own = rows[rows[:, 1].astype(int) == label]
            if not len(own):
                log(lines.TEST_OUTPUT, "Missing true_pos for label: %d", label, level=logging.WARNING)
                continue
            boxes = int(heads[heads[:, 1].astype(int) == label, 2].sum())
            precision = average_precision(own[:, 2], own[:, 3].astype(int), boxes, self._version)
            if self._shows_labels:
                log(lines.TEST_OUTPUT, "class%d: %g", label, precision)
            total += precision
        return np.asarray(total / np.float32(max(len(labels), 1)))


def check_kind(param: Any) -> None:
    """Check what a ``SolverParameter`` says of tests.

    Raises:
        SolverError: ``eval_type`` or ``ap_version`` is none that there is.
    """
    versions = VERSIONS if param.eval_type == "detection" else (param.ap_version,)
    for field, known in (("eval_type", KINDS), ("ap_version", versions)):
        if (value := getattr(param, field)) not in known:
            raise SolverError(f'{field}: "{value}" is not one of {", ".join(known)}{nearest(value, known)}')


def check_outputs(net: Net, where: str) -> None:
    """Check that each output of a test net of ``eval_type: "detection"`` is of DetectionEvaluate.

    Raises:
        SolverError: one is not. ``where`` is the file of the net.
    """
    for name in net.outputs:
        shape = net.blob_shapes[name]
        if len(shape) != 4 or (shape[3] != 5 and shape[1:] != (5, 1, 1)):  # SSD's, Cascade R-CNN's
            raise SolverError(
                f'{where}: eval_type: "detection" takes test nets whose every output is one of a DetectionEvaluate layer, '
                f'1×1×rows×5, but "{name}" has {f"shape {dims(shape)}" if shape else "no axes"}. A Silence layer takes other '
                "outputs"
            )


def evaluates_detections(net: Net) -> bool:
    """Whether every output of a net is one of a DetectionEvaluate layer."""
    makers = {top: step.layer.type_name for step in net.steps for top in step.tops}
    return bool(net.outputs) and all(makers.get(name) == "DetectionEvaluate" for name in net.outputs)


def gathering(param: Any, net: Net) -> Means | Precision:
    """What gathers the outputs of a test net as the ``SolverParameter`` asks."""
    if param.eval_type == "detection":
        return Precision(param.ap_version, param.show_per_class_result)
    return Means({top for step in net.steps for top in step.tops if step.layer.negative_is_none})


def average_precision(scores: np.ndarray, right: np.ndarray, boxes: int, version: str) -> np.float32:
    """The average precision of a label's detections, in float32 and the fork's order of arithmetic.

    Args:
        scores: of the detections, (D).
        right: 1 for a true positive, 0 for a false one, (D).
        boxes: how many true boxes there are.
        version: ``"11point"``, the mean of the best precisions from 11 recalls on (VOC 2007); ``"101point"``, from 101
            (COCO, as in Cascade R-CNN's Caffe); ``"MaxIntegral"``, the integral of the best precision from a recall on (VOC
            2012); ``"Integral"``, that of the precision itself.
    """
    if not len(scores) or not boxes:
        return np.float32(0)
    hits = right[np.argsort(-scores, kind="stable")].cumsum()
    precision = (hits / np.arange(1, len(hits) + 1)).astype(np.float32)
    recall = (hits / boxes).astype(np.float32)
    if steps_to_one := POINTS.get(version):
        points = (
            np.arange(steps_to_one, -1, -1) / steps_to_one
        )  # the recalls are compared in double: 0.7 in float32 is below it
        best = [precision[recall.astype(np.float64) >= point].max(initial=0) for point in points]
        return _sum(np.array(best, np.float32) / np.float32(len(points)))
    if version == "MaxIntegral":
        highest = np.maximum.accumulate(precision[::-1])
        steps = np.abs(np.diff(recall[::-1]))
        return _sum(np.append(np.where(steps > EPS, highest[1:] * steps, 0), highest[-1] * recall[0]))
    steps = np.diff(recall, prepend=np.float32(0))
    return _sum(np.where(steps > EPS, precision * steps, 0))


def _sum(values: np.ndarray) -> np.float32:
    """The sum in float32, one after the other."""
    return values.astype(np.float32).cumsum(dtype=np.float32)[-1]
