"""Operators as layers: the net that grows, and the registry of what turns an operator into layers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...errors import NetError
from ...proto import caffe_pb2
from ...tables import dims
from .graph import Graph, operator_name, shape_of

Convert = Callable[..., Any]
CONVERTERS: dict[str, Convert] = {}
RARE = {
    "Permute": "Permute is a layer of SSD's Caffe; BVLC's has none",
    "Clip": "Clip is younger (2018) than Caffe's release 1.0",
    "Swish": "Swish is younger (2017) than Caffe's release 1.0",
}
_SHOWN = 6  # places that a message names
IN_PLACE = {"ReLU", "PReLU", "BatchNorm", "Scale", "Dropout"}


def converts(*operators: str) -> Callable[[Convert], Convert]:
    """Decorator: the function makes the layers of these operators of ``torch.ops.aten``, such as ``conv2d.default``.

    ``f(conversion, a) -> blob``, with the operator's arguments as attributes of ``a``: a :class:`Blob` for a value of the net,
    a tensor for a constant, numbers as they are.
    """

    def enter(function: Convert) -> Convert:
        CONVERTERS.update(dict.fromkeys(operators, function))
        return function

    return enter


class Unsaid(NetError):
    """An operator that no layer computes.

    Attributes:
        where: its place in the module.
    """

    where = ""


def several(names: Sequence[str]) -> str:
    """The first of these names, and how many more there are."""
    shown = list(dict.fromkeys(names))
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")


@dataclass(frozen=True)
class Blob:
    """A value of the net.

    Attributes:
        name: of the blob.
        shape: for the example.
        reads: how many operators read it.
        given: whether it is an input of the net.
        node: what made it in the module.
        padding: zeros on both sides of each axis after the channels, which the convolution that reads it must add.
        turned: whether its channels are blue, green, red where the module has red, green, blue.
        window: of a mask, kernel, stride and pad of the Pooling that made it, and the size of its planes.
    """

    name: str
    shape: tuple[int, ...]
    reads: int = 1
    given: bool = False
    node: torch.fx.Node | None = None
    padding: tuple[int, ...] = ()
    window: tuple[tuple[int, ...], ...] = ()
    turned: bool = False


@dataclass(frozen=True)
class Normalised:
    """The preprocessing that a module expects: RGB, ``(x / 255 - mean) / std``.

    Attributes:
        mean, std: of each channel, red first.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __call__(self, picture: Tensor) -> Tensor:
        """What the module takes for pictures in BGR with values from 0 to 255, (N, 3, H, W)."""
        mean, std = (torch.tensor(each, dtype=picture.dtype)[:, None, None] for each in (self.mean, self.std))
        return (picture.flip(1) / 255 - mean) / std


