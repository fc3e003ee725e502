"""Runs a net layer by layer, forward and backward, between the blobs of the pycaffe interface."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import memory
from ..errors import CaffeError
from ..layers import Source
from ..layers.neuron import Overwritten, ReLU
from ..net import CaffeModule
from ..tables import dims
from ..wiring import Step
from .blob import Blob, in_host_memory

Callback = Callable[[int], Any]
Record = tuple[list[Tensor], tuple[Tensor, ...]]  # a layer's bottoms and tops, with the graph between them


class Passes:
    """Forward and backward passes over any range of layers.

    Each layer reads the current values of its bottoms, detached from the layer that made them. So what was written into a
    blob is what the next layer sees, and each layer has a small autograd graph of its own for the backward pass.

    Args:
        module: the net.
        blobs: its blobs by name.
        params: layer name → its parameter blobs.

    Attributes:
        before_forward, after_forward, before_backward, after_backward: functions that are called with the layer's index.
        deconvolves: whether a ReLU passes back what is above 0 of its top's diff, wherever its bottom was (Zeiler & Fergus,
            "Visualizing and Understanding Convolutional Networks", 2014).
    """

    def __init__(self, module: CaffeModule, blobs: Mapping[str, Blob], params: Mapping[str, Sequence[Blob]]) -> None:
        self._module = module
        self._blobs = blobs
        self._params = params
        self._steps: list[Step] = module.steps
        self._records: list[Record | None] = [None] * len(self._steps)
        self.before_forward: list[Callback] = []
        self.after_forward: list[Callback] = []
        self.before_backward: list[Callback] = []
        self.after_backward: list[Callback] = []
        self.deconvolves = False
        self._consumers: dict[int, list[int]] = {}
        newest: dict[str, int] = {}
        for i, step in enumerate(self._steps):
            newest.update(zip(step.tops, step.top_values, strict=True))
            for value in step.bottom_values:
                self._consumers.setdefault(value, []).append(i)
        # a blob rewritten in place loses the value that the graph of an earlier layer still needs
        self._rewritten = [
            tuple(v != newest[n] for n, v in zip(s.bottoms, s.bottom_values, strict=True)) for s in self._steps
        ]
        self._overwrites = [self._may_overwrite(step) for step in self._steps]
        self.forget()

    def _may_overwrite(self, step: Step) -> bool:
        """Whether a layer can write over its bottom, as Caffe's do: no other blob may share the memory."""
        if (
            not isinstance(step.layer, ReLU)
            or step.layer.negative_slope
            or step.needs_backward
            or step.bottoms != step.tops
        ):
            return False
        made_by = next(s.layer for s in self._steps if step.bottom_values[0] in s.top_values)
        return made_by.fresh_top

    def forget(self) -> None:
        """Drop the layers' bottoms and tops of the last pass, after a reshape."""
        self._records = [None] * len(self._steps)
        shapes = self._module.blob_shapes
        self._bytes = [  # that a layer will take for its tops
            0 if overwrites or step.layer.shares_memory else 4 * sum(math.prod(shapes[top]) for top in step.tops)
            for step, overwrites in zip(self._steps, self._overwrites, strict=True)
        ]

    @property
    def has_run(self) -> bool:
        """Whether any layer that has a backward pass has run forward."""
        return any(record is not None for record in self._records)

    # ---- forward

    def forward(self, start: int, end: int) -> float:
        """Run the layers ``start`` to ``end`` (both included); return the sum of their weighted losses."""
        self._check_range(start, end)
        losses: list[Tensor] = []
        self._records[start : end + 1] = [None] * max(end + 1 - start, 0)
        for index in range(start, end + 1):
            for callback in self.before_forward:
                callback(index)
            losses += self._forward_step(index)
            for callback in self.after_forward:
                callback(index)
        return float(torch.stack(losses).sum()) if losses else 0.0

    def _check_range(self, *indices: int) -> None:
        for index in indices if self._steps else ():
            if not 0 <= index < len(self._steps):
                raise CaffeError(f"there is no layer {index}: the net has {len(self._steps)}, numbered from 0")

    def _forward_step(self, index: int) -> list[Tensor]:
        step = self._steps[index]
        layer = step.layer
        if isinstance(layer, Source):
            if not layer.is_input:
                made = layer()
                for top, value in zip(step.tops, made if isinstance(made, tuple) else (made,), strict=True):
                    self._set(top, value.to(self._module.device))
            return []
        bottoms, tops = self._run(index)
        if step.needs_backward:
            self._records[index] = bottoms, tops
        losses = []
        for top, weight, value in zip(step.tops, step.loss_weights, tops, strict=True):
            shares = self._overwrites[index] or layer.shares_memory
            self._set(top, value if shares else _apart(value, bottoms))
            if weight:
                losses.append(value.detach().sum() * weight)
        return losses

    def _set(self, name: str, value: Tensor) -> None:
        blob = self._blobs[name]
        blob.synced_data.set(value)
        if blob.synced_diff.shape != blob.synced_data.shape:
            blob.synced_diff.resize(blob.synced_data.shape)

    def _run(self, index: int) -> Record:
        """Run one layer on the current values of its bottoms; no blob changes."""
        step = self._steps[index]
        layer = step.layer
        self._module.check_step(step, lambda name: self._blobs[name].shape)
        bottoms = [self._blobs[name].synced_data.tensor() for name in step.bottoms]
        lacking = memory.lacking(self._bytes[index]) if in_host_memory(self._module.device) else ""
        if lacking:
            raise layer.error(f"its tops need {lacking}")
        try:
            if step.needs_backward:
                bottoms = [
                    (b.clone() if rewritten and self._blobs[name].synced_data.lent else b)
                    .detach()
                    .requires_grad_(needs)
                    for name, b, needs, rewritten in zip(
                        step.bottoms, bottoms, step.bottom_needs, self._rewritten[index], strict=True
                    )
                ]
                with torch.enable_grad():
                    made = layer(*bottoms)
            else:
                with torch.no_grad():
                    hooked = layer._forward_hooks or layer._forward_pre_hooks
                    in_place = self._overwrites[index] and not hooked
                    made = torch.relu_(bottoms[0]) if in_place else layer(*bottoms)
        except CaffeError:
            raise
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise layer.misfit([b.shape for b in bottoms], error) from error
        return bottoms, made if isinstance(made, tuple) else ((made,) if step.tops else ())

    # ---- backward

    def backward(self, start: int, end: int) -> None:
        """Run the layers ``start`` down to ``end`` backwards, from the ``diff`` of the tops to that of the bottoms.

        A layer that has not run forward is run first, on the current values of its bottoms.
        """
        self._check_range(start, end)
        begun: set[str] = set()
        for index in range(start, end - 1, -1):
            for callback in self.before_backward:
                callback(index)
            if self._steps[index].needs_backward and not isinstance(self._steps[index].layer, Source):
                self._backward_step(index, start, begun)
            for callback in self.after_backward:
                callback(index)

    def _backward_step(self, index: int, start: int, begun: set[str]) -> None:
        step = self._steps[index]
        record = self._records[index]
        if record is None:
            record = self._records[index] = self._run(index)
        bottoms, tops = record
        if isinstance(step.layer, Overwritten) and step.layer.rewritten:
            step.layer.memory.value = self._blobs[step.tops[0]].synced_data.tensor()
        outer = [self._top_diff(step, i, top, start, begun) for i, top in enumerate(tops)]
        begun.difference_update(step.tops)
        params = {  # each once, also where the layer has one blob in two places
            id(blob): (i, blob)
            for i, (blob, needs) in enumerate(zip(step.layer.blobs, step.param_needs, strict=True))
            if needs and blob.requires_grad
        }
        wanted = [b for b in bottoms if b.requires_grad] + [p for _, p in params.values()]
        pairs = [(t, g) for t, g in zip(tops, outer, strict=True) if t.requires_grad]
        grads: tuple[Tensor | None, ...] = (None,) * len(wanted)
        if pairs and wanted and self.deconvolves and isinstance(step.layer, ReLU):
            grads = tuple(g.clamp(min=0) for _, g in pairs)
        elif pairs and wanted:
            try:
                grads = torch.autograd.grad(
                    [t for t, _ in pairs], wanted, [g for _, g in pairs], retain_graph=True, allow_unused=True
                )
            except CaffeError:
                raise
            except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
                raise step.layer.error(f"cannot run backward: {error}") from error
        found = iter(grads)
        taken = list(outer)
        for name, bottom in zip(step.bottoms, bottoms, strict=True):
            if bottom.requires_grad:
                grad = next(found)
                grad = torch.zeros_like(bottom) if grad is None else _apart(grad, taken)
                taken.append(grad)
                diff = self._blobs[name].synced_diff
                diff.set(diff.tensor() + grad if name in begun else grad)
                begun.add(name)
        for i, _ in params.values():
            grad = next(found)
            if grad is not None:
                self._params[step.name][i].synced_diff.tensor().add_(grad)

    def _top_diff(self, step: Step, i: int, top: Tensor, start: int, begun: set[str]) -> Tensor:
        """The gradient of a top: what its consumers in this pass found, or what is in the blob's ``diff``."""
        name, weight = step.tops[i], 0.0 if step.muted else step.loss_weights[i]
        diff = self._blobs[name].synced_diff
        if name in begun:
            total = diff.tensor()
        elif any(c <= start for c in self._consumers.get(step.top_values[i], [])):
            total = torch.zeros_like(top)
        else:
            given = diff.tensor()
            if given.numel() != top.numel():
                raise step.layer.error(
                    f'the diff of "{name}" has shape {dims(given.shape)}, but the last forward pass made '
                    f"{dims(top.shape)}; run forward again after a reshape"
                )
            return given.reshape(top.shape)
        total = total + weight if weight else total
        diff.set(total)
        return total


def _apart(value: Tensor, others: Sequence[Tensor]) -> Tensor:
    """``value``, in memory of its own if it lies in that of one of ``others``."""
    place = value.untyped_storage().data_ptr()
    if any(other.untyped_storage().data_ptr() == place for other in others):
        return value.detach().clone(memory_format=torch.contiguous_format)
    return value
