"""Convolutions, poolings and their transposes."""

from __future__ import annotations

from typing import Any

from ...forks.c3d.volumes import Convolution3D, Deconvolution3D, Pooling3D
from ...forks.deeplab_v1.padding import Padding
from ...forks.happynear.local import Local
from ...forks.intel.fused import FusedConvolution
from ...forks.shufflenet.depthwise import ConvolutionDepthwise, DepthwiseConvolution
from ...forks.synopsys.padding import LOWEST, PaddedConvolution, PaddedPooling
from ...forks.video_caffe.volumes import NdConvolution, NdPooling
from ...layers.base import Layer
from ...layers.convolution import Convolution, Deconvolution, Filters, Im2col
from ...layers.pooling import SPP, Depooling, Pooling, SafeInv
from ...layers.volumes import VolumePooling
from ...ops.windows import Window
from ..outline import Value
from ..registry import static, unsaid
from .helpers import windows as helpers
from .layout import call, square, unless
from .neurons import rectified
from .resizing import MaskedUpsample, Unpooling
from .writer import Several, Writer, writes


@writes(Convolution, Deconvolution, ConvolutionDepthwise, DepthwiseConvolution, NdConvolution, PaddedConvolution)
def filters(w: Writer, layer: Filters, *bottoms: Value) -> list[str]:
    if isinstance(layer, DepthwiseConvolution) and layer.spare:
        raise unsaid(layer, "it has weights that are not used: its group is not the number of channels")
    if not 1 <= layer.spatial <= 3:
        raise unsaid(layer, f"it has {layer.spatial} spatial axes; PyTorch's convolutions have 1 to 3")
    kind = "nn.Conv" if isinstance(layer, Convolution) else "nn.ConvTranspose"
    module = w.module(
        layer,
        f"{kind}{layer.spatial}d",
        layer.channels,
        layer.outputs,
        square(layer.kernel),
        stride=unless(1, square(layer.stride)),
        padding=unless(0, square(layer.pad)),
        dilation=unless(1, square(layer.dilation)),
        groups=unless(1, layer.groups),
        bias=unless(True, w.has_bias(layer)),
    )
    w.filters(module, layer)
    if isinstance(layer, PaddedConvolution):
        if layer.padding is None or layer.padding.same:
            static(layer, bottoms[0], 2, 3)
        added = layer.added(bottoms[0].shape[2:])
        return [f"{module}({f'F.pad({x}, {added})' if any(added) else x})" for x in bottoms]
    if layer.axis == 1:
        return [f"{module}({x})" for x in bottoms]
    tops = []
    for x in bottoms:  # the axes before the channels become one
        if layer.axis == 0:
            tops.append(f"{module}({x}[None])[0]")
            continue
        lead = tuple(-1 if a == 0 else n for a, n in enumerate(x.shape[: layer.axis]))
        tops.append(f"{module}({x}.flatten(0, {layer.axis - 1})).unflatten(0, {lead})")
    return tops


