"""Layers that combine, cut, reorder or reshape blobs."""

from __future__ import annotations

from ...forks.ctpn.moving import Reverse, Transpose
from ...forks.dann.gradient_scaler import GradientScaler
from ...forks.deconvnet.dropout_channel import DropoutChannel
from ...forks.deeplab.labels import SpatialProduct
from ...forks.flownet2.eltwise import AnyEltwise
from ...forks.greentea.merge_crop import MergeCrop
from ...forks.happynear.channel_scale import ChannelScale, LabelSpecificAdd
from ...forks.happynear.flip import Flip
from ...forks.happynear.planes import Gram, Slope
from ...forks.lisa.eltwise import WeightedSum
from ...forks.mnc.masks import MaskPooling
from ...forks.openvino.label_specific_add import LabelSpecificSubtract
from ...forks.senet.axpy import Axpy
from ...forks.shufflenet.shuffle_channel import ShuffleChannel
from ...forks.ssd.permute import Permute
from ...forks.synopsys.arrays import Add, Mul
from ...forks.tsn.processes import Gather, Scatter
from ...forks.xlearn.entropy import OuterProduct
from ...layers.common import ArgMax, BatchReindex, Eltwise, Filter, Parameter, Reduction, Split
from ...layers.inputs import DummyData
from ...layers.reshaping import Concat, Crop, Flatten, Reshape, Slice, Tile
from ..outline import Value
from ..registry import static, unsaid
from .helpers import combining as helpers
from .layout import call, literal, unless
from .linear import with_axes
from .writer import Several, Writer, writes


@writes(Add, Mul)
def of_arrays(w: Writer, layer: Add | Mul, *bottoms: Value) -> str:
    pair = [str(x) for x in bottoms]
    if len(pair) == 1:
        pair.append(w.parameter(layer, layer.blob(0), name=f"{layer.name}_factor"))
    return f" {'+' if isinstance(layer, Add) else '*'} ".join(pair)


@writes(DummyData)
def dummy_data(w: Writer, layer: DummyData) -> list[str]:
    if any(filler.type != "constant" for filler in layer.fillers):
        raise unsaid(layer, "fills its tops with random numbers")
    device = w.any_input()
    return [
        f"{device}.new_full({literal(shape)}, {literal(float(filler.value))})"
        for shape, filler in zip(layer.shapes, layer.fillers, strict=True)
    ]


@writes(Split)
def split(w: Writer, layer: Split, x: Value) -> list[str]:
    return [str(x)] * len(w.tops)


@writes(Eltwise, AnyEltwise)
def eltwise(w: Writer, layer: Eltwise, *bottoms: Value) -> str:
    first, *rest = bottoms
    if layer.operation == "MAX":
        y = str(first)
        for x in rest:
            y = f"torch.maximum({y}, {x})"
        return y
    if layer.operation == "PROD":
        return " * ".join(map(str, bottoms))
    y = ""
    for x, c in zip(bottoms, layer.coeffs, strict=True):
        sign = (" - " if c < 0 else " + ") if y else ("-" if c < 0 else "")
        y += sign + (str(x) if abs(c) == 1 else f"{literal(abs(c))} * {x}")
    return y


@writes(WeightedSum)
def weighted_sum(w: Writer, layer: WeightedSum, *bottoms: Value) -> str:
    *xs, weights = bottoms
    factors = layer.coeffs if set(layer.coeffs) != {1.0} else None
    return call(w.helper(helpers.weighted_sum), tuple(map(str, xs)), weights, factors=factors)


@writes(MergeCrop)
def merge_crop(w: Writer, layer: MergeCrop, x: Value, y: Value) -> str:
    pair = [str(x), call(w.helper(helpers.crop_middle), y, x)]
    pair = [each if on else f"torch.zeros_like({each})" for each, on in zip(pair, layer.forwards, strict=True)]
    if layer.adds:
        return " + ".join(pair)
    if x.shape[1] == y.shape[1]:
        return f"torch.cat([{', '.join(pair)}], dim=1)"
    return call(w.helper(helpers.stack_by_count), *pair)


