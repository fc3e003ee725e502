"""Whether an exported file computes what the net computes."""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import ops
from ..errors import CaffeError
from ..forks.cascade_rcnn.box_output import FrcnnOutput
from ..forks.cascade_rcnn.routing import ScaleRoute
from ..forks.deeplab.labels import BiasChannel
from ..forks.fast_rcnn.proposal_layer import PythonProposal
from ..forks.fast_rcnn.roi_pooling import ROIPooling
from ..forks.happynear.proposal import Proposal
from ..forks.mnc.roi_warping import ROIWarping
from ..forks.mscnn.decode_bbox import DecodeBBox
from ..forks.mscnn.roi_align import GridROIAlign
from ..forks.psroi_align.psroi_align import PSROIAlign
from ..forks.rfcn.psroi_pooling import PSROIPooling
from ..forks.ssd.detection_output import DetectionOutput
from ..forks.synopsys.proposal import RoundedProposal
from ..layers.common import BatchReindex
from ..layers.linear import Embed
from ..layers.pooling import Pooling
from ..layers.recurrent import Carrying
from ..net import Net
from ..packages import require_package
from .outline import MORE, Outline

TOLERANCE = 1e-4  # of the range of an output
ROUNDING = 4  # times what rounding does to the net itself, where that is more: sums in another order differ by as much
DETECTIONS = {"DetectionOutput", "YoloDetectionOutput", "Yolov3DetectionOutput"}  # their tops are lists by score
MOST_ROUNDING = 1e-2  # of the range of an output; beyond that a comparison shows nothing


@dataclass(frozen=True)
class Difference:
    """The difference between an exported file's output and the net's.

    Attributes:
        output: the blob.
        batch: the length of axis 0 of the inputs.
        largest: the largest difference of two elements.
        reach: the largest magnitude of the net's output, or the width of its values if that is greater.
        chosen: in how many pooling windows the file chose another of values that are equal but for rounding. What the net
            computes with these choices is then what the file is compared with.
        rounding: how far the net's output in float32 is from its own in float64; 0 if not measured, infinite if not even
            their shapes or their infinite values are the same.
        alike: of how many of the maxima along axis 1, such as the classes of a batch, the places are the same: a part of 1.
        finite: whether all values of the net's output are.
    """

    output: str
    batch: int
    largest: float
    reach: float
    chosen: int = 0
    rounding: float = 0.0
    alike: float = 1.0
    finite: bool = True

    @property
    def relative(self) -> float:
        """The largest difference, as a part of the output's range."""
        return self.largest / self.reach if self.reach else self.largest

    @property
    def right(self) -> bool:
        """Whether the file computes what the net does, but for rounding."""
        lost = self.rounding / self.reach if self.reach else 0.0
        return self.relative <= max(TOLERANCE, ROUNDING * lost if lost <= MOST_ROUNDING else 0.0)


def compare_onnx(
    net: Net,
    found: Outline,
    path: str | os.PathLike[str],
    batches: Sequence[Mapping[str, np.ndarray]] = (),
    given: Sequence[Mapping[str, np.ndarray]] | None = None,
) -> list[Difference]:
    """Run an ONNX model in onnxruntime beside its net, and return how far each output is from the net's.

    Args:
        net: what was exported, in the TEST phase.
        found: what :func:`.to_onnx` returned.
        path: the model.
        batches: the inputs to try; none for random ones at two batch sizes.
        given: what the model takes instead of each, if that differs, such as images.

    Raises:
        CaffeError: onnxruntime is not installed, or refuses the model.
    """
    path, tried = os.fspath(path), list(batches or random_batches(found))
    given = list(given or tried)
    session = _session(path)
    made = [
        differences(net, found, batch, _run(session, path, found.results.values(), own))
        for batch, own in zip(tried, given, strict=True)
    ]
    maskers = [
        step for step in found.steps if isinstance(step.layer, Pooling) and step.layer.switchable and len(step.tops) > 1
    ]
    if not maskers or all(each.relative <= TOLERANCE for each in chain(*made)):
        return list(chain(*made))
    masks = {found.values[step.top_values[1]].name: step.layer for step in maskers}
    del session
    with _more_outputs(path, masks) as longer:
        session = _session(longer)
        for i, (batch, own) in enumerate(zip(tried, given, strict=True)):
            if all(each.relative <= TOLERANCE for each in made[i]):
                continue
            results = _run(session, path, [*found.results.values(), *masks], own)
            chosen = dict(zip(masks.values(), results[len(found.outputs) :], strict=True))
            with _choosing(chosen) as counts:
                again = differences(net, found, batch, results[: len(found.outputs)])
            made[i] = [replace(each, chosen=sum(counts)) for each in again]
    return list(chain(*made))