@writes(PaddedPooling)
def padded_pooling(w: Writer, layer: PaddedPooling, x: Value) -> str:
    static(layer, x, 2, 3)
    plane = x.shape[2:]
    kernel, _, (height, width) = layer.windows(plane)
    room = layer.room(plane)
    left, right, top, bottom = room
    padded_plane = (plane[0] + top + bottom, plane[1] + left + right)
    made = tuple((n - k) // s + 1 for n, k, s in zip(padded_plane, kernel, layer.stride, strict=True))
    cut = "" if made == (height, width) else f"[:, :, :{height}, :{width}]"
    if layer.mode == "MAX":
        lowest = str(LOWEST).replace("e+", "e")  # as ruff writes it
        padded = f"F.pad({x}, {room}, value={lowest})" if any(room) else str(x)
        return f"F.max_pool2d({padded}, {kernel}, {layer.stride}){cut}"
    areas = w.parameter(layer, layer.areas(plane).float(), name=f"{layer.name}_areas", learns=False)
    padded = f"F.pad({x}, {room})" if any(room) else str(x)
    sums = f"F.avg_pool2d({padded}, {kernel}, {layer.stride}, divisor_override=1)"
    return f"{sums}{cut} / {areas}"


@writes(FusedConvolution)
def fused_convolution(w: Writer, layer: FusedConvolution, *bottoms: Value) -> list[str]:
    tops = filters(w, layer, *(bottoms[:1] if layer.adds else bottoms))
    if layer.adds:
        tops = [f"{tops[0]} + {bottoms[1]}"]
    return [rectified(layer, top) for top in tops]


@writes(Convolution3D, Deconvolution3D)
def video_filters(w: Writer, layer: Convolution3D | Deconvolution3D, x: Value) -> str:
    module = w.module(
        layer,
        "nn.Conv3d" if isinstance(layer, Convolution3D) else "nn.ConvTranspose3d",
        x.shape[1],
        w.tops[0].shape[1],
        square(layer.kernel),
        stride=unless(1, square(layer.stride)),
        padding=unless(0, square(layer.pad)),
        bias=unless(True, layer.bias is not None),
    )
    w.blob(f"{module}.weight", layer, 0)
    if layer.bias is not None:
        w.weight(f"{module}.bias", layer.bias.flatten())
    return f"{module}({x})"


@writes(Pooling3D)
def video_pooling(w: Writer, layer: Pooling3D, x: Value) -> str | Several:
    return _volumes(w, layer, layer.pooling, x)


@writes(Padding)
def padding(w: Writer, layer: Padding, x: Value) -> str:
    return f"F.pad({x}, {(layer.begin, layer.end) * 2})"


@writes(Im2col)
def im2col(w: Writer, layer: Im2col, x: Value) -> str:
    if layer.axis != 1 or layer.spatial != 2:
        raise unsaid(layer, "only windows of planes are supported")
    return call(w.helper(helpers.im2col), x, layer.kernel, layer.stride, layer.pad, layer.dilation)


@writes(Local)
def local(w: Writer, layer: Local, x: Value) -> str:
    static(layer, x, 1, 2, 3)
    weight = w.parameter(layer, layer.weight[:, 0], name=f"{layer.name}_weight")
    bias = w.parameter(layer, layer.blob(1)[0], name=f"{layer.name}_bias") if len(layer.blob_specs) > 1 else None
    sides = (layer.kernel, layer.stride, layer.pad)
    return call(w.helper(helpers.convolve_by_place), x, weight, bias or "None", *sides, tuple(layer.places))


def _padded_most(window: Window) -> bool:
    """Whether PyTorch's own pooling allows the padding."""
    return all(2 * p <= k for p, k in zip(window.pad, window.kernel, strict=True))


def _options(window: Window, ceil_mode: bool) -> dict[str, Any]:
    """What PyTorch's pooling modules are given besides the kernel and stride."""
    strides = any(s > 1 for s in window.stride)
    return {"padding": unless(0, square(window.pad)), "ceil_mode": unless(False, ceil_mode and strides)}


def _sides(window: Window) -> list[Any]:
    """Kernel and stride, the stride only where it is not the kernel."""
    kernel, stride = square(window.kernel), square(window.stride)
    return [kernel] if kernel == stride else [kernel, stride]


def _whole(w: Writer) -> bool:
    """Whether only layers that take whole numbers read the mask of a pooling, its second top."""
    takers = (Depooling, MaskedUpsample, Unpooling, Pooling)
    return not w.is_output(1) and all(isinstance(step.layer, takers) and place == 1 for step, place in w.readers(1))


@writes(Pooling, NdPooling)
def pooling(w: Writer, layer: Pooling, x: Value, mask: Value | None = None) -> str | Several | list[str]:
    if layer.volumes is not None:
        return _volumes(w, layer, layer.volumes, x)
    if layer.window is None and layer.mode in ("MAX", "AVE") and len(w.tops) == 1:
        kind = "Max" if layer.mode == "MAX" else "Avg"
        return f"{w.module(layer, f'nn.Adaptive{kind}Pool2d', 1)}({x})"
    if layer.window is None:
        static(layer, x, 2, 3)
    window, _ = layer.fit(x.shape)
    ceil = unless(True, layer.ceil_mode)
    plain = _padded_most(window)
    if layer.mode == "MAX":
        return _maximum(w, layer, x, window, plain)
    if layer.mode in ("AVE", "SUM"):
        divisor = 1 if layer.mode == "SUM" else None
        if plain:
            options = {**_options(window, layer.ceil_mode), "divisor_override": divisor}
            return f"{w.module(layer, 'nn.AvgPool2d', *_sides(window), **options)}({x})"
        return call(w.helper(helpers.average_pool), x, *window, ceil_mode=ceil, divisor=divisor)
    if layer.mode == "STOCHASTIC":
        return call(w.helper(helpers.stochastic_pool), x, window.kernel, window.stride, ceil_mode=ceil)
    if layer.mode == "FIX":
        if not layer.ceil_mode:
            raise unsaid(layer, "pool: FIX with a number of windows that is rounded down")
        return call(w.helper(helpers.pool_at_place), x, layer.position, window.kernel, window.stride)
    return call(w.helper(helpers.pool_at_mask), x, mask, *window, local=unless(False, layer.local))


def _maximum(w: Writer, layer: Pooling, x: Value, window: Window, plain: bool) -> str | Several:
    """Max pooling of planes, with its mask where that is a top; ``plain``: PyTorch's has as much padding."""
    options = _options(window, layer.ceil_mode)
    ceil = unless(True, layer.ceil_mode)
    if len(w.tops) == 1:
        if plain:
            return f"{w.module(layer, 'nn.MaxPool2d', *_sides(window), **options)}({x})"
        return call(w.helper(helpers.max_pool), x, *window, ceil_mode=ceil)
    whole = _whole(w)
    if whole:
        w.whole.add(w.targets[1])
    if whole and plain and not layer.local:
        module = w.module(layer, "nn.MaxPool2d", *_sides(window), **options, return_indices=True)
        return Several(f"{module}({x})")
    y = call(w.helper(helpers.max_pool_with_mask), x, *window, ceil_mode=ceil, local=unless(False, layer.local))
    return Several(y) if whole else Several(y, (1,))


def _volumes(w: Writer, layer: Layer, volumes: VolumePooling, x: Value) -> str | Several:
    """Pooling over the last one to three axes, or with dilation."""
    n = len(volumes.stride)
    if volumes.kernel is None:
        static(layer, x, *range(len(x.shape) - n, len(x.shape)))
    kernel, windows = volumes.fit(x.shape, layer.error)
    much = any(2 * p > k for p, k in zip(volumes.pad, kernel, strict=True))
    if volumes.mode != "MAX" and (much or any(d > 1 for d in volumes.dilation) or (volumes.mode == "SUM" and n == 1)):
        static(layer, x, *range(len(x.shape) - n, len(x.shape)))
        sides = (kernel, volumes.stride, volumes.pad, volumes.dilation, windows)
        if volumes.mode == "SUM":
            return call(w.helper(helpers.sum_windows), x, *sides)
        counts = unless(True, volumes.counts_pad)
        return call(w.helper(helpers.average_windows), x, *sides, count_include_pad=counts)
    if much:
        raise unsaid(layer, f"pad {volumes.pad} is more than half of the kernel {kernel}, which PyTorch does not pool")
    options: dict[str, Any] = {
        "padding": unless(0, square(volumes.pad)),
        "ceil_mode": unless(False, volumes.ceil_mode),
    }
    kind, masked = "Avg", len(w.tops) == 2
    if volumes.mode == "MAX":
        kind = "Max"
        options["dilation"] = unless(1, square(volumes.dilation))
        options["return_indices"] = unless(False, masked)
    elif volumes.mode == "SUM":
        options["divisor_override"] = 1
    else:
        options["count_include_pad"] = unless(True, volumes.counts_pad)
    module = w.module(layer, f"nn.{kind}Pool{n}d", square(kernel), square(volumes.stride), **options)
    lead = len(x.shape) - n
    if lead in (1, 2):
        return Several(f"{module}({x})", (1,)) if masked else f"{module}({x})"
    if masked:
        raise unsaid(layer, f"a mask of a blob with {len(x.shape)} axes")
    if lead == 0:
        return f"{module}({x}[None])[0]"
    shape = tuple(-1 if a == 0 else m for a, m in enumerate(x.shape[: lead - 1]))
    return f"{module}({x}.flatten(0, {lead - 2})).unflatten(0, {shape})"


@writes(Depooling)
def depooling(w: Writer, layer: Depooling, y: Value, mask: Value | None = None) -> list[str]:
    assert layer.window is not None
    window = layer.window
    if layer.mode == "SWITCH" and not layer.local and not window.overlaps and w.is_whole(mask):
        module = w.module(layer, "nn.MaxUnpool2d", *_sides(window), padding=unless(0, square(window.pad)))
        return [f"{module}({y}, {mask})", f"{module}(torch.ones_like({y}), {mask})"][: len(w.tops)]

    def unpooled(values: str) -> str:
        if layer.mode == "SWITCH":
            return call(w.helper(helpers.unpool_at_mask), values, mask, *window, local=unless(False, layer.local))
        if layer.mode == "FIX":
            return call(w.helper(helpers.unpool_at_place), values, layer.position, *window)
        x = call(w.helper(helpers.unpool_everywhere), values, *window)
        return x if layer.mode == "SUM" else f"{x} / {window.places}"

    return [unpooled(str(y)), unpooled(f"torch.ones_like({y})")][: len(w.tops)]


@writes(SafeInv)
def safe_inverse(w: Writer, layer: SafeInv, x: Value) -> str:
    return f"{w.helper(helpers.safe_inverse)}({x})"


@writes(SPP)
def spp(w: Writer, layer: SPP, x: Value) -> str:
    if layer.height == 1:
        kind = "Max" if layer.method == "MAX" else "Avg"
        return f"{w.module(layer, f'nn.Adaptive{kind}Pool2d', 1)}({x})"
    if layer.method == "STOCHASTIC":
        raise unsaid(layer, "a pyramid of stochastic poolings")
    return call(w.helper(helpers.pyramid_pool), x, layer.height, average=unless(False, layer.method == "AVE"))
