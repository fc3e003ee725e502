"""Recurrent layers: sequences of T steps and N streams, as Caffe's unrolled nets run them.

``cont`` (T×N) is 0 where a sequence begins and 1 where it goes on: the state from the step before is multiplied by it.
The next forward pass begins with the state after the last step, without gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ..tables import dims
from .base import Layer, Shape, count
from .registry import register
from .slope import WithSlope


class Carrying(Layer):
    """A layer that begins each pass with the state after the last one: ``states`` of (streams, ``size``) each."""

    states: ClassVar[tuple[str, ...]]
    size: int

    def carry(self, streams: int) -> None:
        """Declare the states, for so many streams; :meth:`prepare` makes them."""
        self.per_process = tuple(f"carried_{name}" for name in self.states)
        for name in self.per_process:
            self.register_buffer(name, torch.empty((streams, self.size), device="meta"), persistent=False)

    def streams(self, shape: Shape) -> int:
        """How many streams a first bottom of this shape has."""
        return shape[1]

    @property
    def carried(self) -> list[Tensor]:
        """The state that the next forward pass begins with, (N, D) each: buffers, so that they move and export."""
        return [getattr(self, name) for name in self.per_process]

    @carried.setter
    def carried(self, values: Sequence[Tensor]) -> None:
        for name, value in zip(self.per_process, values, strict=True):
            self.register_buffer(name, value, persistent=False)

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        shape = (self.streams(bottom_shapes[0]), self.size)
        if any(h.is_meta or h.shape != shape for h in self.carried):
            with torch.inference_mode(False):
                self.carried = [torch.zeros(shape, device=device, dtype=h.dtype) for h in self.carried]

    def reset(self) -> None:
        """Forget the state: the next forward pass begins with zeros."""
        for h in self.carried:
            h.zero_()

    def state(self) -> dict[str, Any]:
        """The state carried over, so that training continues within a sequence."""
        return {"carried": [h.tolist() for h in self.carried if not h.is_meta]}

    def seek(self, state: dict[str, Any]) -> None:
        """Take over a state. An empty one, of a net that had not run, is all zeros."""
        if not state["carried"]:
            self.reset()
            return
        self.carried = [self.blob(0).detach().new_tensor(h) for h in state["carried"]]

    def carried_over(self, inputs: Tensor, streams: int) -> list[Tensor]:
        """Copies of the state, which is overwritten before the backward pass; zeros for another number of streams."""
        shape = (streams, self.size)
        if inputs.is_meta:
            return [inputs.new_empty(shape) for _ in self.states]
        carried = self.carried
        if any(h.is_meta or h.shape != shape for h in carried):
            with torch.inference_mode(False):  # the buffers outlive the pass
                self.carried = carried = [inputs.new_zeros(shape) for _ in self.states]
        elif any(h.device != inputs.device or h.dtype != inputs.dtype for h in carried):
            with torch.inference_mode(False):
                self.carried = carried = [h.to(inputs) for h in carried]
        return [h.detach().clone() for h in carried]


class Recurrent(Carrying):
    """What RNN and LSTM share: bottoms and tops, the projections of the input, and the state that is carried over.

    Bottoms: x (T×N×…), cont (T×N), optionally a static input (N×…) that every step sees, and with ``expose_hidden`` the
    state to begin with (1×N×D each). Tops: the outputs (T×N×D), and with ``expose_hidden`` the last state (1×N×D each).
    As in Caffe no gradient flows through an exposed state. ``debug_info`` is accepted.
    Source: Caffe 1.0's ``RecurrentLayer``.
    """

    options = ("recurrent_param",)
    inert_options = frozenset({"debug_info"})
    bottoms = (2, 5)
    tops = (1, 3)
    gates: ClassVar[int]
    input_name: ClassVar[str]

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.recurrent_param
        self.size = options.num_output
        if not self.size:
            raise self.error("recurrent_param { num_output } must be given and positive")
        exposed = len(self.states) if options.expose_hidden else 0
        self.exposed = bool(exposed)
        self.check_count("bottom", len(bottom_shapes), (2 + exposed, 3 + exposed))
        if param.top:
            self.check_count("top", len(param.top), (1 + exposed, 1 + exposed))
        self.static = len(bottom_shapes) == 3 + exposed
        self.differentiable = (True, False) + (True,) * self.static + (False,) * exposed  # type: ignore[misc]
        x = bottom_shapes[0]
        if len(x) < 2:
            raise self.error(f"its first bottom must be T×N×…, at least 2 axes, but has shape {dims(x)}")
        if not exposed:
            self.carry(x[1])
        width = self.gates * self.size
        self.add_blob(f"W_{self.input_name}", (width, count(x, 2)), options.weight_filler)
        self.add_blob(f"b_{self.states[-1]}", (width,), options.bias_filler)
        if self.static:
            self.add_blob(f"W_{self.input_name}_static", (width, count(bottom_shapes[2], 1)), options.weight_filler)

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        return self.multiply_adds(count(bottoms[0], 0, 2))

    def steps(self, inputs: Tensor, keep: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Run all steps.

        Args:
            inputs: what the input adds to the units at each step, (T, N, gates * D).
            keep: cont as (T, N, 1).
            state: one (N, D) tensor for each of ``states``.

        Returns:
            The outputs (T, N, D) and the last state.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, cont: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs (T, N, D), then the last state if it is exposed."""
        self._check_shapes(x, cont, rest)
        steps, streams = x.shape[:2]
        inputs = F.linear(x.reshape(steps, streams, -1), self.blob(0), self.blob(1))
        if self.static:
            inputs = inputs + F.linear(rest[0].reshape(streams, -1), self.blob(2))
        if self.exposed:
            state = [h.detach().squeeze(0) for h in rest[int(self.static) :]]
        else:
            state = self.carried_over(inputs, streams)
        keep = cont.detach().to(inputs.dtype).unsqueeze(-1)
        outputs, state = self.steps(inputs, keep, state)
        if self.exposed:
            return outputs, *(h.detach().unsqueeze(0) for h in state)
        if not x.is_meta:
            for carried, h in zip(self.carried, state, strict=True):
                carried.copy_(h.detach())
        return (outputs,)

    def _check_shapes(self, x: Tensor, cont: Tensor, rest: tuple[Tensor, ...]) -> None:
        if x.dim() < 2 or not x.shape[0]:
            raise self.error(f"its first bottom must be T×N×… with T at least 1, but has shape {dims(x.shape)}")
        if cont.shape != x.shape[:2]:
            raise self.error(f"cont must be T×N, {dims(x.shape[:2])} here, but has shape {dims(cont.shape)}")
        streams = x.shape[1]
        if self.static and (not rest[0].dim() or rest[0].shape[0] != streams):
            raise self.error(f"the static input must be N×…, N being {streams}, but has shape {dims(rest[0].shape)}")
        given = rest[int(self.static) :]
        for name, h in zip(self.states[: len(given)], given, strict=True):  # PyTorch 2.6 compiles only strict ones
            if tuple(h.shape) != (1, streams, self.size):
                raise self.error(f"{name}_0 must have shape {dims((1, streams, self.size))}, but has {dims(h.shape)}")


