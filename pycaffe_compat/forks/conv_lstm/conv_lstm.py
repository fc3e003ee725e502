"""ConvLSTM (agethen/ConvLSTM-for-Caffe, conv_lstm_layer.cpp and conv_lstm_unit_layer.cpp; Shi et al., 2015)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, count
from ...layers.recurrent import Carrying, lstm_unit
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims

EXPOSED = re.compile(r"([ch])_t=([0-9]+)")
UNREAD = ("pad_h", "pad_w", "kernel_h", "kernel_w", "stride_h", "stride_w")  # which the fork does not pass on


class Window:
    """The sizes of a convolution of ``lstm_conv_param``.

    Raises:
        LayerError: an option that cannot be.
    """

    def __init__(self, layer: ConvLSTM, options: Any) -> None:
        for name in UNREAD:
            if options.HasField(name):
                raise layer.error(f"lstm_conv_param.{name} does nothing in the fork; give kernel_size, pad and stride")
        self.options, self.group = options, options.group
        self.kernel = self._pair(layer, "kernel_size", None)
        self.pad = self._pair(layer, "pad", 0)
        self.stride = self._pair(layer, "stride", 1)
        self.dilation = self._pair(layer, "dilation", 1)
        if min(*self.kernel, *self.stride, *self.dilation, self.group) < 1:
            raise layer.error("lstm_conv_param: kernel_size, stride, dilation and group must be at least 1")

    def _pair(self, layer: ConvLSTM, name: str, otherwise: int | None) -> tuple[int, int]:
        values = list(getattr(self.options, name))
        if not values and otherwise is not None:
            values = [otherwise]
        if len(values) not in (1, 2):
            raise layer.error(f"lstm_conv_param.{name} has {len(values)} values; expected 1 or 2")
        return values[0], values[-1]

    def keeps(self, plane: Sequence[int]) -> bool:
        """Whether its top is as large as a bottom of this size."""
        return all(
            (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 == side
            for side, kernel, pad, stride, dilation in zip(
                plane, self.kernel, self.pad, self.stride, self.dilation, strict=True
            )
        )

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.pad, self.dilation, self.group)


@register("ConvLSTM", fork="conv_lstm")
class ConvLSTM(Carrying):
    """An LSTM over maps (T, N, C, H, W), whose products are convolutions, with weights by which gates see the cell.

    The gates i, f and o before step t also have ``w * c`` of step t - 1, whatever ``cont`` is; ``disable_hadamard`` leaves that
    out, ``ignore_x`` the convolution of the input, which then only says how many steps and streams there are. One
    ``lstm_conv_param`` is for input and ``h``, or one of ``type: "input"`` and one of ``"hidden"`` for each. With
    ``expose_hidden`` the first ``h`` and ``c`` are bottoms and the last ones tops, (1, N, C, H, W), both with gradients.
    ``lstm_debug_param.expose`` makes tops of those of single steps, ``"c_t=2"``. Four of the blobs, of one number, do nothing.
    """

    options = ("lstm_conv_param", "lstm_debug_param", "recurrent_param")
    inert_options = frozenset({"debug_info", "engine", "force_nd_im2col", "axis"})
    bottoms = (2, 5)
    tops = (1, None)
    states = ("h", "c")
    blobs_declared = (
        *("W_xc", "W_xc_static", "forward_c_0", "forward_h_0", "W_hc", "b_c", "w_ci", "w_cf", "w_co"),
        *("forward_h_T", "forward_c_T"),
    )
    blobs_optional = frozenset({"W_xc", "W_xc_static", "w_ci", "w_cf", "w_co"})
    W_xc: Tensor
    W_xc_static: Tensor
    W_hc: Tensor
    b_c: Tensor
    w_ci: Tensor
    w_cf: Tensor
    w_co: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        debug, given = param.lstm_debug_param, list(param.lstm_conv_param)
        if not 1 <= len(given) <= 2:
            raise self.error(f"has {len(given)} lstm_conv_param; it takes 1, or one for the input and one for h")
        x = bottom_shapes[0]
        if len(x) != 5:
            raise self.error(f"its first bottom must be T×N×C×H×W, but has shape {dims(x)}")
        self.exposed = 2 if param.recurrent_param.expose_hidden else 0
        self.check_count("bottom", len(bottom_shapes), (2 + self.exposed, 3 + self.exposed))
        self.static = len(bottom_shapes) == 3 + self.exposed
        self.differentiable = (True, False, True)  # type: ignore[misc]
        self.ignores = debug.ignore_x
        if self.ignores and self.static:
            raise self.error("lstm_debug_param.ignore_x: true goes without a static input")
        wanted = 1 + len(debug.expose) + self.exposed
        if param.top:
            self.check_count("top", len(param.top), (wanted, wanted))
        self.n_tops = wanted
        self.steps_shown = [self._shown(name, x[0]) for name in debug.expose]
        self.of_input, self.of_hidden = (self._window(given, other) for other in ("hidden", "input"))
        self.channels = given[0].num_output
        if self.channels < 1 or any(each.num_output != self.channels for each in given):
            raise self.error("lstm_conv_param.num_output must be at least 1, and the same in both")
        if any(not each.bias_term for each in given):
            raise self.error("lstm_conv_param.bias_term: false is not possible in the fork: leave it out")
        self.plane = x[3:]
        self.size = self.channels * count(self.plane)
        for window in (self.of_hidden, *([] if self.ignores else [self.of_input])):
            if not window.keeps(self.plane):
                raise self.error(
                    f"lstm_conv_param must keep the size {dims(self.plane)} of its bottom: pad by half of kernel_size - 1 (times "
                    "dilation), with stride 1"
                )
        if not self.exposed:
            self.carry(x[1])
        self._declare(x, bottom_shapes, debug)

    def _shown(self, name: str, steps: int) -> tuple[str, int]:
        found = EXPOSED.fullmatch(name)
        if found is None or int(found[2]) > steps:
            raise self.error(
                f'lstm_debug_param.expose: "{name}" is not shown here; "h_t=1" to "c_t={steps}" are states after a step'
            )
        return found[1], int(found[2])

    def _window(self, given: Sequence[Any], other: str) -> Window:
        chosen = given[0]
        if chosen.type == other:
            if len(given) < 2:
                raise self.error(f'has one lstm_conv_param of type: "{other}"; it takes another one, or type: "all"')
            chosen = given[1]
        return Window(self, chosen)

    def _declare(self, x: Shape, bottom_shapes: Sequence[Shape], debug: Any) -> None:
        width, places = 4 * self.channels, self.of_input
        one = caffe_pb2.FillerParameter(type="constant", value=1)

        def weight(name: str, window: Window, channels: int) -> None:
            if channels % window.group or width % window.group:
                raise self.error(
                    f"lstm_conv_param.group: {window.group} must divide {channels} channels and 4 * num_output: {width}"
                )
            self.add_blob(name, (width, channels // window.group, *window.kernel), window.options.weight_filler)

        if not self.ignores:
            weight("W_xc", places, x[2])
        if self.static:
            if len(bottom_shapes[2]) != 5:
                raise self.error(f"the static input must be 1×N×C×H×W, but has shape {dims(bottom_shapes[2])}")
            weight("W_xc_static", places, bottom_shapes[2][2])
        for name in ("forward_c_0", "forward_h_0"):
            self.add_blob(name, (1,))
        weight("W_hc", self.of_hidden, self.channels)
        self.add_blob("b_c", (width,), self.of_hidden.options.bias_filler)
        self.sees_cell = not debug.disable_hadamard
        if self.sees_cell:
            axis, axes = debug.axis_hadamard, debug.num_axes_hadamard
            cell = (1, x[1], self.channels, *self.plane)
            if axis + axes > len(cell):
                raise self.error(
                    f"lstm_debug_param.axis_hadamard: {axis} and num_axes_hadamard: {axes} reach beyond the 5 axes of a cell"
                )
            for name in ("w_ci", "w_cf", "w_co"):
                self.add_blob(name, cell[axis : axis + axes], one)
            self.after = len(cell) - axis - axes  # axes behind those of the weights
        for name in ("forward_h_T", "forward_c_T"):
            self.add_blob(name, (1,))

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
        weights = sum(count(spec.shape) for spec in self.blob_specs if len(spec.shape) == 4)
        return 2 * count(bottoms[0], 0, 2) * count(self.plane) * weights

    def forward(self, x: Tensor, cont: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """Return h of all steps (T, N, C', H, W), the states that are shown, and the last h and c if they are exposed."""
        steps, streams = x.shape[:2]
        cell = (1, streams, self.channels, *x.shape[3:])
        if cont.shape != x.shape[:2]:
            raise self.error(f"cont must be T×N, {dims(x.shape[:2])} here, but has shape {dims(cont.shape)}")
        if self.exposed:
            for name, state in zip("hc", rest[int(self.static) :], strict=True):
                if tuple(state.shape) != cell:
                    raise self.error(f"{name}_0 must have shape {dims(cell)}, but has {dims(state.shape)}")
            h, c = rest[int(self.static) :]
        else:
            h, c = (each.view(cell) for each in self.carried_over(x, streams))
        given: list[Tensor] = []  # what each step adds to the gates, (T, …) or (1, …)
        if not self.ignores:
            given.append(self.of_input(x.flatten(0, 1), self.W_xc).unflatten(0, (steps, streams)))
        if self.static:
            given.append(self.of_input(rest[0].flatten(0, 1), self.W_xc_static)[None])
        gates = sum(given[1:], given[0]) if given else None
        keep = cont.detach().to(x.dtype)
        outputs, shown = [], {("h", 0): h, ("c", 0): c}
        for step in range(steps):
            now = self.of_hidden((h * keep[step].view(1, -1, 1, 1, 1))[0], self.W_hc, self.b_c)[None]
            if gates is not None:
                now = now + gates[step : step + 1]
            if self.sees_cell:
                now = now + self._of_cell(c)
            c, h = (
                each.view(cell)
                for each in lstm_unit(c.reshape(streams, -1), now.reshape(streams, -1), keep[step].unsqueeze(-1))
            )
            outputs.append(h)
            shown["h", step + 1], shown["c", step + 1] = h, c
        if not self.exposed and not x.is_meta:
            for carried, state in zip(self.carried, (h, c), strict=True):
                carried.copy_(state.detach().reshape(streams, -1))
        tops = (torch.cat(outputs), *(shown[each] for each in self.steps_shown))
        return (*tops, h, c) if self.exposed else tops

    def _of_cell(self, c: Tensor) -> Tensor:
        """What the gates i, f and o see of the cell; g sees nothing."""
        ones = (1,) * self.after
        seen = [c * weight.view(*weight.shape, *ones) for weight in (self.w_ci, self.w_cf, self.w_co)]
        return torch.cat([*seen, torch.zeros_like(c)], 2)
