"""Layers as PyTorch expressions and modules, and the registry of what turns a layer into these."""

from __future__ import annotations

import ast
import builtins
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...layers.base import Layer, Shape
from ...wiring import Step
from ..outline import Outline, Value
from ..registry import Registry
from . import helpers
from .forward import marker
from .layout import call, identifier


@dataclass(frozen=True)
class Several:
    """An expression of which several values come: one for each top.

    Attributes:
        expression: a tuple.
        counts: those of them that are int64 and become float32, as the other layers have them.
    """

    expression: str
    counts: tuple[int, ...] = ()


Emission = Callable[..., "str | Several | list[str]"]
EMITTERS: Registry[Emission] = Registry()
writes = EMITTERS.enter  # f(writer, layer, *bottoms) -> what makes the tops, of bottoms as source
_NAMES = {"self", "torch", "nn", "F", "Tensor", "Path", "load", "load_model", "Callable", "_"}


@dataclass
class Member:
    """A statement of ``__init__``.

    Attributes:
        text: the statement.
        layer: the layer that it is for.
        note: a comment.
    """

    text: str
    layer: str
    note: str = ""


@dataclass
class Writer:
    """Collects the members and weights of the module, and the helpers that it needs.

    Attributes:
        found: what is exported.
        same: values that are the same as others.
        constants: values that are members, ``self.NAME``.
        members: in order.
        weights: by the keys of the module's ``state_dict``.
        ties: statements that make layers share a parameter.
        used: functions and classes of :mod:`.helpers`, by name.
        step: the layer at hand.
        tops: its tops.
        targets: the numbers of the values that its expressions make.
        absorbed: layers whose work the layer before them does as well.
        whole: the tops that are int64, not float32.
    """

    found: Outline
    same: dict[int, int] = field(default_factory=dict)
    constants: dict[int, str] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    ties: list[str] = field(default_factory=list)
    used: dict[str, Any] = field(default_factory=dict)
    step: Step | None = None
    tops: Sequence[Value] = ()
    targets: list[int] = field(default_factory=list)
    absorbed: set[str] = field(default_factory=set)
    whole: set[int] = field(default_factory=set)
    _attributes: set[str] = field(default_factory=lambda: {*dir(nn.Module()), *_NAMES})
    _owners: dict[tuple[int, Shape], str] = field(default_factory=dict)

    def begin(self, step: Step) -> None:
        """What is written from now on is for the layer of ``step``."""
        self.step = step
        self.tops = [self.found.values[v] for v in step.top_values]
        self.targets = [self.root(v) for v in step.top_values]

    def root(self, value: int) -> int:
        """The value that a value is the same as."""
        while value in self.same:
            value = self.same[value]
        return value

    def module(self, layer: Layer, kind: str | type, *arguments: Any, note: str = "", **options: Any) -> str:
        """Give the net a module under the layer's name.

        Args:
            layer: whose name it takes.
            kind: as in source, ``"nn.Conv2d"``, or a class of :mod:`.helpers`.
            arguments, options: of its constructor.
            note: a comment on the line.

        Returns:
            How ``forward`` calls it: ``self.NAME``.
        """
        name = self.attribute(layer.name)
        function = kind if isinstance(kind, str) else self.helper(kind)
        self.members.append(Member(f"self.{name} = {call(function, *arguments, **options)}", layer.name, note))
        return f"self.{name}"

    def parameter(self, layer: Layer, value: Tensor, name: str = "", learns: bool = True) -> str:
        """Give the net a parameter, or a buffer that does not learn, under the layer's name or another."""
        name = self.attribute(name or layer.name)
        zeros = call("torch.zeros", *value.shape) if value.dim() else "torch.zeros(())"
        text = f"self.{name} = nn.Parameter({zeros})" if learns else f'self.register_buffer("{name}", {zeros})'
        self.members.append(Member(text, layer.name))
        self.weights[name] = value.detach()
        return f"self.{name}"

    def absorb(self, fits: Callable[[Layer], bool]) -> Layer | None:
        """The next layer, if nothing else reads this one's top and it ``fits``: this layer then does its work too."""
        assert self.step is not None
        readers = self.readers(0)
        if self.is_output(0) or len(readers) != 1 or not fits(readers[0][0].layer):
            return None
        step = readers[0][0]
        self.absorbed.add(step.name)
        self.targets = [self.root(v) for v in step.top_values]
        return step.layer

    def readers(self, top: int) -> list[tuple[Step, int]]:
        """The layers that read a top of the one at hand, and as which bottom."""
        assert self.step is not None
        value = self.step.top_values[top]
        return [(step, place) for step in self.found.steps for place, v in enumerate(step.bottom_values) if v == value]

    def is_output(self, top: int) -> bool:
        """Whether a top of the layer at hand is an output of the net."""
        return any(self.tops[top] is value for value in self.found.outputs.values())

    def is_whole(self, value: Value | None) -> bool:
        """Whether a bottom is int64."""
        return value is not None and any(value.name == marker(v) for v in self.whole)

    def any_input(self) -> str:
        """An input of the net, for its device and dtype."""
        first = next(iter(self.found.inputs.values()))
        return marker(next(v for v, value in self.found.values.items() if value is first))

    def attribute(self, name: str) -> str:
        """An attribute for a layer's name, which nothing else has."""
        found = identifier(name, self._attributes)
        self._attributes.add(found)
        return found

    def weight(self, place: str, value: Tensor) -> None:
        """The module's parameter or buffer ``place`` (``self.conv1.weight``) has this value."""
        self.weights[place.removeprefix("self.")] = value.detach()

    def blob(self, place: str, layer: Layer, index: int) -> None:
        """The module's parameter ``place`` is a blob of ``layer``, as it is; blobs that layers share stay shared."""
        value = layer.blob(index)
        owner = self._owners.setdefault(_key(value), place)
        if owner == place or not value.numel():
            self.weight(place, value)
        else:
            self.ties.append(f"{place} = {owner}")

    def filters(self, place: str, layer: Layer) -> None:
        """The module at ``place`` has the weight and, if there is one, the bias of ``layer``, or what they were folded into."""
        if layer.name in self.found.folded:
            for name, value in zip(("weight", "bias"), self.found.folded[layer.name], strict=True):
                self.weight(f"{place}.{name}", value)
            return
        if (twin := self._twin(place, layer)) is not None:
            self.members[-1].text = f"{place} = {twin}"
            return
        for index, spec in enumerate(layer.blob_specs):
            self.blob(f"{place}.{spec.name}", layer, index)

    def _twin(self, place: str, layer: Layer) -> str | None:
        """A module that is made as the newest one, ``place``, with the very blobs of its ``layer``."""
        wanted = self.members[-1].text.removeprefix(place)
        owners = {
            self._owners.get(_key(layer.blob(i)), "").removesuffix(f".{spec.name}")
            for i, spec in enumerate(layer.blob_specs)
        }
        same = [member.text for member in self.members if member.text.endswith(wanted)]
        twin = owners.pop() if len(owners) == 1 else ""
        return twin if twin and f"{twin}{wanted}" in same else None

    def has_bias(self, layer: Layer) -> bool:
        """Whether filters have a bias, of their own or by folding."""
        return layer.name in self.found.folded or len(layer.blob_specs) > 1

    def helper(self, function: Any) -> str:
        """Its name; the source will contain it."""
        self._use(function)
        return str(function.__name__)

    def _use(self, function: Any) -> None:
        if function.__name__ in self.used:
            return
        for node in ast.walk(ast.parse(inspect.getsource(function))):
            if isinstance(node, ast.Name) and node.id != function.__name__:
                needed = getattr(inspect.getmodule(function), node.id, None)
                if getattr(needed, "__module__", "").startswith(f"{helpers.__name__}."):
                    self._use(needed)
        self.used[function.__name__] = function

    def helper_sources(self) -> list[str]:
        """The helpers that are used, each after those that it uses itself."""
        return [inspect.getsource(function).rstrip() for function in self.used.values()]

    def forbidden(self) -> set[str]:
        """What no variable of ``forward`` may be called."""
        return _NAMES | set(self.used) | set(dir(builtins)) - {"input"}


def _key(value: Tensor) -> tuple[int, Shape]:
    """What tensors have in common that are one. Two layers may give one another shape: for modules these are two."""
    return value.data_ptr(), tuple(value.shape)


def as_float32(value: Tensor) -> Tensor:
    """The values on the host, contiguous; integers as they are."""
    kept = value.detach().cpu()
    return (kept.to(torch.float32) if kept.is_floating_point() else kept).contiguous()