@register("RNN")
class RNN(Recurrent):
    """``h_t = tanh(W_hh h_{t-1} + W_xh x_t + b_h)``, ``o_t = tanh(W_ho h_t + b_o)``. Source: Caffe 1.0's ``RNNLayer``.

    Blobs: W_xh (D, input), b_h (D), W_xh_static (D, static) if there is a static input, W_hh, W_ho (D, D), b_o (D).
    """

    blobs_declared = ("W_xh", "b_h", "W_xh_static", "W_hh", "W_ho", "b_o")
    blobs_optional = frozenset({"W_xh_static"})
    states = ("h",)
    gates = 1
    input_name = "xh"

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.recurrent_param
        self.add_blob("W_hh", (self.size, self.size), options.weight_filler)
        self.add_blob("W_ho", (self.size, self.size), options.weight_filler)
        self.add_blob("b_o", (self.size,), options.bias_filler)

    def steps(self, inputs: Tensor, keep: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`Recurrent.steps`; the state is h."""
        w_hh, w_ho, b_o = self.blobs[-3:]
        (h,) = state
        hidden = []
        for now, kept in zip(inputs.unbind(), keep.unbind(), strict=True):
            h = torch.tanh(now + F.linear(h * kept, w_hh))
            hidden.append(h)
        return torch.tanh(F.linear(torch.stack(hidden), w_ho, b_o)), [h]


@register("LSTM")
class LSTM(Recurrent):
    """Long short-term memory: a matrix for the input, one for h, and :func:`lstm_unit`. Source: Caffe's ``LSTMLayer``.

    Blobs: W_xc (4D, input), b_c (4D), W_xc_static (4D, static) if there is a static input, W_hc (4D, D); their rows are
    in the order of the gates i, f, o, g.
    """

    blobs_declared = ("W_xc", "b_c", "W_xc_static", "W_hc")
    blobs_optional = frozenset({"W_xc_static"})
    states = ("h", "c")
    gates = 4
    input_name = "xc"

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.add_blob("W_hc", (4 * self.size, self.size), param.recurrent_param.weight_filler)

    def steps(self, inputs: Tensor, keep: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`Recurrent.steps`; the state is h and c."""
        w_hc = self.blobs[-1]
        h, c = state
        outputs = []
        for now, kept in zip(inputs.unbind(), keep.unbind(), strict=True):
            c, h = lstm_unit(c, now + F.linear(h * kept, w_hc), kept)
            outputs.append(h)
        return torch.stack(outputs), [h, c]


def lstm_unit(c: Tensor, gates: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """One step: ``c' = keep * sigmoid(f) * c + sigmoid(i) * tanh(g)``, ``h' = sigmoid(o) * tanh(c')``.

    As in Caffe the derivative of ``s = keep * sigmoid(f)`` by f is ``s * (1 - s)``, also where keep is a fraction.

    Args:
        c: (…, D).
        gates: (…, 4D): i, f, o, g before their nonlinearities.
        keep: (…, 1).

    Returns:
        c' and h', each (…, D).
    """
    size = c.shape[-1]
    i, f, o = torch.sigmoid(gates[..., : 3 * size]).split(size, -1)
    kept = (keep * f).detach()
    forget = WithSlope.apply(gates[..., size : 2 * size], kept, kept * (1 - kept))
    c = forget * c + i * torch.tanh(gates[..., 3 * size :])
    return c, o * torch.tanh(c)


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One step of an LSTM: bottoms c (1×N×D), gates (1×N×4D), cont (1×N); tops the new c and h (1×N×D).

    Source: Caffe 1.0's ``LSTMUnitLayer``.
    """

    bottoms = (3, 3)
    tops = (2, 2)
    differentiable = (True, True, False)

    def forward(self, c: Tensor, gates: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new c and h.

        Raises:
            LayerError: the bottoms have other shapes.
        """
        shapes = tuple(c.shape), tuple(gates.shape), tuple(cont.shape)
        n, d = shapes[0][1:] if c.dim() == 3 else (-1, -1)
        if shapes != ((1, n, d), (1, n, 4 * d), (1, n)):
            raise self.error(f"takes bottoms of shapes 1×N×D, 1×N×4D and 1×N, not {', '.join(map(dims, shapes))}")
        return lstm_unit(c, gates, cont.detach().to(gates.dtype).unsqueeze(-1))