class Conversion:
    """A net that grows by one layer after another.

    Attributes:
        net: the ``NetParameter``.
        blobs: by layer, its numbers.
        rare: what not every Caffe knows, and the layers that use it.
    """

    def __init__(self, graph: Graph, name: str, pictures: Normalised | None = None) -> None:
        self.graph, self.pictures = graph, pictures
        self.net = caffe_pb2.NetParameter(name=name)
        self.blobs: dict[str, list[Tensor]] = {}
        self.rare: dict[str, list[str]] = {}
        self.node: torch.fx.Node = graph.nodes[0]
        self._values: dict[str, Any] = dict(graph.constants)
        self._names: set[str] = set()
        self._flattened: dict[str, Blob] = {}

    def convert(self) -> list[Blob]:
        """Make all layers; return the blobs of the outputs.

        Raises:
            NetError: operators that no layer computes; the message names them all, with their paths in the module.
        """
        for node in self.graph.inputs:
            self._input(node)
        faults = self._make_layers()
        if faults:
            why = "; ".join(f"{several(places)}: {fault}" for fault, places in faults.items())
            raise NetError(f"{self.graph.name} cannot be written as a Caffe net: {why}")
        outputs = []
        for node in self.graph.outputs:
            value = self._values[node.name]
            if not isinstance(value, Blob):
                raise NetError(f"{self.graph.name}: its output {node.name} does not depend on its input")
            if any(value.padding):
                raise NetError(f"{self.graph.name}: its output {value.name} is padded; Caffe pads only in convolutions")
            outputs.append(value)
        return outputs

    def _make_layers(self) -> dict[str, list[str]]:
        """Make the layers of all operators that the outputs need; return what no layer computes, with the paths."""
        faults: dict[str, list[str]] = {}
        needed, norms = self._needed(), response_norms(self.graph.nodes)
        for node in self.graph.nodes:
            if node.op != "call_function" or node not in needed or norms.get(node, node) is None:
                continue
            self.node = node
            try:
                norm = norms.get(node)
                value = self._convert(node) if norm is None else self._response_norm(norm)
            except Unsaid as error:
                faults.setdefault(str(error), []).append(error.where)
                value = self._stand_in(node)
            except Exception:
                if not faults:
                    raise
                break  # a stand-in is not what the rest expects
            if isinstance(value, Blob) and value.node is not node:  # nothing was done to it
                value = replace(value, reads=value.reads - 1 + self._reads())
            self._values[node.name] = value
        return faults

    def _needed(self) -> set[torch.fx.Node]:
        waiting, needed = list(self.graph.outputs), set(self.graph.outputs)
        while waiting:
            for node in waiting.pop().all_input_nodes:
                if node not in needed:
                    needed.add(node)
                    waiting.append(node)
        return needed

    def _input(self, node: torch.fx.Node) -> None:
        shape = shape_of(node)
        name = self.unique("data" if len(self.graph.inputs) == 1 else node.name)
        layer = self.net.layer.add(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
        blob = Blob(name, shape, len(node.users), True, node)
        self._values[node.name] = blob if self.pictures is None else self._normalise(blob, self.pictures)

    def _normalise(self, blob: Blob, pictures: Normalised) -> Blob:
        """A Scale that turns pictures into what the module expects, except for the order of their channels."""
        wrong = [len(each) for each in (pictures.mean, pictures.std) if len(each) != 3]
        if len(self.graph.inputs) > 1 or len(blob.shape) != 4 or blob.shape[1] != 3 or wrong:
            raise NetError(
                f"{self.graph.name}: mean and std are three numbers each, for one input N×3×H×W; its input is "
                f"{self.said(blob.shape)}"
            )
        factor = 1 / torch.tensor(pictures.std[::-1])
        name = self.unique("normalise")
        layer = self.net.layer.add(name=name, type="Scale", bottom=[blob.name], top=[name])
        layer.param.extend([caffe_pb2.ParamSpec(lr_mult=0, decay_mult=0)] * 2)
        layer.scale_param.bias_term = True
        self.blobs[name] = [factor / 255, -torch.tensor(pictures.mean[::-1]) * factor]
        return replace(blob, name=name, turned=True)

    def _stand_in(self, node: torch.fx.Node) -> Any:
        """What stands for a value that could not be made, so that other faults are found too."""
        value = node.meta.get("val")
        if isinstance(value, (tuple, list)):
            return tuple(Blob("", tuple(v.shape), 2) for v in value)
        return Blob("", shape_of(node), 2)

    def _convert(self, node: torch.fx.Node) -> Any:
        if node.target is operator.getitem:
            source, index = node.args
            return self._values[source.name][index]  # type: ignore[union-attr, index]
        name = operator_name(node.target)
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return node.meta.get("val")  # arithmetic on lengths
        args = self._arguments(node, schema)
        if name.startswith("sym_size"):
            return node.meta["val"]
        if not any(isinstance(value, Blob) for value in _flat(vars(args).values())):
            return self._constant(args)
        function = CONVERTERS.get(name)
        if function is None:
            raise self.unsaid(f"no layer computes {name.partition('.')[0]}")
        return function(self, args)

    def _constant(self, args: SimpleNamespace) -> Any:
        """Compute what depends only on constants."""
        given = dict(vars(args))
        if any(isinstance(value, torch.SymInt) for value in _flat(given.values())):
            raise self.unsaid("makes constants whose size depends on the batch")
        first = [given.pop("self")] if "self" in given else []
        return self.node.target(*first, **given)  # type: ignore[operator]

    def _response_norm(self, norm: SimpleNamespace) -> Any:
        return CONVERTERS["local_response_norm.default"](
            self, SimpleNamespace(**{**vars(norm), "input": self._values[norm.input.name]})
        )

    def _arguments(self, node: torch.fx.Node, schema: Any) -> SimpleNamespace:
        found = {}
        for i, argument in enumerate(schema.arguments):
            if i < len(node.args) and not argument.kwarg_only:
                value = node.args[i]
            elif argument.name in node.kwargs:
                value = node.kwargs[argument.name]
            else:
                value = argument.default_value
            found[argument.name] = torch.fx.node.map_arg(value, lambda n: self._values[n.name])
        return SimpleNamespace(**found)

    # What the functions of operators use

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what the operator makes, for the example; of several values the first."""
        value = self.node.meta["val"]
        if isinstance(value, (tuple, list)):
            return tuple(int(n.node.hint) if isinstance(n, torch.SymInt) else int(n) for n in value[0].shape)
        return shape_of(self.node)

    @property
    def path(self) -> str:
        """Where in the module the operator is: the innermost submodule, such as ``layer1.0.conv1``."""
        stack = self.node.meta.get("nn_module_stack") or {}
        return next((path for path, _ in reversed(list(stack.values()))), "")

    @property
    def kind(self) -> str:
        """The class of that submodule, such as ``torch.nn.modules.conv.Conv2d``."""
        stack = self.node.meta.get("nn_module_stack") or {}
        return next((str(kind) for _, kind in reversed(list(stack.values()))), "")

    def name(self, what: str = "") -> str:
        """A name for a layer of the operator: the path of PyTorch's module, or that of the user's with the operator's behind."""
        base = self.path
        function = what or operator_name(self.node.target).partition(".")[0]
        if what or not base or not self.kind.startswith("torch.nn."):
            base = f"{base}/{function}" if base else function
        return self.unique(base)

    def unique(self, base: str) -> str:
        """``base``, with a number if a layer is called so."""
        name, number = base, 1
        while name in self._names:
            number += 1
            name = f"{base}_{number}"
        self._names.add(name)
        return name

    def layer(
        self,
        kind: str,
        bottoms: Sequence[Blob],
        options: Mapping[str, Any] | None = None,
        blobs: Sequence[Tensor | None] = (),
        shape: Sequence[int] | None = None,
        what: str = "",
        tops: Sequence[Sequence[int]] | None = None,
        fixed: bool = False,
    ) -> Any:
        """Add a layer; return the blob of its top, or a list of blobs for ``tops``.

        Args:
            kind: its type.
            bottoms: what it reads.
            options: by field of the layer's ``…_param`` message, the field's name first: ``{"relu_param": {…}}``.
            blobs: its numbers; None for those that it lacks.
            shape: of the top, for the example; that of the operator's value unless given.
            what: follows the module's path in its name, where the operator needs several layers.
            tops: the shapes of several tops.
            fixed: whether solvers leave its values unchanged.
        """
        padded = next((each for each in bottoms if any(each.padding)), None)
        if padded is not None:
            raise self.unsaid(f"reads {padded.name} padded by {dims(padded.padding)}; Caffe pads only in convolutions")
        if any(each.turned for each in bottoms):
            raise self.unsaid(
                "reads the image directly; with mean and std, only convolutions may, because their filters can be turned to BGR"
            )
        name = self.name(what)
        layer = self.net.layer.add(name=name, type=kind, bottom=[each.name for each in bottoms])
        for field, values in (options or {}).items():
            if values:
                _fill(getattr(layer, field), values)
        own = [each.detach().to("cpu", torch.float32) for each in blobs if each is not None]
        if own:
            self.blobs[name] = own
        if fixed:
            layer.param.extend(caffe_pb2.ParamSpec(lr_mult=0, decay_mult=0) for _ in own)
        if kind in RARE:
            self.note(RARE[kind], name)
        if tops is not None:
            names = [self.unique(f"{name}.{i}") for i in range(len(tops))]
            layer.top.extend(names)
            return [Blob(each, tuple(s), 2) for each, s in zip(names, tops, strict=True)]
        first = bottoms[0] if bottoms else None
        alone = first is not None and first.reads == 1 and not first.given
        top = first.name if first is not None and alone and kind in IN_PLACE else name
        layer.top.append(top)
        return Blob(top, tuple(self.shape if shape is None else shape), self._reads(), False, self.node)

    def _reads(self) -> int:
        """How many operators read what the operator makes."""
        count = len(self.node.users) + (self.node in self.graph.outputs)
        for user in self.node.users:
            if user.target is operator.getitem:
                count += len(user.users) + (user in self.graph.outputs) - 1
        return count

    def note(self, what: str, layer: str) -> None:
        """Remember that a layer uses what not every Caffe knows."""
        self.rare.setdefault(what, []).append(layer)

    def unflattened(self, blob: Blob) -> Blob:
        """What a Flatten before an InnerProduct, which flattens by itself, has flattened; the Flatten is dropped."""
        last = self.net.layer[-1]
        before = self._flattened.get(blob.name)
        if before is None or blob.reads != 1 or last.type != "Flatten" or last.top[0] != blob.name:
            return blob
        self._names.discard(last.name)
        del self.net.layer[-1]
        return before

    def flatten(self, blob: Blob, what: str = "flatten") -> Blob:
        """A Flatten of all axes but the first."""
        made: Blob = self.layer("Flatten", [blob], what=what)
        self._flattened[made.name] = blob
        return made

    def part(self, blob: Blob) -> Blob:
        """A blob in the middle of an operator, which only its next layer reads."""
        return Blob(blob.name, blob.shape, 1, False, blob.node)

    def said(self, shape: Sequence[int]) -> str:
        """A shape of the net in a message: N for the batch, where that may be any."""
        whole = dims(shape)
        return f"N{whole[len(str(shape[0])) :]}" if shape and self.graph.any_batch else whole

    def unsaid(self, why: str) -> Unsaid:
        """Return (for the caller to raise) that the operator cannot be written, where it is, and why."""
        kind = self.kind.rsplit(".", 1)[-1]
        error = Unsaid(why)
        error.where = f"{self.path or 'the module itself'}{f' ({kind})' if kind else ''}"
        return error

    def number(self, value: Any, what: str) -> float:
        """An argument that must be a number: also a constant with one element."""
        if isinstance(value, Tensor) and value.numel() == 1:
            return float(value)
        if isinstance(value, (Tensor, Blob)):
            raise self.unsaid(f"{what} is a tensor of {dims(value.shape)}; a layer takes one number")
        return float(value)


def response_norms(nodes: Sequence[torch.fx.Node]) -> dict[torch.fx.Node, SimpleNamespace | None]:
    """The operators that a program has for a ``LocalResponseNorm``: by the last of them its options, None for the others."""
    groups: dict[str, list[torch.fx.Node]] = {}
    for node in nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).items())
        if node.op == "call_function" and stack and stack[-1][1][1].endswith(".LocalResponseNorm"):
            groups.setdefault(stack[-1][0], []).append(node)
    found: dict[torch.fx.Node, SimpleNamespace | None] = {}
    for group in groups.values():
        by_name = {operator_name(node.target): node for node in group}  # of two products the last, by alpha
        names = ("avg_pool3d.default", "mul.Tensor", "add.Tensor", "pow.Tensor_Scalar", "div.Tensor")
        if any(name not in by_name for name in names):
            continue  # one operator by itself, or something else
        last = by_name["div.Tensor"]
        window, alpha, k, beta, _ = (by_name[name].args[1] for name in names)
        found.update(dict.fromkeys(group, None))
        size = window[0]  # type: ignore[index]
        found[last] = SimpleNamespace(input=last.args[0], size=size, alpha=alpha, beta=beta, k=k)
    return found


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _flat(value)
        else:
            yield value


def _fill(message: Any, values: Mapping[str, Any]) -> None:
    for field, value in values.items():
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            getattr(message, field).extend(value)
        elif isinstance(value, Mapping):
            _fill(getattr(message, field), value)
        elif isinstance(value, str):
            kind = message.DESCRIPTOR.fields_by_name[field].enum_type
            setattr(message, field, value if kind is None else kind.values_by_name[value].number)
        else:
            setattr(message, field, value)