@writes(OuterProduct)
def outer_product(w: Writer, layer: OuterProduct, a: Value, b: Value) -> str:
    rows, columns = (str(x) if len(x.shape) == 2 else f"{x}.flatten(1)" for x in (a, b))
    return f"{rows}[:, None, :, None] * {columns}[:, None, None, :]"


@writes(Gather, GradientScaler, Scatter)
def of_training(w: Writer, layer: Gather | GradientScaler | Scatter, *bottoms: Value) -> list[str]:
    return list(map(str, bottoms))


@writes(LabelSpecificAdd, LabelSpecificSubtract)
def label_specific_add(w: Writer, layer: LabelSpecificAdd, x: Value, label: Value) -> list[str]:
    return [str(x), f"{x}.new_zeros(1)"][: len(w.tops)]


@writes(ChannelScale)
def channel_scale(w: Writer, layer: ChannelScale, x: Value, factors: Value) -> list[str]:
    y, common = str(x), w.parameter(layer, layer.factor, learns=False) if layer.common else ""
    if layer.scales and layer.common:
        y = f"{x} * {common}"
    elif layer.scales and factors.shape == (x.shape[0], 1, *x.shape[2:]):
        y = f"{x} * {factors}"
    elif layer.scales:
        y = f"{x} * {factors}.reshape({x}[:, :1].shape)"
    return [y, common][: len(w.tops)]


@writes(Reduction)
def reduction(w: Writer, layer: Reduction, x: Value) -> str:
    axes = tuple(range(layer.axis, len(x.shape)))
    along = literal(axes[0] if len(axes) == 1 else axes)
    y = {
        "SUM": f"{x}.sum({along})",
        "MEAN": f"{x}.mean({along})",
        "ASUM": f"{x}.abs().sum({along})",
        "SUMSQ": f"{x}.square().sum({along})",
    }[layer.operation]
    return y if layer.coeff == 1 else f"{literal(layer.coeff)} * {y}"


@writes(ArgMax)
def argmax(w: Writer, layer: ArgMax, x: Value) -> str:
    largest = w.helper(helpers.largest)
    if layer.axis is not None:
        return f"{largest}({x}, {layer.top_k}, {layer.axis})[{0 if layer.out_max_val else 1}]"
    flat = f"{x}.flatten(1)" if len(x.shape) > 1 else f"{x}[:, None]"
    found = f"{largest}({flat}, {layer.top_k}, 1)"
    y = f"torch.stack({found}[::-1], 1)" if layer.out_max_val else f"{found}[1][:, None]"
    return y if len(x.shape) <= 3 else f"{y}[..., {', '.join(['None'] * (len(x.shape) - 3))}]"


@writes(Parameter)
def parameter(w: Writer, layer: Parameter) -> str:
    return w.parameter(layer, layer.weight)


@writes(BatchReindex)
def batch_reindex(w: Writer, layer: BatchReindex, x: Value, indices: Value) -> str:
    return f"{x}[{indices}.long()]"


@writes(Filter)
def filter_items(w: Writer, layer: Filter, *bottoms: Value) -> list[str]:
    *items, selector = bottoms
    return [f"{item}[{selector}.flatten() != 0]" for item in items]


@writes(Concat)
def concat(w: Writer, layer: Concat, *bottoms: Value) -> str:
    if len(bottoms) == 1:
        return str(bottoms[0])
    return f"torch.cat([{', '.join(map(str, bottoms))}], dim={layer.axis})"


@writes(Slice)
def slices(w: Writer, layer: Slice, x: Value) -> str | Several:
    if len(w.tops) == 1:
        return str(x)
    sizes = [top.shape[layer.axis] for top in w.tops]
    if layer.points:
        static(layer, x, layer.axis)
    if len(set(sizes)) == 1:
        return Several(f"{x}.chunk({len(sizes)}, {layer.axis})")
    return Several(f"{x}.split({sizes}, {layer.axis})")


