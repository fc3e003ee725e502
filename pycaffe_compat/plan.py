"""The calls that run a net: its layers in order, some of them fused, and when each value can be freed.

Fusions change no result. They apply where nothing else reads the blob in between:

- ReLU → MAX Pooling, and ReLU → Depooling, or Unpooling and Upsample of forks: the ReLU happens inside the operator, so its
  result is never stored;
- a Pooling mask that only such layers with the same windows read: the one-byte switch is handed over instead;
- Depooling → SafeInv → Eltwise PROD: one pass that normalises the unpooling by its weights (the AlexNet decoder);
- a layer with a fresh top (Convolution, InnerProduct, …) → ReLU: the ReLU overwrites its input, which nothing reads again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .layers.base import Layer
from .layers.common import Eltwise
from .layers.neuron import Overwritten, ReLU
from .layers.pooling import Depooling, Pooling, SafeInv, Unpooler
from .wiring import Step, Wiring


@dataclass(frozen=True)
class Call:
    """One call: ``run`` takes the values numbered ``reads`` and makes those numbered ``writes``.

    Attributes:
        detach: which reads pass no gradient on (``propagate_down: false``).
        muted: the loss weights count in the objective, without gradients.
        frees: the values that nothing reads after this call.
        covers: layers that the call replaces, so that their hooks would not run.
    """

    run: Callable[..., Any]
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    loss_weights: tuple[float, ...]
    detach: tuple[bool, ...] | None
    muted: bool = False
    frees: tuple[int, ...] = ()
    covers: tuple[Layer, ...] = ()


def plan(wiring: Wiring, *, fuse: bool, propagate_all: bool) -> list[Call]:
    """Return the calls of a net whose inputs and data are given.

    Args:
        wiring: the connected net.
        fuse: use the fused forms; the values in between are not made then.
        propagate_all: ``force_backward``: no ``propagate_down`` cuts a gradient.
    """
    fusions = _Fusions(wiring) if fuse else None
    calls = []
    for step in wiring.steps:
        if step.is_source:
            continue
        plain = Call(step.layer, step.bottom_values, step.top_values, step.loss_weights, _detach(step), step.muted)
        call = fusions.call(step, plain) if fusions else plain
        if call is not None:
            calls.append(replace(call, detach=None) if propagate_all else call)
    keep = {wiring.newest[name] for name in wiring.outputs}
    last: dict[int, int] = {}
    for i, call in enumerate(calls):
        last.update(dict.fromkeys((*call.reads, *call.writes), i))
    for i, call in enumerate(calls):
        seen = dict.fromkeys((*call.reads, *call.writes))
        calls[i] = replace(call, frees=tuple(v for v in seen if last[v] == i and v not in keep))
    return calls


def _detach(step: Step) -> tuple[bool, ...] | None:
    return tuple(not p for p in step.propagate_down) if step.propagate_down else None


class _Fusions:
    """The fusions of a net, found once."""

    def __init__(self, wiring: Wiring) -> None:
        self._shapes = wiring.shapes
        self._outputs = {wiring.newest[name] for name in wiring.outputs}
        self._late = {  # values from which an earlier layer in the same memory takes its derivative
            wiring.newest[s.tops[0]] for s in wiring.steps if isinstance(s.layer, Overwritten) and s.layer.rewritten
        }
        self._maker = wiring.made_by
        self._readers: dict[int, list[Step]] = {}
        for step in wiring.steps:
            for value in step.bottom_values:
                self._readers.setdefault(value, []).append(step)
        self._relus = {s.top_values[0]: s.bottom_values[0] for s in wiring.steps if self._relu_goes_inside(s)}
        self._switches = {s.top_values[1] for s in wiring.steps if self._mask_stays_inside(s)}
        self._normalized: dict[int, Step] = {}  # value that an Eltwise makes -> the Depooling that makes it instead
        self._inside = {id(self._maker[value]) for value in self._relus}
        for step in wiring.steps:
            self._find_normalized(step)

    def call(self, step: Step, plain: Call) -> Call | None:
        """Return the call that replaces ``plain``, or None for a layer that another call includes."""
        if id(step) in self._inside:
            return None
        if isinstance(step.layer, Pooling):
            return self._pool(step, plain)
        if isinstance(step.layer, Unpooler):
            return self._unpool(step, plain, normalize=False)
        if isinstance(step.layer, Eltwise) and step.top_values[0] in self._normalized:
            return self._unpool(self._normalized[step.top_values[0]], plain, normalize=True)
        if self._may_overwrite(step):
            return replace(plain, run=torch.relu_, covers=(step.layer,))
        return plain

    def _may_overwrite(self, step: Step) -> bool:
        """Whether a ReLU may work in place: its bottom is fresh memory, and nothing else reads it."""
        if not isinstance(step.layer, ReLU) or step.layer.negative_slope or step.layer.rewritten or step.propagate_down:
            return False
        fresh = self._maker[step.bottom_values[0]].layer.fresh_top
        return fresh and self._only_reader(step.bottom_values[0]) is step

    def _pool(self, step: Step, plain: Call) -> Call:
        source = self._relus.get(step.bottom_values[0])
        hands_switch = len(step.tops) == 2 and step.top_values[1] in self._switches
        if source is None and not hands_switch:
            return plain
        run = FusedPooling(step.layer, source is not None, len(step.tops), hands_switch)  # type: ignore[arg-type]
        reads = (step.bottom_values[0] if source is None else source,)
        return replace(plain, run=run, reads=reads, covers=(step.layer, *self._relu_layer(step)))

    def _unpool(self, step: Step, plain: Call, normalize: bool) -> Call:
        value, *mask = step.bottom_values
        source = self._relus.get(value)
        takes_switch = bool(mask) and mask[0] in self._switches
        if source is None and not takes_switch and not normalize:
            return plain
        run = FusedUnpooling(step.layer, source is not None, normalize)  # type: ignore[arg-type]
        covers: tuple[Layer, ...] = (step.layer, *self._relu_layer(step))
        if normalize:
            covers += tuple(self._readers[v][0].layer for v in step.top_values)
        reads = (value if source is None else source, *mask)
        return replace(plain, run=run, reads=reads, detach=_detach(step), covers=covers)

    def _relu_layer(self, step: Step) -> tuple[Layer, ...]:
        value = step.bottom_values[0]
        return (self._maker[value].layer,) if value in self._relus else ()

    def _only_reader(self, value: int) -> Step | None:
        """The only reader of a value that is no output and has no loss weight; None if there are others."""
        readers = self._readers.get(value, [])
        step = self._maker[value]
        weight = step.loss_weights[step.top_values.index(value)]
        return readers[0] if len(readers) == 1 and value not in self._outputs and not weight else None

    def _relu_goes_inside(self, step: Step) -> bool:
        if not isinstance(step.layer, ReLU) or step.layer.negative_slope or step.propagate_down:
            return False
        if step.top_values[0] in self._late:
            return False
        reader = self._only_reader(step.top_values[0])
        if reader is None or reader.bottom_values[0] != step.top_values[0]:
            return False
        if isinstance(reader.layer, Pooling):
            return reader.layer.switchable and not reader.propagate_down
        if not isinstance(reader.layer, Unpooler) or (reader.propagate_down and not reader.propagate_down[0]):
            return False
        return len(reader.bottoms) == 1 or self._mask_stays_inside(self._maker[reader.bottom_values[1]])

    def _mask_stays_inside(self, step: Step) -> bool:
        layer = step.layer
        if not isinstance(layer, Pooling) or len(step.tops) != 2 or not layer.switchable or step.loss_weights[1]:
            return False
        mask, bottom = step.top_values[1], self._shapes[step.bottom_values[0]]
        readers = self._readers.get(mask, [])
        return bool(readers) and all(
            isinstance(r.layer, Unpooler)
            and r.bottom_values[1] == mask
            and r.layer.takes_switch_of(layer, bottom, self._shapes[r.bottom_values[0]])
            for r in readers
        )

    def _find_normalized(self, step: Step) -> None:
        layer = step.layer
        if not isinstance(layer, Eltwise) or layer.operation != "PROD" or len(step.bottoms) != 2 or step.propagate_down:
            return
        for value, inverse in (step.bottom_values, step.bottom_values[::-1]):
            unpool, safe_inv = self._maker[value], self._maker[inverse]
            if (
                isinstance(unpool.layer, Depooling)
                and isinstance(safe_inv.layer, SafeInv)
                and len(unpool.tops) == 2
                and unpool.top_values == (value, safe_inv.bottom_values[0])
                and all(
                    self._only_reader(v) is s
                    for v, s in ((value, step), (inverse, step), (unpool.top_values[1], safe_inv))
                )
                and (len(unpool.bottoms) == 1 or unpool.bottom_values[1] in self._switches)
            ):
                self._normalized[step.top_values[0]] = unpool
                self._inside.update((id(unpool), id(safe_inv)))
                return


@dataclass(frozen=True)
class FusedPooling:
    """A Pooling that applies the ReLU before it (``relu``), or hands over byte switches in place of its mask.

    A class and not a closure, so that a net can be pickled.
    """

    layer: Pooling
    relu: bool
    tops: int
    hands_switch: bool

    def __call__(self, x: Tensor) -> Any:
        y, switch = self.layer.forward_switch(x, self.relu)
        if self.tops == 1:
            return y
        return y, switch if self.hands_switch else self.layer.mask(switch, x.shape, x.dtype)


@dataclass(frozen=True)
class FusedUnpooling:
    """An unpooler that takes byte switches, applies the ReLU before it, or is normalised by its own weights."""

    layer: Unpooler
    relu: bool
    normalize: bool

    def __call__(self, y: Tensor, switch: Tensor | None = None) -> Any:
        return self.layer.forward_switch(y, switch, self.relu, self.normalize)
