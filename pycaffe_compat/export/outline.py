"""What of a net is exported: the layers that its outputs need, with the shapes that may change."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..errors import CaffeError, NetError
from ..forks.deconvnet.accuracy import BinAccuracy, EltwiseAccuracy, RedAccuracy
from ..forks.deeplab.mat_write import MatWrite
from ..forks.deeplab.seg_accuracy import SegAccuracy
from ..forks.mscnn.accuracy import BoxAccuracy, PlaceAccuracy
from ..forks.refinedet.detection_evaluate import RefinedDetectionEvaluate
from ..forks.rfcn.ohem import BoxAnnotatorOHEM
from ..forks.rtpose.peaks import ImResize
from ..forks.ssd.detection_evaluate import DetectionEvaluate
from ..forks.warpctc.sequences import LabelsequenceAccuracy
from ..forks.yolo_v1.eval_detection import DetectionScores
from ..layers import layer_class
from ..layers.accuracy import Accuracy
from ..layers.base import Shape, Source
from ..layers.common import Silence, Split
from ..layers.inputs import DummyData
from ..layers.making import infer_shapes
from ..layers.neuron import Dropout
from ..layers.output import HDF5Output, ImageOutput
from ..layers.recurrent import Carrying
from ..net import Net
from ..proto import caffe_pb2, filter_net, read_net
from ..wiring import Step
from .fold import folds

log = logging.getLogger(__name__)
LEFT_OUT = (
    Accuracy,
    BinAccuracy,
    BoxAccuracy,
    BoxAnnotatorOHEM,
    DetectionEvaluate,
    DetectionScores,
    EltwiseAccuracy,
    LabelsequenceAccuracy,
    MatWrite,
    PlaceAccuracy,
    RedAccuracy,
    RefinedDetectionEvaluate,
    SegAccuracy,
    Silence,
    HDF5Output,
    ImageOutput,
)  # besides losses: nothing of a trained net's answer
MORE = {0: 1, 2: 32, 3: 32}  # by how much an axis grows when the net, or what is exported, is tried with another size


@dataclass(frozen=True)
class Value:
    """A blob at a point of the net.

    Attributes:
        name: what it is called in the exported file.
        shape: its shape, as the net was built.
        moving: the axes whose length may be another one.
    """

    name: str
    shape: Shape
    moving: frozenset[int] = frozenset()

    def __str__(self) -> str:
        return self.name


@dataclass
class Outline:
    """A net as it is exported.

    Attributes:
        net: the net, in the TEST phase.
        steps: the layers that are exported, in order.
        values: by the number that ``Step`` gives a value.
        inputs, outputs: blob names and their values.
        notes: what the user should know: layers that were left out, axes that cannot change.
        folded: by layer, weights and biases that take over the layers after it.
        aliases: the layers whose tops are their bottom.
    """

    net: Net
    steps: list[Step]
    values: dict[int, Value]
    inputs: dict[str, Value]
    outputs: dict[str, Value]
    notes: list[str] = field(default_factory=list)
    folded: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    aliases: set[str] = field(default_factory=set)

    @property
    def results(self) -> dict[str, str]:
        """By output, what it is called in a file where no output has the name of an input, as the blob may that is both."""
        return {name: value.name if name in self.inputs else name for name, value in self.outputs.items()}

    def axis(self, name: str, axis: int) -> str:
        """What an axis of an input or output is called whose length may change: ``batch``, or after the blob.

        An axis 0 is of the batch if it is as long as that of the first input: regions have another number.
        """
        value = self.inputs.get(name) or self.outputs[name]
        first = next(iter(self.inputs.values()))
        return "batch" if axis == 0 and first.shape[:1] == value.shape[:1] else f"{name}_{axis}"


def refuse_files(model: str, fork: str = "") -> None:
    """Raise unless every input of the net in ``model`` is an ``Input`` or constant ``DummyData``.

    Raises:
        NetError: a data layer, or a net without inputs.
    """
    param = read_net(model, fork)
    state = caffe_pb2.NetState()
    state.CopyFrom(param.state)
    state.phase = caffe_pb2.TEST
    kinds = [
        (layer.name, layer_class(layer, model, param.fork))
        for layer in filter_net(param, state).layer
        if not layer.bottom
    ]
    for name, kind in kinds:
        if issubclass(kind, Source) and not kind.is_input and not issubclass(kind, DummyData):
            raise NetError(
                f'{model}: layer "{name}" ({kind.type_name}) reads data in the TEST phase, which an exported net cannot do: use '
                "the deploy net, which has an Input layer instead"
            )


def outline(net: Net, dynamic: Mapping[str, Sequence[int]] | None = None, fold: bool = False) -> Outline:
    """Return what of ``net`` is exported.

    Losses, Accuracy, Silence and layers that write files are left out, and whatever nothing else needs.

    Args:
        net: built for the TEST phase.
        dynamic: by input, the axes whose length may change besides axis 0, which always may where the net allows it.
        fold: fold BatchNorm and Scale into the convolution before them.

    Raises:
        NetError: a net without inputs or outputs, an input or axis that is not there or whose length cannot change.
    """
    notes = []
    cut = [step for step in net.steps if step.layer.loss or isinstance(step.layer, LEFT_OUT)]
    kept = [step for step in net.steps if step not in cut]
    consumed = {value for step in kept for value in step.bottom_values}
    ends = [v for step in kept if not step.is_source for v in step.top_values if v not in consumed]
    if not ends:
        raise NetError(f"{net.file or 'the net'}: nothing to export: no layer computes an output")
    needed, steps = set(ends), []
    for step in reversed(kept):
        if any(v in needed for v in step.top_values):
            needed.update(step.bottom_values)
            steps.append(step)
    steps.reverse()
    if cut:
        notes.append(f"left out, for they only train, score or write: {', '.join(step.name for step in cut)}")
    if not any(map(_is_input, steps)):
        raise NetError(f"{net.file or 'the net'}: has no Input layer, so the exported net would have no input")
    shapes = {v: tuple(net.wiring.shapes[v]) for step in steps for v in (*step.top_values, *step.bottom_values)}
    inputs = {
        top: v
        for step in steps
        if _is_input(step)
        for top, v in zip(step.tops, step.top_values, strict=True)
        if v in needed
    }
    moving = _moving(net, steps, inputs, dynamic, notes)
    _open(net, steps, shapes, moving)
    folded, aliases = folds(steps, set(ends)) if fold else ({}, set())
    aliases |= {step.name for step in steps if isinstance(step.layer, (Dropout, Split))}
    names = _names(net, steps, aliases)
    values = {v: Value(names[v], shape, moving.get(v, frozenset())) for v, shape in shapes.items()}
    return Outline(
        net,
        steps,
        values,
        {top: values[v] for top, v in inputs.items()},
        {net.wiring.names[v]: values[v] for v in sorted(ends, key=lambda v: net.wiring.names[v])},
        notes,
        folded,
        aliases,
    )


def _open(net: Net, steps: Sequence[Step], shapes: Mapping[int, Shape], moving: dict[int, frozenset[int]]) -> None:
    """Add the axes whose length only a pass decides, by values, and those of later layers that follow from them."""
    longer = dict(shapes)
    for step in steps:
        tops: list[Shape] = [shapes[v] for v in step.top_values]
        bottoms = [longer[v] for v in step.bottom_values]
        if bottoms != [shapes[v] for v in step.bottom_values]:
            with contextlib.suppress(CaffeError):  # a layer that needs that length says so where it runs
                tops = [tuple(shape) for shape in infer_shapes(step.layer, bottoms, net.file)]
        for value, shape in zip(step.top_values, tops, strict=True):
            top = tuple(n + 1 if a in step.layer.open_axes else n for a, n in enumerate(shape))
            longer[value] = top
            changed = {a for a, (m, n) in enumerate(zip(shapes[value], top, strict=False)) if m != n}
            if changed:
                moving[value] = moving.get(value, frozenset()) | changed


def _is_input(step: Step) -> bool:
    return isinstance(step.layer, Source) and step.layer.is_input


def _names(net: Net, steps: Sequence[Step], aliases: set[str]) -> dict[int, str]:
    """What each value is called: as its blob, or, where a later layer works in place on it, BLOB/LAYER of its own maker.

    An input keeps its name, and what layers make of it in place is BLOB/LAYER.
    """
    root: dict[int, int] = {}
    for step in steps:
        for value in step.top_values:
            root[value] = root[step.bottom_values[0]] if step.name in aliases else value
    newest = net.wiring.newest
    given = {v: net.wiring.names[v] for step in steps if _is_input(step) for v in step.top_values}
    maker = {value: step.name for step in steps for value in step.top_values}
    named: dict[int, str] = {}
    for value, first in root.items():
        blob = net.wiring.names[first]
        if blob in given.values():
            named[first] = blob if first in given else f"{blob}/{maker[first]}"
        elif newest[blob] == value or (first == value and named.get(first) is None):
            named[first] = blob if root.get(newest[blob], -1) == first else f"{blob}/{maker[first]}"
    return {value: named[first] for value, first in root.items()}


def _moving(
    net: Net,
    steps: Sequence[Step],
    inputs: Mapping[str, int],
    dynamic: Mapping[str, Sequence[int]] | None,
    notes: list[str],
) -> dict[int, frozenset[int]]:
    """The axes of each value that may have other lengths, found by asking the net for its shapes at other sizes."""
    shapes = [tuple(shape) for shape in net.wiring.shapes]
    _check_axes(dynamic or {}, {name: shapes[value] for name, value in inputs.items()})
    moving: dict[int, set[int]] = {}
    _try_batch(net, steps, inputs, shapes, moving, notes)
    for name, axes in (dynamic or {}).items():
        given = {name: set(axes) - {0}}
        try:
            _try(net, inputs, shapes, given, moving)
        except CaffeError as error:
            raise NetError(f"axes {', '.join(map(str, axes))} of {name} cannot change: {error}") from error
    return {value: frozenset(axes) for value, axes in moving.items()}


def _check_axes(dynamic: Mapping[str, Sequence[int]], inputs: Mapping[str, Shape]) -> None:
    for name, axes in dynamic.items():
        if name not in inputs:
            raise NetError(f'no input "{name}"; the inputs are {", ".join(inputs)}')
        for axis in axes:
            if not 0 <= axis < len(inputs[name]):
                raise NetError(f'input "{name}" has {len(inputs[name])} axes; {axis} is none of them')


def _try_batch(
    net: Net,
    steps: Sequence[Step],
    inputs: Mapping[str, int],
    shapes: Sequence[Shape],
    moving: dict[int, set[int]],
    notes: list[str],
) -> None:
    """Let axis 0 of the inputs change, or of those that hold several items, or of none, which is noted."""
    wanted: dict[str, set[int]] = {name: {0} for name, v in inputs.items() if shapes[v]}
    timed = [step.name for step in steps if isinstance(step.layer, Carrying)]
    apart = [step.name for step in steps if isinstance(step.layer, ImResize) and step.layer.gap]
    try:
        if timed:
            raise NetError(f'layer "{timed[0]}" is written out step by step, and axis 0 is time')
        if apart:
            raise NetError(f'layer "{apart[0]}" resizes each item by a different factor')
        _try(net, inputs, shapes, wanted, moving)
    except CaffeError as error:
        many = {} if timed or apart else {name: {0} for name in wanted if shapes[inputs[name]][0] > 1}
        kept = "the inputs"
        if 0 < len(many) < len(wanted):  # what there is one of may be the picture's, and the others its regions
            with contextlib.suppress(CaffeError):
                _try(net, inputs, shapes, many, moving)
                kept = ", ".join(name for name in wanted if name not in many)
        notes.append(f"axis 0 of {kept} keeps its length: {error}")


def _try(
    net: Net,
    inputs: Mapping[str, int],
    shapes: Sequence[Shape],
    axes: Mapping[str, set[int]],
    moving: dict[int, set[int]],
) -> None:
    given: dict[str, Any] = {
        name: tuple(n + MORE.get(a, 1) if a in axes.get(name, ()) else n for a, n in enumerate(shapes[v]))
        for name, v in inputs.items()
    }
    if any(0 in grown for grown in axes.values()):  # labels of what is left out
        for name in set(net.inputs) - set(inputs):
            first, *rest = net.blob_shapes[name] or (0,)
            given[name] = (first + 1, *rest)
    for value, (old, new) in enumerate(zip(shapes, net.shapes_for(given), strict=True)):
        if len(old) != len(new):
            raise NetError(f'the blob "{net.wiring.names[value]}" would have a different number of axes')
        moving.setdefault(value, set()).update(a for a, (m, n) in enumerate(zip(old, new, strict=True)) if m != n)