@writes(Flatten)
def flatten(w: Writer, layer: Flatten, x: Value) -> str:
    if layer.axis > layer.end_axis:
        return f"{x}.unsqueeze({layer.axis})"
    if layer.axis == layer.end_axis:
        return str(x)
    last = [] if layer.end_axis == len(x.shape) - 1 else [layer.end_axis]
    return call(f"{x}.flatten", layer.axis, *last)


@writes(Reshape)
def reshape(w: Writer, layer: Reshape, x: Value) -> str:
    middle = [layer.start + i if n == 0 else str(n) for i, n in enumerate(layer.dims)]
    whole: list[int | str] = [*range(layer.start), *middle, *range(layer.end, len(x.shape))]
    copied = [axis for axis in whole if isinstance(axis, int)]
    if copied == whole == list(range(len(x.shape))):
        return str(x)
    others = [int(n) for n in whole if isinstance(n, str)]
    if len(copied) == 1 and -1 not in others and 0 not in w.tops[0].shape:
        whole = ["-1" if isinstance(n, int) else n for n in whole]
    if whole == ["-1" if n == 0 else str(m) for n, m in enumerate(x.shape)]:
        return str(x)
    return call(f"{x}.reshape", *(f"{x}.shape[{n}]" if isinstance(n, int) else n for n in whole))


@writes(Tile)
def tile(w: Writer, layer: Tile, x: Value) -> str:
    return call(f"{x}.repeat", *layer.repeats)


@writes(Crop)
def crop(w: Writer, layer: Crop, x: Value, reference: Value) -> str:
    return call(w.helper(helpers.crop_like), x, reference, layer.axis, tuple(layer.offsets))


@writes(Permute)
def permute(w: Writer, layer: Permute, x: Value) -> str:
    if list(layer.order) == list(range(len(x.shape))):
        return str(x)
    return call(f"{x}.permute", *layer.order)


@writes(Transpose)
def transpose(w: Writer, layer: Transpose, x: Value) -> str:
    return call(f"{x}.permute", *layer.order)


@writes(Reverse)
def reverse(w: Writer, layer: Reverse, x: Value) -> str:
    return f"{x}.flip({layer.axis})"


@writes(Flip)
def flip(w: Writer, layer: Flip, x: Value) -> str:
    return call(f"{x}.flip", *layer.axes) if layer.axes else str(x)


@writes(ShuffleChannel)
def shuffle_channel(w: Writer, layer: ShuffleChannel, x: Value) -> str:
    return f"{w.module(layer, 'nn.ChannelShuffle', layer.group)}({with_axes(x, 4 - len(x.shape))})"


@writes(Axpy)
def axpy(w: Writer, layer: Axpy, scale: Value, x: Value, y: Value) -> str:
    more = len(x.shape) - len(scale.shape)
    factor = with_axes(scale, more) if more >= 0 else f"{scale}[..., {', '.join(['0'] * -more)}]"
    return f"{factor} * {x} + {y}"


@writes(MaskPooling, SpatialProduct)
def spatial_product(w: Writer, layer: MaskPooling | SpatialProduct, x: Value, plane: Value) -> str:
    return f"{x} * {plane}"


@writes(DropoutChannel)
def dropout_channel(w: Writer, layer: DropoutChannel, x: Value) -> str:
    return f"{w.module(layer, 'nn.Dropout2d', unless(0.5, layer.ratio))}({x})"


@writes(Gram)
def gram(w: Writer, layer: Gram, x: Value) -> str:
    return call(w.helper(helpers.gram), x)


@writes(Slope)
def slope(w: Writer, layer: Slope, x: Value) -> str:
    return call(w.helper(helpers.add_slopes), x)
