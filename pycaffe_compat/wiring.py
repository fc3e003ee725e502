"""Which blob goes where: the names, in-place layers, loss weights and gradient needs of a net, before it has any tensors.

The rules are those of Caffe's ``Net::Init``: a blob stands for its newest value, a top named like the bottom at the same index
works in place, what nothing consumes is an output, and a layer needs a backward pass if one of its parameters learns (or a
bottom needs a gradient) and its tops reach a loss.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import NetError, nearest
from .layers.base import Layer, Maker, Shape, Source
from .proto import included, rules_in_words, state_in_words

log = logging.getLogger(__name__)


@dataclass
class Step:
    """One layer of the net in its place: what it reads, writes and hands back.

    ``bottoms`` and ``tops`` are blob names; ``bottom_values`` and ``top_values`` number the values that the names stand for
    at this point (a blob rewritten in place has several). ``muted``: the loss weight counts only in the objective, not in
    gradients.
    """

    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    loss_weights: tuple[float, ...]
    bottom_values: tuple[int, ...]
    top_values: tuple[int, ...]
    propagate_down: tuple[bool, ...] | None
    bottom_needs: list[bool] = field(default_factory=list)
    param_needs: list[bool] = field(default_factory=list)
    needs_backward: bool = False
    muted: bool = False

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.layer.name

    @property
    def is_source(self) -> bool:
        """Whether its tops come from outside the graph: an ``Input`` or a data layer."""
        return isinstance(self.layer, Source)


class Wiring:
    """Connects layers one after another and then knows the inputs, outputs, consumers and gradient needs of the net.

    Args:
        file: the net's file, for messages.
        declared: the ``NetParameter`` with all layers of the file, those of other phases and stages too, for messages.
    """

    def __init__(self, file: str = "", declared: Any = None) -> None:
        self.file = file
        self._declared = declared
        self.steps: list[Step] = []
        self.newest: dict[str, int] = {}
        self.shapes: list[Shape] = []
        self.names: list[str] = []
        self.inputs: list[str] = []
        self.made_by: list[Step] = []  # the step that makes each value
        self._unused: set[str] = set()

    def error(self, param: Any, message: str) -> NetError:
        """Return an error about the layer ``param`` that also names the net's file."""
        where = f"{self.file}: " if self.file else ""
        return NetError(f'{where}layer "{param.name}" ({param.type}): {message}')

    def bottom_shapes(self, param: Any) -> list[Shape]:
        """The shapes of the blobs that the layer ``param`` reads.

        Raises:
            NetError: a bottom that no earlier layer makes, or a wrong number of ``propagate_down``.
        """
        for bottom in param.bottom:
            if bottom not in self.newest:
                raise self.error(param, f'unknown bottom blob "{bottom}": {self._why_unknown(bottom, param)}')
        if param.propagate_down and len(param.propagate_down) != len(param.bottom):
            raise self.error(
                param,
                f"propagate_down is given {len(param.propagate_down)} times for {len(param.bottom)} bottoms; "
                "give it once per bottom or not at all",
            )
        return [self.shapes[self.newest[bottom]] for bottom in param.bottom]

    def _why_unknown(self, blob: str, reader: Any) -> str:
        """Say why no layer before ``reader`` makes a blob: which layer of the file does, and why it does not here."""
        if self._declared is not None:
            state = self._declared.state
            makers = [layer for layer in self._declared.layer if blob in layer.top and layer.name != reader.name]
            for layer in makers:
                if included(layer, state) and blob not in layer.bottom:
                    return f'layer "{layer.name}" ({layer.type}) makes it, but stands after this one'
            for layer in makers:
                return (
                    f'layer "{layer.name}" ({layer.type}) makes it, but the net is built for {state_in_words(state)}, '
                    f"and its rule {rules_in_words(layer, state)} leaves that layer out"
                )
        return f"no earlier layer makes it{nearest(blob, self.newest)}"

    def top_names(self, param: Any, layer: Layer) -> list[str]:
        """The names of the layer's tops; a loss layer without one gets ``(automatic)``.

        Raises:
            NetError: a top that another layer makes already, or fewer than the layer makes.
        """
        tops = list(param.top)
        if layer.loss:
            while len(tops) < layer.tops[0]:
                tops.append(self._automatic_name())
        layer.check_count("top", len(tops), layer.tops)
        for index, top in enumerate(tops):
            in_place = index < len(param.bottom) and param.bottom[index] == top
            if (top in self.newest and not in_place) or top in tops[:index]:
                made_by = next((s.name for s in reversed(self.steps) if top in s.tops), param.name)
                raise self.error(
                    param, f'top blob "{top}" is already made by layer "{made_by}"; give one of them another name'
                )
        return tops

    def _automatic_name(self) -> str:
        name, number = "(automatic)", 1
        while name in self.newest:
            number += 1
            name = f"(automatic {number})"
        return name

    def connect(self, param: Any, layer: Layer, tops: Sequence[str], shapes: Sequence[Shape]) -> Step:
        """Add a layer whose tops have these names and shapes.

        Raises:
            NetError: the layer makes another number of tops, or is given another number of loss weights.
        """
        if param.loss_weight and len(param.loss_weight) != len(tops):
            raise self.error(
                param,
                f"loss_weight is given {len(param.loss_weight)} times for {len(tops)} tops; "
                "give it once per top or not at all",
            )
        if len(tops) != len(shapes):
            raise self.error(param, f"has {len(tops)} top blobs, but makes {len(shapes)}")
        weights = list(param.loss_weight) or [
            layer.default_weight if layer.loss and i == 0 else 0.0 for i in range(len(tops))
        ]
        bottom_values = tuple(self.newest[bottom] for bottom in param.bottom)
        self._unused.difference_update(param.bottom)
        top_values = []
        for top, shape in zip(tops, shapes, strict=True):
            self.newest[top] = len(self.names)
            top_values.append(len(self.names))
            self.names.append(top)
            self.shapes.append(tuple(shape))
            if top in param.top:
                self._unused.add(top)
        if isinstance(layer, Source) and layer.is_input:
            self.inputs.extend(tops)
        step = Step(
            layer=layer,
            bottoms=tuple(param.bottom),
            tops=tuple(tops),
            loss_weights=tuple(float(w) for w in weights),
            bottom_values=bottom_values,
            top_values=tuple(top_values),
            propagate_down=tuple(param.propagate_down) or None,
        )
        self.steps.append(step)
        self.made_by.extend(step for _ in top_values)
        return step

    def makers(self, values: Sequence[int], shapes: Sequence[Shape]) -> list[Maker]:
        """Who made each of ``values``, if all values have these ``shapes``."""
        return [self._maker(value, shapes) for value in values]

    def _maker(self, value: int, shapes: Sequence[Shape]) -> Maker:
        step = self.made_by[value]
        if step.layer.shares_memory and len(step.bottoms) == 1 and shapes[value] == shapes[step.bottom_values[0]]:
            return self._maker(step.bottom_values[0], shapes)
        if step.layer.passes_places:
            same = [v for v in step.bottom_values if shapes[v][2:] == shapes[value][2:]]
            if same:
                return self._maker(same[0], shapes)
        return Maker(step.layer, step.top_values.index(value), [shapes[v] for v in step.bottom_values])

    @property
    def outputs(self) -> list[str]:
        """The named blobs that no layer consumes, in alphabetical order as Caffe lists them."""
        return sorted(self._unused)

    @property
    def blob_names(self) -> list[str]:
        """Every blob once, in the order of creation."""
        return list(dict.fromkeys(self.names))

    @property
    def blob_shapes(self) -> dict[str, Shape]:
        """The shape of each blob's newest value."""
        return {name: self.shapes[self.newest[name]] for name in self.blob_names}

    def finish(self, learns: dict[str, list[bool]], force_backward: bool) -> None:
        """Work out which gradients are needed.

        ``learns`` says for each layer which of its blobs have an ``lr_mult`` other than 0.
        """
        self._declared = None
        uses = Counter(value for step in self.steps for value in step.bottom_values)
        self._mute(uses)
        self._pass_needs_on(learns, uses)
        self._drop_what_no_loss_reaches()
        if force_backward:
            self._need_all()

    def _mute(self, uses: Mapping[int, int]) -> None:
        """Find the losses whose gradient another layer sets."""
        for step in self.steps:
            # what its reader hands back takes the place of a weight that the file does not give: no split adds them up
            step.muted = (
                any(step.loss_weights) and not step.layer.param.loss_weight and any(map(uses.get, step.top_values))
            )
            if step.muted:
                log.warning(
                    '%slayer "%s": another layer reads its top, so its default loss weight of 1 gives no gradient, as in '
                    "Caffe; write loss_weight: 1 if it should",
                    f"{self.file}: " if self.file else "",
                    step.name,
                )

    def _pass_needs_on(self, learns: Mapping[str, list[bool]], uses: Mapping[int, int]) -> None:
        """From layer to layer: a gradient is needed where a blob learns, and behind that."""
        value_needs = [False] * len(self.names)
        for step in self.steps:
            given = [value_needs[v] for v in step.bottom_values]
            step.param_needs = learns[step.name]
            step.needs_backward = any(given) or any(step.param_needs)
            # a gradient asked for where none is needed ends in the blob, or at Caffe's split if others read it too
            step.bottom_needs = [
                asked and (needs or uses[value] == 1)
                for asked, needs, value in zip(step.propagate_down or given, given, step.bottom_values, strict=True)
            ]
            for value in step.top_values:
                value_needs[value] = step.needs_backward

    def _drop_what_no_loss_reaches(self) -> None:
        """From the last layer back: no gradient is needed before what no loss is made of."""
        reaches_loss: set[int] = set()
        asked: set[int] = set()
        consumed: set[int] = set()
        for step in reversed(self.steps):
            weighted = any(step.loss_weights)
            contributes = weighted or any(v in reaches_loss for v in step.top_values)
            skipped = bool(step.tops) and not any(
                (w and not step.muted) or v in asked or v not in consumed for w, v in self._top_items(step)
            )
            if skipped or not contributes:
                step.needs_backward = False
                step.bottom_needs = [False] * len(step.bottoms)
            for value, needs in zip(step.bottom_values, step.bottom_needs, strict=True):
                consumed.add(value)
                if contributes:
                    reaches_loss.add(value)
                if needs:
                    asked.add(value)

    def _need_all(self) -> None:
        """As ``force_backward`` says: of all blobs, and of all bottoms that have a gradient."""
        for step in self.steps:
            step.needs_backward = True
            step.param_needs = [True] * len(step.param_needs)
            allowed = step.layer.differentiable
            step.bottom_needs = [
                needs or allowed[min(i, len(allowed) - 1)] for i, needs in enumerate(step.bottom_needs)
            ]

    @staticmethod
    def _top_items(step: Step) -> list[tuple[float, int]]:
        return list(zip(step.loss_weights, step.top_values, strict=True))
