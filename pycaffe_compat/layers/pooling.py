"""Pooling, and the fork's way back: Pooling, Depooling, SafeInv, SPP.

A net's fused calls use :meth:`Pooling.forward_switch` and :meth:`Depooling.forward_switch`. They pass byte switches,
apply the preceding ReLU and normalise by the unpooling weights; docs/ops.md says when.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..ops import Window
from ..proto import caffe_pb2
from ..tables import dims
from .base import Layer, Maker, Shape
from .registry import register
from .volumes import VolumePooling, volume_pooling

log = logging.getLogger(__name__)
Pair = tuple[int, int]


def _sides(layer: Layer, options: Any, field: str, square: str) -> Pair:
    """Return an option as ``(h, w)``. It is given as ``square``, or as both ``field_h`` and ``field_w``."""
    tall, wide = f"{field}_h", f"{field}_w"
    given = [name for name in (tall, wide) if options.HasField(name)]
    if not given:
        side = getattr(options, square)
        return side, side
    if options.HasField(square) or len(given) == 1:
        missing = f"{given[0]} without {wide if given[0] == tall else tall}" if len(given) == 1 else " and ".join(given)
        also = f" beside {square}" if options.HasField(square) else ""
        raise layer.error(f"pooling_param: {missing}{also}; give {square}, or {tall} and {wide}")
    return getattr(options, tall), getattr(options, wide)


class _Windows(Layer):
    """The options of ``pooling_param`` that Pooling and Depooling share.

    Attributes:
        mode: ``MAX``, ``AVE``, ``STOCHASTIC``, ``FIX``, ``SWITCH`` or ``SUM``.
        window: kernel, stride and pad, or None for ``global_pooling``.
        local: ``mask_index_type: LOCAL``.
        position: ``(h, w)`` of FIX.
    """

    options = ("pooling_param",)
    inert_options = frozenset({"engine"})
    bottoms = (1, 2)
    tops = (1, 2)
    differentiable = (True, False)

    def _read(self, options: Any, bottom_shapes: Sequence[Shape]) -> None:
        methods = caffe_pb2.PoolingParameter
        self.mode = methods.PoolMethod.Name(options.pool)
        if self.mode == "SOFT_SWITCH":
            raise self.error("pooling_param.pool: SOFT_SWITCH never ran in Caffe; use SWITCH")
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom with 4 axes (N, C, H, W), not of shape {dims(bottom_shapes[0])}")
        self.local = options.mask_index_type == methods.LOCAL
        self.window = self._read_window(options)
        self.position = self._read_position(options)
        self.checks_makers = len(bottom_shapes) > 1

    def _read_window(self, options: Any) -> Window | None:
        stride = _sides(self, options, "stride", "stride")
        pad = _sides(self, options, "pad", "pad")
        kernel_fields = [f for f in ("kernel_size", "kernel_h", "kernel_w") if options.HasField(f)]
        if options.global_pooling:
            if kernel_fields:
                raise self.error(
                    f"pooling_param: {kernel_fields[0]} is given with global_pooling, which sets the kernel itself"
                )
            if pad != (0, 0) or stride != (1, 1):
                raise self.error(f"pooling_param: global_pooling needs pad 0 and stride 1, not {pad} and {stride}")
            return None
        if not kernel_fields:
            raise self.error("pooling_param: no kernel_size, nor kernel_h and kernel_w, nor global_pooling")
        window = ops.window(_sides(self, options, "kernel", "kernel_size"), stride, pad)
        problem = window.problem()
        if problem is not None:
            raise self.error(f"pooling_param: {problem}")
        if pad != (0, 0) and self.mode in ("FIX", "STOCHASTIC"):
            raise self.error(f"pooling_param: pad {pad} with pool: {self.mode}; only MAX, AVE, SUM and SWITCH pad")
        return window

    def _read_position(self, options: Any) -> Pair | None:
        given = [name for name in ("fix", "fix_x", "fix_y") if options.HasField(name)]
        if self.mode != "FIX":
            if given:
                raise self.error(f"pooling_param: {given[0]} is for pool: FIX, not {self.mode}")
            return None
        if self.window is None:
            raise self.error("pooling_param: pool: FIX cannot be global")
        h, w = (options.fix_y, options.fix_x) if options.HasField("fix_y") else (options.fix, options.fix)
        kernel = self.window.kernel
        position = (h if h >= 0 else kernel[0] // 2, w if w >= 0 else kernel[1] // 2)
        if position[0] >= kernel[0] or position[1] >= kernel[1]:
            raise self.error(f"pooling_param: the fixed place {position} (h, w) lies outside the kernel {kernel}")
        return position

    def fit(self, shape: Sequence[int]) -> tuple[Window, Pair]:
        """Return the window on a bottom of this shape, and the size that its planes are pooled or unpooled to."""
        raise NotImplementedError

    def mask_plane(self, shape: Shape) -> Pair:
        """The size of the planes that a GLOBAL mask counts in, if the first bottom has this shape."""
        raise NotImplementedError

    def check_makers(self, makers: Sequence[Maker], shapes: Sequence[Shape]) -> None:
        """Refuse the GLOBAL mask of a Pooling whose numbers mean other places here: values would silently move.

        A mask numbers places row by row, GLOBAL in the plane and LOCAL in the window, so both layers must count in rows
        of the same width. A mask that the program makes itself is taken as it is.
        """
        if not isinstance(makers[1].layer, Pooling) or makers[1].top != 1:
            return
        pooling, pooled = makers[1].layer, makers[1].bottom_shapes[0]
        if pooling.volumes is not None:
            raise self.error(f'its mask comes from layer "{pooling.name}", whose windows are dilated or not planes')
        maker = f'layer "{pooling.name}" (Pooling)'
        window, windows = pooling.fit(pooled)
        own_window, own_plane = self.fit(shapes[0])[0], self.mask_plane(shapes[0])
        if self.local or pooling.local:
            self._warn_of_local(maker, pooling.local, window, own_window)
            return
        plane = ops.plane_of(pooled)
        covered = window.covered(plane, windows)
        if not _same_places(plane, own_plane, covered) or covered[0] > own_plane[0] or covered[1] > own_plane[1]:
            same = window == own_window
            ways = ["mask_index_type: LOCAL in both layers"]
            if not same:
                ways[0] = f"both layers the same windows ({_in_words(window)} there, {_in_words(own_window)} here)"
            elif window.pooled(own_plane, pooling.ceil_mode) == windows:
                ways.append(f'layer "{pooling.name}" planes that its windows divide, such as {dims(own_plane)}')
            raise self.error(
                f"its GLOBAL mask numbers the places of planes of {dims(plane)}, the bottom of {maker}, but the planes "
                f"here are {dims(own_plane)}, so values would land in other places: give {', or '.join(ways)}"
            )

    def _warn_of_local(self, maker: str, made_local: bool, window: Window, own: Window) -> None:
        """Warn of a mask that is not LOCAL on both sides, or that counts in windows of another width."""
        if self.local != made_local:
            kinds = ("GLOBAL", "LOCAL")
            problem = f"reads its mask as {kinds[self.local]}, but {maker} makes it {kinds[made_local]}"
        elif not _same_places(window.kernel, own.kernel, window.kernel):
            problem = (
                f"reads the LOCAL mask of windows of {dims(window.kernel)} ({maker}) in windows of {dims(own.kernel)}"
            )
        else:
            return
        log.warning('layer "%s" (%s): %s: values land in other places', self.name, self.type_name, problem)

    def extra_repr(self) -> str:
        """Mode and window, for ``print(net)``."""
        window = "global" if self.window is None else "kernel={}, stride={}, pad={}".format(*self.window)
        return f"{self.mode}, {window}"


def _same_places(made: Pair, read: Pair, used: Pair) -> bool:
    """Whether places numbered row by row in an area of size ``made`` are the same ones in an area of size ``read``.

    Only the numbers of the first ``used[0]`` rows and ``used[1]`` columns occur.
    """
    return made[1] == read[1] or (used[0] == 1 and used[1] <= read[1])


def _in_words(window: Window) -> str:
    return "kernel {}, stride {}, pad {}".format(*map(dims, window))


@register("Pooling")
class Pooling(_Windows):
    """Pools the windows of each plane: ``(N, C, H, W)`` to ``(N, C, PH, PW)``.

    MAX (a second top is the mask of where each maximum was), AVE, STOCHASTIC, and the fork's SUM, FIX (the value at a
    fixed place of the window) and SWITCH (where the mask, a second bottom, points). ``engine`` makes no difference.
    ``ceil_mode: false``, of DenseNet's Caffe, is ``round_mode: FLOOR``.

    MAX, AVE and SUM also pool volumes, ``(N, C, D, H, W)``, and lines, ``(N, C, W)``, as forks do: ``kernel_size``,
    ``stride``, ``pad`` and ``dilation`` once, or once for each axis. ``dilation`` spreads the places of a window, and with
    ``avg_include_pad: false`` averages do not count the padding.
    """

    random = True
    fresh_top = True
    fork_options = frozenset(
        f"pooling_param.{name}"
        for name in (
            "ceil_mode",
            "dilation",
            "avg_include_pad",
            "axis",
            "kernel_size_3d",
            "stride_3d",
            "pad_3d",
            "dilation_3d",
        )
    )

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.pooling_param, bottom_shapes[0]
        self.ceil_mode = self._rounds_up(options)
        self.volumes = self._read_volumes(options, shape)
        if self.volumes is not None:
            self.check_count("bottom", len(bottom_shapes), (1, 1))
            if param.top:
                self.check_count("top", len(param.top), (1, 2) if self.volumes.mode == "MAX" else (1, 1))
            self.volumes.fit(shape, self.error)
            self.mode, self.window = self.volumes.mode, None
            return
        self._read(options, bottom_shapes)
        self.check_count("bottom", len(bottom_shapes), (2, 2) if self.mode == "SWITCH" else (1, 1))
        if param.top:
            self.check_count("top", len(param.top), (1, 2) if self.mode == "MAX" else (1, 1))
        self.fit(bottom_shapes[0])

    def _read_volumes(self, options: Any, shape: Shape) -> VolumePooling | None:
        """What pools this bottom if it is no stack of planes, or the windows are not those of BVLC's Caffe; else None."""
        axis = self.canonical_axis(options.axis, len(shape), "pooling_param.axis") if options.HasField("axis") else 1
        plain = (len(shape), axis, options.dilation, options.avg_include_pad) == (4, 1, 1, True)
        if plain and not any(
            len(getattr(options, f"{name}_3d")) for name in ("kernel_size", "stride", "pad", "dilation")
        ):
            return None
        mode = caffe_pb2.PoolingParameter.PoolMethod.Name(options.pool)
        if options.mask_index_type == caffe_pb2.PoolingParameter.LOCAL:
            raise self.error("pooling_param.mask_index_type: LOCAL is for planes without dilation")
        return volume_pooling(options, mode, shape, axis, self.ceil_mode, self.error)

    def _rounds_up(self, options: Any) -> bool:
        ceil = options.round_mode == caffe_pb2.PoolingParameter.CEIL
        if not options.HasField("ceil_mode"):
            return ceil
        if options.HasField("round_mode") and ceil != options.ceil_mode:
            round_mode = caffe_pb2.PoolingParameter.RoundMode.Name(options.round_mode)
            raise self.error(
                f"pooling_param has ceil_mode: {str(options.ceil_mode).lower()} and round_mode: {round_mode}, which disagree; "
                "give one of them"
            )
        return options.ceil_mode

    def fit(self, shape: Sequence[int]) -> tuple[Window, Pair]:
        """Return the window on a bottom of this shape, and how many windows there are.

        Raises:
            LayerError: a window larger than its input, or one with no input at all.
        """
        plane = ops.plane_of(shape)
        window = self.window or ops.window(plane, 1, 0)
        problem = window.problem(plane)
        if problem is None:
            windows = window.pooled(plane, self.ceil_mode)
            problem = window.problem(plane, windows)
            if problem is not None and self.ceil_mode:
                floor = window.pooled(plane, ceil_mode=False)
                if window.problem(plane, floor) is None:
                    problem += f"; pooling_param {{ round_mode: FLOOR }} leaves it out and makes {dims(floor)} windows"
        if problem is not None:
            raise self.error(problem)
        return window, windows

    def mask_plane(self, shape: Shape) -> Pair:
        return ops.plane_of(shape)

    @property
    def switchable(self) -> bool:
        """Whether :meth:`forward_switch` serves this layer: MAX with windows of at most 255 places."""
        return self.volumes is None and self.mode == "MAX" and self.window is not None and self.window.byte

    def forward_switch(self, x: Tensor, relu: bool = False) -> tuple[Tensor, Tensor]:
        """Return the maxima and their byte switches; ``relu`` pools ``relu(x)`` without storing it."""
        window, size = self.fit(x.shape)
        return ops.max_pool_switch(x, *window, relu=relu, output_size=size)

    def mask(self, switch: Tensor, x_shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the mask blob (the second top) that the switches of a bottom of ``x_shape`` stand for."""
        window, _ = self.fit(x_shape)
        return ops.switch_to_mask(switch, *window, ops.plane_of(x_shape), self.local, dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if self.volumes is not None:
            y, places = self.volumes(x, *self.volumes.fit(x.shape, self.error), self.n_tops == 2)
            return y if places is None else (y, places)
        traced = torch.jit.is_tracing() or ops.functions.is_exporting()
        if traced and self.window is None and self.n_tops == 1 and self.mode in ("MAX", "AVE"):
            return x.amax((2, 3), True) if self.mode == "MAX" else x.mean((2, 3), True)  # of planes of any size
        window, size = self.fit(x.shape)
        if self.mode == "MAX":
            return self._max(x, window, size)
        if self.mode == "AVE":
            return ops.pool_average(x, *window, output_size=size)
        if self.mode == "SUM":
            return ops.pool_sum(x, *window, output_size=size)
        if self.mode == "FIX":
            return ops.pool_fixed(x, *window, position=self.position, output_size=size)
        if mask is not None:
            if not torch.jit.is_tracing() and mask.shape != (*x.shape[:2], *size):
                raise self.error(
                    f"the mask has shape {dims(mask.shape)}, but the top will have {dims((*x.shape[:2], *size))}"
                )
            return ops.pool_index(x, ops.mask_to_index(mask, *window, ops.plane_of(x), self.local))
        return self._stochastic(x, window, size)

    def _max(self, x: Tensor, window: Window, size: Pair) -> Tensor | tuple[Tensor, Tensor]:
        plane = ops.plane_of(x)
        if window.byte:
            y, switch = ops.max_pool_switch(x, *window, output_size=size)
            return y if self.n_tops == 1 else (y, self.mask(switch, x.shape, x.dtype))
        y, index = ops.max_pool_index(x, *window, output_size=size)
        return y if self.n_tops == 1 else (y, ops.index_to_mask(index, *window, plane, self.local, x.dtype))

    def _stochastic(self, x: Tensor, window: Window, size: Pair) -> Tensor:
        """In training draw a place with probability proportional to its value; else return the expected value.

        A window whose sum is not above 0 makes 0.
        """
        if not self.training:
            total = ops.pool_sum(x, *window, output_size=size)
            positive = total > 0
            return torch.where(positive, ops.pool_sum(x * x, *window, output_size=size) / total.where(positive, 1), 0)
        height, width = ops.plane_of(x)
        kernel, stride = window.kernel, window.stride
        after = [(size[a] - 1) * stride[a] + kernel[a] - (height, width)[a] for a in (0, 1)]
        padded = F.pad(x.detach(), (0, max(after[1], 0), 0, max(after[0], 0)))
        places = padded.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])[:, :, : size[0], : size[1]]
        passed = places.flatten(4).cumsum(4)
        threshold = torch.rand(passed.shape[:4], dtype=x.dtype, device=x.device)[..., None] * passed[..., -1:]
        drawn = (passed >= threshold).to(torch.uint8).argmax(4)
        return ops.pool_index(x, ops.mask_to_index(drawn, *window, (height, width), local=True))


class Unpooler(Layer):
    """A layer that puts values back to the places that the mask of a Pooling, its second bottom, names.

    A net may hand it byte switches in place of the mask.
    """

    def takes_switch_of(self, pooling: Pooling, pooled_shape: Sequence[int], shape: Sequence[int]) -> bool:
        """Whether ``pooling``'s byte switches may stand for its mask, with unchanged results.

        Args:
            pooling: the layer whose second top is this layer's second bottom.
            pooled_shape: the shape of its bottom.
            shape: the shape of this layer's first bottom.
        """
        raise NotImplementedError

    def forward_switch(
        self, y: Tensor, switch: Tensor | None = None, relu: bool = False, normalize: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Unpool with byte switches (None in modes without a mask).

        Args:
            relu: unpool ``relu(y)`` without storing it.
            normalize: return only the first top times SafeInv of the second; for layers with two tops.
        """
        raise NotImplementedError


class GivenPlane(Unpooler):
    """An unpooler of one top whose options give the size of the planes, whatever windows its mask is of.

    Where several values have one place, the last of them stands, so that only the switches of windows that do not overlap
    may take the place of a mask.

    Attributes:
        made_by: the windows of the Pooling that made the mask, if those do not overlap and it numbers the places of planes
            as large as this layer's.
    """

    made_by: Window | None = None

    def plane(self, shape: Sequence[int]) -> Pair:
        """The size of the planes that are made of a bottom of this shape."""
        raise NotImplementedError

    def check_makers(self, makers: Sequence[Maker], shapes: Sequence[Shape]) -> None:
        maker = makers[1]
        self.made_by = None
        if isinstance(maker.layer, Pooling) and maker.top == 1 and maker.layer.switchable and not maker.layer.local:
            window = maker.layer.window
            same = ops.plane_of(maker.bottom_shapes[0]) == self.plane(shapes[0])
            self.made_by = window if same and window is not None and not window.overlaps else None

    def takes_switch_of(self, pooling: Pooling, pooled_shape: Sequence[int], shape: Sequence[int]) -> bool:
        return self.made_by is not None and pooling.window == self.made_by

    def forward_switch(
        self, y: Tensor, switch: Tensor | None = None, relu: bool = False, normalize: bool = False
    ) -> Tensor:
        if switch is None:
            result: Tensor = self(F.relu(y) if relu else y)
            return result
        assert self.made_by is not None
        return ops.unpool_switch(y, switch, *self.made_by, self.plane(y.shape), relu)


@register("Depooling")
class Depooling(_Windows, Unpooler):
    """The exact transpose of Pooling (the paper's fork), to planes of ``stride * (size - 1) + kernel - 2 * pad``.

    SWITCH (or MAX) places each value where the mask, a second bottom, points; FIX at a fixed place of its window; SUM
    at every place; AVE there too, divided by the window's size. Where windows overlap, values add up. A second top
    holds the unpooling weights, what ones in the place of the values would give; no gradient flows through it.
    """

    fork = "SWWAE"

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self._read(param.pooling_param, bottom_shapes)
        if self.mode == "MAX":
            self.mode = "SWITCH"
        if self.mode == "STOCHASTIC":
            raise self.error("pooling_param.pool: STOCHASTIC cannot be undone; valid: SWITCH, FIX, AVE, SUM")
        if self.window is None:
            raise self.error("pooling_param: global_pooling: the size of the output plane is unknown; give kernel_size")
        self.check_count("bottom", len(bottom_shapes), (2, 2) if self.mode == "SWITCH" else (1, 1))
        self.fit(bottom_shapes[0])

    def fit(self, shape: Sequence[int]) -> tuple[Window, Pair]:
        """Return the window, and the size of the planes that a bottom of this shape is unpooled to.

        Raises:
            LayerError: planes without places.
        """
        assert self.window is not None
        windows = ops.plane_of(shape)
        plane = self.window.unpooled(windows)
        problem = self.window.problem(plane, windows)
        if problem is not None:
            raise self.error(problem)
        return self.window, plane

    def mask_plane(self, shape: Shape) -> Pair:
        return self.fit(shape)[1]

    def takes_switch_of(self, pooling: Pooling, pooled_shape: Sequence[int], shape: Sequence[int]) -> bool:
        if self.mode != "SWITCH" or not pooling.switchable:
            return False
        same_plane = self.fit(shape)[1] == ops.plane_of(pooled_shape)
        unpadded = self.window is not None and self.window.pad == (0, 0)
        return (
            self.window == pooling.window and self.local == pooling.local and (same_plane or (self.local and unpadded))
        )

    def forward_switch(
        self, y: Tensor, switch: Tensor | None = None, relu: bool = False, normalize: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Unpool with byte switches; ``normalize`` in one pass where the mode is SWITCH."""
        window, plane = self.fit(y.shape)
        if self.mode == "SWITCH":
            assert switch is not None
            if normalize:
                return ops.unpool_switch_normalized(y, switch, *window, plane, relu)
            x = ops.unpool_switch(y, switch, *window, plane, relu)
            return x if self.n_tops == 1 else (x, ops.unpool_weights(switch, *window, plane, y.dtype))
        x = self._unpool(y, plane, relu)
        if self.n_tops == 1:
            return x
        # The weights are the same for every image and channel, so one plane is enough.
        weights = self._unpool(torch.ones((1, 1, *y.shape[2:]), dtype=y.dtype, device=y.device), plane)
        return x * safe_inverse(weights) if normalize else (x, weights.expand_as(x))

    def _unpool(self, y: Tensor, plane: Pair, relu: bool = False) -> Tensor:
        """Unpool without a mask."""
        assert self.window is not None
        if self.mode == "FIX":
            return ops.unpool_fixed(y, *self.window, plane, self.position, relu)
        return (ops.unpool_sum if self.mode == "SUM" else ops.unpool_average)(y, *self.window, plane, relu)

    def forward(self, y: Tensor, mask: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        if mask is None:
            return self.forward_switch(y)
        window, plane = self.fit(y.shape)
        if not torch.jit.is_tracing() and mask.shape != y.shape:
            raise self.error(f"the mask has shape {dims(mask.shape)}, but the values have {dims(y.shape)}")
        index = ops.mask_to_index(mask, *window, plane, self.local)
        x = ops.unpool_index(y, index, plane)
        if self.n_tops == 1:
            return x
        return x, ops.unpool_index(torch.ones_like(y), index, plane)


def safe_inverse(x: Tensor) -> Tensor:
    """``1 / x``, and 0 where ``x`` is 0; its gradient is 0 there too."""
    zero = x == 0
    return torch.where(zero, 0, torch.where(zero, 1, x).reciprocal())


@register("SafeInv")
class SafeInv(Layer):
    """``1 / x``, and 0 where ``x`` is 0 (the paper's fork); the gradient is ``-dy * y * y``."""

    fork = "SWWAE"

    def forward(self, x: Tensor) -> Tensor:
        return safe_inverse(x)


@register("SPP")
class SPP(Layer):
    """Spatial pyramid pooling: poolings of 1x1, 2x2, 4x4, … windows, flattened and concatenated.

    ``(N, C, H, W)`` to ``(N, C * (1 + 4 + …))``; with ``pyramid_height: 1`` the one pooling as it is, ``(N, C, 1, 1)``.
    """

    inert_options = frozenset({"engine"})
    planes_traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.spp_param
        self.height = options.pyramid_height
        self.method = caffe_pb2.SPPParameter.PoolMethod.Name(options.pool)
        if self.height < 1:
            raise self.error(f"spp_param.pyramid_height is {self.height}, but must be at least 1")
        if len(bottom_shapes[0]) != 4:
            raise self.error(f"needs a bottom with 4 axes (N, C, H, W), not of shape {dims(bottom_shapes[0])}")
        for level in range(self.height):
            self._level(level, bottom_shapes[0])

    def _level(self, level: int, shape: Shape) -> Pooling:
        """The pooling with ``2 ** level`` windows along each side, padded by half of what they exceed the plane."""
        bins = 2**level
        pooling = caffe_pb2.LayerParameter(
            name=f"{self.name} level {level}", type="Pooling", top=["level"], phase=self.phase
        )
        options = pooling.pooling_param
        options.pool = caffe_pb2.PoolingParameter.PoolMethod.Value(self.method)
        for axis, letter in enumerate("hw"):
            size = shape[2 + axis]
            kernel = -(-size // bins)
            setattr(options, f"kernel_{letter}", kernel)
            setattr(options, f"stride_{letter}", kernel)
            setattr(options, f"pad_{letter}", (kernel * bins - size + 1) // 2)
        return Pooling(pooling, [shape]).train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self._level(level, tuple(x.shape))(x) for level in range(self.height)]
        return levels[0] if self.height == 1 else torch.cat([y.flatten(1) for y in levels], 1)