def with_rounding(
    net: Net, found: Outline, batches: Sequence[Mapping[str, np.ndarray]], tried: Sequence[Difference]
) -> list[Difference]:
    """Find how much rounding by itself changes the net, where a file differs by more than :data:`TOLERANCE`.

    Deep nets whose values grow from layer to layer, or cancel, may lose more digits than that in float32, and lose others
    in another order of sums. The net's distance from itself in float64 says how many.

    Args:
        net: what was exported.
        found: its outline.
        batches: the inputs that were tried.
        tried: the differences, batch by batch, in the order of the outputs.
    """
    number, made = len(found.outputs), list(tried)
    off = [i for i in range(len(batches)) if not all(d.right for d in made[i * number : (i + 1) * number])]
    exact = copy.deepcopy(net).double() if off else net
    for i in off:
        own, wanted = outputs(net, found, batches[i]), outputs(exact, found, batches[i])
        for place, name in enumerate(found.outputs, i * number):
            made[place] = replace(made[place], rounding=_apart(own[name], wanted[name]))
    return made


def _session(path: str) -> Any:
    onnxruntime = require_package(
        "onnxruntime", "checking an ONNX model needs onnxruntime", "pycaffe_compat[onnx], or --no-verify"
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise CaffeError(f"{path}: onnxruntime cannot run it: {error}") from error


def _run(session: Any, path: str, names: Iterable[str], batch: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    try:
        return list(session.run(list(names), dict(batch)))
    except Exception as error:
        raise CaffeError(f"{path}: onnxruntime cannot run it: {error}") from error


@contextmanager
def _more_outputs(path: str, names: Iterable[str]) -> Iterator[str]:
    """A model that answers these values too: messages that follow one another in a file are one, as protobuf reads it."""
    import onnx

    outputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    longer = f"{path}.masks"
    try:
        shutil.copyfile(path, longer)
        with open(longer, "ab") as file:
            file.write(onnx.ModelProto(graph=onnx.GraphProto(output=outputs)).SerializeToString())
        yield longer
    finally:
        if os.path.exists(longer):
            os.remove(longer)


@contextmanager
def _choosing(masks: Mapping[Any, np.ndarray]) -> Iterator[list[int]]:
    """Within, poolings answer these masks, as far as what they chose is a largest value but for rounding.

    Yields a list that gets the number of windows whose choice is another, pooling by pooling.
    """
    counts: list[int] = []

    def choose(mask: Tensor, pooling: Pooling, bottoms: tuple[Tensor, ...], tops: tuple[Tensor, Tensor]) -> Any:
        (x, *_), (y, own) = bottoms, tops
        plane = (x.shape[2], x.shape[3])
        window, _ = pooling.fit(x.shape)
        index = ops.mask_to_index(mask, *window, plane, pooling.local).flatten(2)
        inside = (index >= 0) & (index < plane[0] * plane[1])
        values = x.flatten(2).gather(2, index.clamp(0, plane[0] * plane[1] - 1)).reshape(y.shape)
        right = inside.reshape(y.shape) & ((y - values).abs() <= TOLERANCE * x.abs().max())
        counts.append(int((right & (mask != own)).sum()))
        return y, torch.where(right, mask, own)

    def chooser(mask: Tensor) -> Callable[..., Any]:
        return lambda pooling, bottoms, tops: choose(mask, pooling, bottoms, tops)

    hooks = [layer.register_forward_hook(chooser(torch.from_numpy(array))) for layer, array in masks.items()]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def random_batches(found: Outline) -> list[dict[str, np.ndarray]]:
    """Random inputs at the net's own sizes; where axes may change, at other sizes too: of axis 0, then of the others.

    Those that hold indices, regions or priors hold valid ones.
    """
    random, makers = np.random.default_rng(0), _makers(found)
    moving = set().union(*(value.moving for value in found.inputs.values()))
    batches: list[dict[str, np.ndarray]] = []
    for grown in (set[int](), moving & {0}, moving - {0}):
        if batches and not grown:
            continue
        batch = {}
        for name, value in found.inputs.items():
            shape = tuple(n + MORE.get(a, 1) if a in grown & value.moving else n for a, n in enumerate(value.shape))
            made = makers[name](random, shape) if name in makers else random.standard_normal(shape)
            batch[name] = made.astype("f4")
        batches.append(batch)
    return batches


def _makers(found: Outline) -> dict[str, Callable[[np.random.Generator, Sequence[int]], np.ndarray]]:
    """The inputs that hold something special, and what makes it."""
    makers = {}
    for step in found.steps:
        layer, bottoms = step.layer, [found.values[value] for value in step.bottom_values]
        if isinstance(layer, Embed):
            makers[bottoms[0].name] = _numbers(layer.rows)
        elif isinstance(layer, BatchReindex):
            makers[bottoms[1].name] = _numbers(bottoms[0].shape[0])
        elif isinstance(layer, BiasChannel):
            makers[bottoms[1].name] = _numbers(bottoms[0].shape[1])
        elif isinstance(layer, (PSROIPooling, ROIPooling, GridROIAlign, PSROIAlign, ROIWarping)):
            makers[bottoms[1].name] = _regions(bottoms[0].shape, 1 / layer.scale)
        elif isinstance(layer, (Proposal, PythonProposal, RoundedProposal)):
            makers[bottoms[1].name] = _codes
            makers[bottoms[2].name] = _sizes(bottoms[0].shape, layer.stride)
        elif isinstance(layer, FrcnnOutput):
            makers[bottoms[1].name] = _codes
            makers[bottoms[2].name] = _pixels(1)
            makers[bottoms[3].name] = _sizes((1, 1, 40, 30), 1)
        elif isinstance(layer, (DecodeBBox, ScaleRoute)):
            makers[bottoms[isinstance(layer, DecodeBBox)].name] = _pixels(bottoms[0].shape[0])
        elif isinstance(layer, DetectionOutput):
            makers[bottoms[0].name] = _codes
            makers[bottoms[2].name] = _priors
    return makers


def _numbers(below: int) -> Callable[[np.random.Generator, Sequence[int]], np.ndarray]:
    return lambda random, shape: random.integers(0, below, shape)


def _regions(shape: Sequence[int], scale: float) -> Callable[[np.random.Generator, Sequence[int]], np.ndarray]:
    """Rows of image, x1, y1, x2, y2 for planes of ``shape``, in whole cells: a rounding decides nothing."""

    sides = (*shape[2:-2], shape[-1], shape[-2])

    def make(random: np.random.Generator, rows: Sequence[int]) -> np.ndarray:
        width = 1 + 2 * len(sides)
        number = math.prod(rows) // width
        images = random.integers(0, shape[0], (number, 1))
        corners = np.sort(random.integers(0, sides, (number, 2, len(sides))), axis=1) * scale
        return np.concatenate((images, corners.reshape(number, width - 1)), 1).reshape(rows)

    return make


def _pixels(images: int) -> Callable[[np.random.Generator, Sequence[int]], np.ndarray]:
    """Rows of image, x1, y1, x2, y2 and perhaps a score."""

    def make(random: np.random.Generator, rows: Sequence[int]) -> np.ndarray:
        table = random.random((rows[0], math.prod(rows[1:])))
        table[:, 0] = random.integers(0, images, rows[0])
        table[:, 1:3] *= 20
        table[:, 3:5] = table[:, 1:3] + 2 + 20 * table[:, 3:5]
        return table.reshape(rows)

    return make


def _sizes(shape: Sequence[int], stride: int) -> Callable[[np.random.Generator, Sequence[int]], np.ndarray]:
    """Height and width of the image that a map of ``shape`` is of, and what it was scaled by: 1."""

    def make(random: np.random.Generator, rows: Sequence[int]) -> np.ndarray:
        told = np.ones(math.prod(rows))
        told[:2] = shape[2] * stride, shape[3] * stride
        return told.reshape(rows)

    return make


def _codes(random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    """Codes of boxes that no code turns inside out: what such boxes overlap is nobody's rule."""
    return random.standard_normal(shape) * 0.2


def _priors(random: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    corners = random.random((shape[0], shape[2] // 4, 2)) * 0.8
    boxes = np.concatenate((corners, corners + 0.1 + random.random(corners.shape) * 0.1), -1)
    return np.stack((boxes.reshape(shape[0], -1), np.full((shape[0], shape[2]), 0.1)), 1)


def differences(
    net: Net, found: Outline, batch: Mapping[str, np.ndarray], results: Sequence[np.ndarray]
) -> list[Difference]:
    """Hold ``results``, one array for each output, against what the net makes of ``batch``.

    Raises:
        CaffeError: a result has another shape.
    """
    wanted = outputs(net, found, batch)
    size = next((len(array) for array in batch.values() if array.ndim), 1)
    lists = {top for step in found.steps if step.layer.type_name in DETECTIONS for top in step.tops}
    made = []
    for name, have in zip(found.outputs, results, strict=True):
        want = wanted[name]
        if have.shape != want.shape and name not in lists:
            raise CaffeError(f"output {name} has shape {have.shape}, the net's has {want.shape}")
        if have.shape == want.shape and name in lists:
            have = in_order(have, want)
        values = want[np.isfinite(want)].astype(np.float64)
        reach = max(np.abs(values).max(initial=0), np.ptp(values) if values.size else 0)
        alike = 1.0
        if have.shape == want.shape and want.ndim > 1 and want.size and name not in lists:
            alike = float((have.argmax(1) == want.argmax(1)).mean())
        made.append(
            Difference(name, size, _apart(have, want), float(reach), alike=alike, finite=bool(np.isfinite(want).all()))
        )
    return made


def _apart(have: np.ndarray, want: np.ndarray) -> float:
    """The largest difference; infinite where shapes differ, or values that are not finite."""
    if have.shape != want.shape:
        return math.inf
    finite = np.isfinite(want)
    if not np.array_equal(have[~finite], want[~finite], equal_nan=True) or not np.isfinite(have[finite]).all():
        return math.inf
    return float(np.abs(have[finite].astype(np.float64) - want[finite]).max(initial=0))


def in_order(have: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Put detections by falling score in the order of ``want``, where only rounding decides which is first.

    Args:
        have: 1×1×K×7, what a file lists; a row is image, label, score and box.
        want: the same, as the net lists them.

    Returns:
        ``have``, with rows exchanged that have one image and label, and scores within :data:`TOLERANCE`.
    """
    rows, wanted = have.reshape(-1, 7).copy(), want.reshape(-1, 7)
    near = TOLERANCE * np.maximum(1, np.abs(wanted).max(initial=0, where=np.isfinite(wanted)))

    def same(many: np.ndarray, one: np.ndarray) -> Any:
        return np.isclose(many, one, 0, near).all(-1) & np.isclose(many[..., 2], one[2], 0, TOLERANCE)

    for i, row in enumerate(wanted):
        if same(rows[i], row):
            continue
        tied = np.isclose(rows[i:, :3], rows[i, :3], 0, [0, 0, TOLERANCE]).all(-1)
        others = i + np.flatnonzero(tied & same(rows[i:], row))
        if len(others):
            rows[[i, others[0]]] = rows[[others[0], i]]
    return rows.reshape(have.shape)


def outputs(net: Net, found: Outline, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the net itself makes of a batch: the exported outputs, by name."""
    tensors: dict[str, Any] = {name: torch.from_numpy(np.asarray(array, order="C")) for name, array in batch.items()}
    more = next((len(batch[n]) - v.shape[0] for n, v in found.inputs.items() if v.shape), 0)
    for name in net.inputs:  # those that only a part which was left out reads
        if name not in tensors:
            first, *rest = net.blob_shapes[name] or (0,)
            tensors[name] = torch.zeros(first + more, *rest)
    for layer in net.layers.values():
        if isinstance(layer, Carrying):
            layer.reset()
    with torch.no_grad():
        blobs, _ = net.run({name: value.to(net.device, net.dtype) for name, value in tensors.items()})
    return {name: blobs[name].detach().float().cpu().numpy() for name in found.outputs}
