"""Pooling, Depooling, SafeInv and SPP: Caffe's goldens, options that they leave out, fused forms, errors."""

import re

import golden_layer
import pytest
import torch
import torch.nn.functional as F
from golden_layer import build

import pycaffe_compat
from pycaffe_compat import ops
from pycaffe_compat.errors import LayerError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, format_text, parse_text

GOLDENS = golden_layer.names("pool_", "switch_pool", "depool", "safeinv", "spp")
X = (2, 3, 7, 9)


def pooling(options, *shapes, tops=("y",), phase=0):
    named = " ".join(f'top: "{name}"' for name in tops)
    return build(f'name: "p" type: "Pooling" {named} pooling_param {{ {options} }}', *(shapes or (X,)), phase=phase)


def depooling(options, *shapes, tops=("x",)):
    named = " ".join(f'top: "{name}"' for name in tops)
    return build(f'name: "d" type: "Depooling" {named} pooling_param {{ {options} }}', *shapes)


def net_of(text):
    return Net(parse_text(text, caffe_pb2.NetParameter), "TEST")


@pytest.fixture(params=(False, True), ids=("contiguous", "channels_last"))
def x(request):
    torch.manual_seed(1)
    value = torch.randn(X)
    if request.param:
        value = value.to(memory_format=torch.channels_last)
    return value.requires_grad_()


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name):
    golden_layer.check(name)


@pytest.mark.parametrize("name", [n for n in GOLDENS if n.startswith(("pool_ma", "depool", "pool_ave", "pool_sum"))])
def test_golden_without_a_compiler(name):
    with ops.use_backend("torch"):
        golden_layer.check(name)


def test_sizes():
    assert pooling("kernel_size: 3 stride: 2")(torch.randn(X)).shape == (2, 3, 3, 4)
    assert pooling("kernel_size: 3 stride: 2 pad: 1")(torch.randn(X)).shape == (2, 3, 4, 5)
    assert pooling("kernel_size: 2 stride: 2")(torch.randn(X)).shape == (2, 3, 4, 5)
    assert pooling("kernel_size: 2 stride: 2 round_mode: FLOOR")(torch.randn(X)).shape == (2, 3, 3, 4)
    layer = pooling("kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 2 engine: CUDNN")
    assert layer(torch.randn(X)).shape == (2, 3, 8, 6)
    assert pooling("global_pooling: true pool: AVE")(torch.randn(0, 3, 5, 4)).shape == (0, 3, 1, 1)


def test_a_pad_on_one_side_drops_windows_past_the_other():
    options = "kernel_h: 1 kernel_w: 3 stride_h: 4 stride_w: 3 pad_h: 0 pad_w: 1"
    assert pooling(options)(torch.randn(X)).shape == (2, 3, 2, 4)


@pytest.mark.parametrize("backend", ("auto", "torch"))
def test_a_kernel_larger_than_its_input_by_less_than_the_stride(backend):
    x = torch.randn(2, 3, 7, 4, requires_grad=True)
    with ops.use_backend(backend):
        y, mask = pooling("kernel_h: 9 kernel_w: 5 stride: 3", x.shape, tops=("y", "m"))(x)
        assert torch.equal(y, x.amax((2, 3), keepdim=True))
        assert torch.equal(mask.flatten(), x.flatten(2).argmax(2).flatten().float())
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert torch.equal(gradient, (x == y).float())
        y = pooling("pool: AVE kernel_h: 9 kernel_w: 5 stride: 3", x.shape)(x)
        torch.testing.assert_close(y, x.mean((2, 3), keepdim=True))
        (gradient,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(gradient, torch.full_like(x, 1 / 28))


def test_max_is_pytorchs_where_they_agree(x):
    y, mask = pooling("kernel_size: 3 stride: 2 pad: 1", tops=("y", "m"))(x)
    want, index = F.max_pool2d(x, 3, 2, 1, ceil_mode=True, return_indices=True)
    assert torch.equal(y, want)
    assert torch.equal(mask, index.float())
    assert not mask.requires_grad
    seed = torch.randn_like(y)
    assert torch.equal(*(torch.autograd.grad(t, x, seed)[0] for t in (y, want)))


def test_the_mask_counts_in_floats_wide_enough(x):
    _, mask = pooling("kernel_size: 2 stride: 2", tops=("y", "m"))(x.bfloat16())
    assert mask.dtype == torch.float32
    _, mask = pooling("kernel_size: 2 stride: 2", tops=("y", "m"))(x.double())
    assert mask.dtype == torch.float64


@pytest.mark.parametrize("index_type", ("GLOBAL", "LOCAL"))
def test_global_max_of_a_large_plane(index_type):
    x = torch.randn(2, 3, 17, 18, requires_grad=True)
    layer = pooling(f"global_pooling: true mask_index_type: {index_type}", x.shape, tops=("y", "m"))
    y, mask = layer(x)
    assert torch.equal(y.flatten(), x.flatten(2).amax(2).flatten())
    assert torch.equal(mask.flatten(), x.flatten(2).argmax(2).flatten().float())
    y.sum().backward()
    assert torch.equal(x.grad.flatten(2).argmax(2), mask.flatten(1).long())
    assert layer(torch.randn(1, 3, 30, 20))[1].shape == (1, 3, 1, 1)
    assert not layer.switchable


def test_fix_reads_one_place(x):
    assert torch.equal(pooling("pool: FIX kernel_size: 2 stride: 2")(x[:, :, :6, :8]), x[:, :, 1:6:2, 1:8:2])
    layer = pooling("pool: FIX kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 3 fix_x: 0 fix_y: 1")
    y = layer(x)
    assert torch.equal(y[:, :, :3], x[:, :, 1::2, ::3])
    assert torch.equal(y[:, :, 3], torch.zeros(2, 3, 3))  # the last window's row 1 lies below the plane
    assert torch.equal(pooling("pool: FIX kernel_size: 3 stride: 3 fix: 2")(x)[:, :, :2], x[:, :, 2:6:3, 2::3])
    assert pooling("pool: FIX kernel_h: 2 kernel_w: 5 fix_y: 0").position == (0, 2)
    assert pooling("pool: FIX kernel_h: 2 kernel_w: 5 fix_x: 0").position == (1, 2)  # without fix_y Caffe reads fix


@pytest.mark.parametrize("index_type", ("GLOBAL", "LOCAL"))
@pytest.mark.parametrize("options", ("kernel_size: 3 stride: 2 pad: 1", "kernel_h: 2 kernel_w: 3 stride: 1"))
def test_switch_reads_where_the_mask_points(x, options, index_type):
    options += f" mask_index_type: {index_type}"
    y, mask = pooling(options, tops=("y", "m"))(x)
    layer = pooling(f"pool: SWITCH {options}", X, mask.shape)
    again = layer(x, mask)
    assert torch.equal(again, y)
    seed = torch.randn_like(y)
    assert torch.equal(*(torch.autograd.grad(t, x, seed)[0] for t in (y, again)))
    with pytest.raises(LayerError, match=re.escape("the mask has shape 2×3×1×1, but the top will have 2×3×")):
        layer(x, mask[:, :, :1, :1])


def test_stochastic_in_training_draws_in_proportion():
    x = torch.tensor([[1.0, 3.0], [0.0, 4.0]]).expand(1, 20000, 2, 2)
    layer = pooling("pool: STOCHASTIC kernel_size: 2 stride: 2", x.shape)
    torch.manual_seed(0)
    y = layer(x)
    shares = [(y == v).float().mean().item() for v in (1.0, 3.0, 0.0, 4.0)]
    assert shares == pytest.approx([1 / 8, 3 / 8, 0, 4 / 8], abs=0.02)
    torch.manual_seed(0)
    assert torch.equal(layer(x), y)
    x = torch.rand(X).requires_grad_()
    y = pooling("pool: STOCHASTIC kernel_size: 3 stride: 2")(x)
    assert y.shape == (2, 3, 3, 4)
    y.sum().backward()
    assert x.grad.sum() == y.numel()
    assert torch.isin(y, x).all()
    zero = pooling("pool: STOCHASTIC kernel_size: 3 stride: 2")(torch.zeros(X))
    assert torch.equal(zero, torch.zeros_like(zero))


def test_stochastic_in_testing_is_the_expectation():
    x = torch.rand(X, dtype=torch.float64).requires_grad_()
    layer = pooling("pool: STOCHASTIC kernel_size: 3 stride: 3", phase=1)
    y = layer(x)
    corner = x[..., 6:, 6:]
    torch.testing.assert_close(y[..., 2, 2], (corner**2).sum((2, 3)) / corner.sum((2, 3)))
    assert torch.autograd.gradcheck(layer, (x,))
    zero = torch.zeros(X, requires_grad=True)
    layer(zero).sum().backward()
    assert torch.equal(layer(zero), torch.zeros(2, 3, 3, 3))
    assert torch.isfinite(zero.grad).all()


def test_a_global_mask_may_point_outside_its_window():
    y = torch.tensor([1.0, 2.0, 4.0, 8.0]).view(1, 1, 2, 2).requires_grad_()
    mask = torch.tensor([15.0, 15.0, -1.0, 0.0]).view(1, 1, 2, 2)
    layer = depooling("pool: SWITCH kernel_size: 2 stride: 2", y.shape, mask.shape, tops=("x", "w"))
    x, weights = layer(y, mask)
    assert x.flatten().tolist() == [8] + [0] * 14 + [3]
    assert weights.flatten().tolist() == [1] + [0] * 14 + [2]
    (x * torch.arange(16.0).view(1, 1, 4, 4)).sum().backward()
    assert y.grad.flatten().tolist() == [15, 15, 0, 0]
    with pytest.raises(ops.OperatorError, match=r"index\[0, 0, 0, 0\] is 16, outside the plane of 4x4"):
        layer(y, mask + 1)


def test_max_depooling_is_switch_depooling(x):
    y, mask = pooling("kernel_size: 2 stride: 1", tops=("y", "m"))(x)
    options = "kernel_size: 2 stride: 1"
    tops = [depooling(f"pool: {mode} {options}", y.shape, y.shape)(y, mask) for mode in ("MAX", "SWITCH")]
    assert torch.equal(*tops)
    assert tops[0].shape == x.shape


MODES = (
    "pool: SWITCH kernel_size: 2 stride: 2",
    "pool: SWITCH kernel_size: 3 stride: 2",
    "pool: SWITCH kernel_size: 3 stride: 1 pad: 1",
    "pool: AVE kernel_size: 3 stride: 2",
    "pool: SUM kernel_size: 3 stride: 2 pad: 1",
    "pool: FIX kernel_size: 3 stride: 2",
)


@pytest.mark.parametrize("options", MODES)
def test_fused_forms_equal_the_layers_apart(x, options):
    window = options.split(" ", 2)[2]
    source = pooling(window, tops=("y", "m"))
    y, mask = source(x.relu())
    fused, switch = source.forward_switch(x, relu=True)
    assert torch.equal(fused, y)
    assert torch.equal(source.mask(switch, x.shape, x.dtype), mask)

    bottoms = (y.shape, mask.shape) if "SWITCH" in options else (y.shape,)
    z = (y.detach() - 0.5).requires_grad_()
    arguments = (z.relu(), mask) if "SWITCH" in options else (z.relu(),)
    two = depooling(options, *bottoms, tops=("u", "w"))
    plane = two.fit(y.shape)[1]
    if plane != X[2:] and "SWITCH" in options:  # the mask counts in the plane that was pooled
        mask = ops.switch_to_mask(switch, *source.window, plane)
        arguments = (z.relu(), mask)
    u, w = two(*arguments)
    fused_u, fused_w = two.forward_switch(z, switch, relu=True)
    assert torch.equal(fused_u, u)
    assert torch.equal(fused_w, w)
    assert not w.requires_grad
    one = depooling(options, *bottoms)
    assert torch.equal(one(*arguments), u)
    assert torch.equal(one.forward_switch(z, switch, relu=True), u)
    normal = u * build('name: "i" type: "SafeInv"', w.shape)(w)
    fused_normal = two.forward_switch(z, switch, relu=True, normalize=True)
    assert torch.equal(fused_normal, normal)
    seed = torch.randn_like(normal)
    torch.testing.assert_close(*(torch.autograd.grad(t, z, seed)[0] for t in (normal, fused_normal)), rtol=0, atol=0)


def test_when_switches_may_be_handed_over():
    def fits(up, down, x_shape=X, down_options=""):
        source = pooling(up, x_shape, tops=("y", "m"))
        shape = source(torch.empty(x_shape, device="meta"))[0].shape
        return depooling(f"pool: SWITCH {down} {down_options}", shape, shape).takes_switch_of(source, x_shape, shape)

    two, three, local = "kernel_size: 2 stride: 2", "kernel_size: 3 stride: 2", "mask_index_type: LOCAL"
    assert fits(two, two, (2, 3, 8, 8))
    assert not fits(two, two, (2, 3, 7, 8))  # GLOBAL places mean others in a plane of another size
    assert fits(f"{two} {local}", f"{two} {local}", (2, 3, 7, 8))
    assert not fits(two, f"{two} {local}", (2, 3, 8, 8))
    assert not fits(two, three, (2, 3, 8, 8))
    padded = f"{three} pad: 1 {local}"
    assert fits(padded, padded, (2, 3, 7, 9))
    assert not fits(padded, padded, (2, 3, 8, 9))
    source = pooling("global_pooling: true", tops=("y", "m"))
    one = (2, 3, 1, 1)
    assert not depooling("pool: SWITCH kernel_h: 7 kernel_w: 9", one, one).takes_switch_of(source, X, one)


def test_safe_inverse_of_zero_has_no_gradient():
    x = torch.tensor([0.0, -0.0, 2.0, -4.0], requires_grad=True)
    y = build('name: "i" type: "SafeInv"', x.shape)(x)
    assert y.tolist() == [0, 0, 0.5, -0.25]
    y.backward(torch.tensor([1.0, 2.0, 4.0, 8.0]))
    assert x.grad.tolist() == [0, 0, -1, -0.5]


@pytest.mark.parametrize("method", ("MAX", "AVE"))
@pytest.mark.parametrize("size", ((12, 13), (8, 8), (9, 15)))
def test_spp_levels_are_poolings(method, size):
    x = torch.randn(2, 3, *size)
    layer = build(f'name: "s" type: "SPP" spp_param {{ pyramid_height: 3 pool: {method} }}', x.shape)
    y = layer(x)
    assert y.shape == (2, 3 * (1 + 4 + 16))
    pool = F.max_pool2d if method == "MAX" else F.avg_pool2d
    torch.testing.assert_close(y[:, :3], pool(x, size).flatten(1))
    if size == (8, 8):
        torch.testing.assert_close(y[:, 3:15], pool(x, 4).flatten(1))
        torch.testing.assert_close(y[:, 15:], pool(x, 2).flatten(1))
    assert layer(torch.randn(1, 3, 16, 16)).shape == (1, 63)


def test_spp_of_one_level_keeps_its_axes():
    x = torch.randn(2, 3, 5, 4)
    y = build('name: "s" type: "SPP" spp_param { pyramid_height: 1 }', x.shape)(x)
    assert torch.equal(y, x.amax((2, 3), keepdim=True))


def test_compile():
    up = pooling("kernel_size: 3 stride: 2", tops=("y", "m"))
    shape = (2, 3, 3, 4)
    down = depooling("pool: SWITCH kernel_size: 3 stride: 2", shape, shape, tops=("u", "w"))

    def chain(x):
        return down(*up(x))

    x = torch.randn(X)
    have, want = torch.compile(chain, fullgraph=True, backend="aot_eager")(x), chain(x)
    assert all(torch.equal(h, w) for h, w in zip(have, want, strict=True))


WRONG = {
    'layer "p" (Pooling): pooling_param: no kernel_size, nor kernel_h and kernel_w': lambda: pooling("stride: 2"),
    "kernel_h without kernel_w; give kernel_size, or kernel_h and kernel_w": lambda: pooling("kernel_h: 2"),
    "kernel_h and kernel_w beside kernel_size": lambda: pooling("kernel_size: 2 kernel_h: 2 kernel_w: 2"),
    "stride_w without stride_h": lambda: pooling("kernel_size: 2 stride_w: 2"),
    "pad_h without pad_w beside pad": lambda: pooling("kernel_size: 2 pad: 1 pad_h: 1"),
    "kernel_h is 0, but must be positive": lambda: pooling("kernel_size: 0"),
    "stride_h is 0, but must be positive": lambda: pooling("kernel_size: 2 stride: 0"),
    "pad_w is 3, but must be at least 0 and smaller than kernel_w, which is 2": lambda: pooling(
        "kernel_size: 2 pad_h: 1 pad_w: 3"
    ),
    "kernel_size is given with global_pooling": lambda: pooling("global_pooling: true kernel_size: 2"),
    "global_pooling needs pad 0 and stride 1, not (0, 0) and (2, 2)": lambda: pooling("global_pooling: true stride: 2"),
    "kernel_h is 8, larger than the input's height 7": lambda: pooling("kernel_size: 8"),
    "kernel_h is 9, larger than the input's height 7": lambda: pooling("kernel_size: 9 stride: 2"),
    "kernel_w is 10, larger than the input's width 9": lambda: pooling(
        "kernel_h: 3 kernel_w: 10 stride: 2 round_mode: FLOOR"
    ),
    "with no input in it, as the height is 7": lambda: pooling("kernel_size: 1 stride: 4"),
    "pools over 1 to 3 axes behind the channels (axis 1), not of shape 2×3": lambda: pooling("kernel_size: 2", (2, 3)),
    "pad (1, 1) with pool: STOCHASTIC": lambda: pooling("pool: STOCHASTIC kernel_size: 2 pad: 1"),
    "pad (1, 1) with pool: FIX": lambda: pooling("pool: FIX kernel_size: 2 pad: 1"),
    "fix_x is for pool: FIX, not MAX": lambda: pooling("kernel_size: 2 fix_x: 1"),
    "the fixed place (2, 2) (h, w) lies outside the kernel (2, 2)": lambda: pooling("pool: FIX kernel_size: 2 fix: 2"),
    "SOFT_SWITCH never ran in Caffe": lambda: pooling("pool: SOFT_SWITCH kernel_size: 2", X, X),
    "has 1 bottom blob, but takes exactly 2": lambda: pooling("pool: SWITCH kernel_size: 2"),
    "has 2 bottom blobs, but takes exactly 1": lambda: pooling("kernel_size: 2", X, X),
    "has 2 top blobs, but takes exactly 1": lambda: pooling("pool: AVE kernel_size: 2", tops=("y", "m")),
    'layer "d" (Depooling): pooling_param: global_pooling': lambda: depooling("global_pooling: true pool: AVE", X),
    "pooling_param.pool: STOCHASTIC cannot be undone": lambda: depooling("pool: STOCHASTIC kernel_size: 2", X),
    "the height of the plane is -1, but must be positive": lambda: depooling(
        "pool: AVE kernel_size: 3 pad: 2", (1, 1, 1, 1)
    ),
    "the mask has shape 2×3×7×8, but the values have 2×3×7×9": lambda: depooling("pool: SWITCH kernel_size: 2", X, X)(
        torch.randn(X), torch.randn(2, 3, 7, 8)
    ),
    "spp_param.pyramid_height is 0": lambda: build('name: "s" type: "SPP"', X),
    "pad_h is 2, but must be at least 0 and smaller than kernel_h, which is 2": lambda: build(
        'name: "s" type: "SPP" spp_param { pyramid_height: 3 }', (1, 1, 5, 8)
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_errors(message):
    with pytest.raises(LayerError, match=re.escape(message)):
        WRONG[message]()


def test_an_error_after_a_reshape_names_the_layer():
    layer = pooling("kernel_size: 5")
    with pytest.raises(LayerError, match=r'layer "p" \(Pooling\): kernel_h is 5, larger than the input\'s height 3'):
        layer(torch.randn(1, 3, 3, 9))


@pytest.mark.parametrize("mode", ["MAX", "AVE"])
@pytest.mark.parametrize("shape, windows", [((1, 1, 6, 6), "3×3"), ((1, 1, 6, 5), "3×3")])
def test_a_window_past_the_end_names_the_way_out(mode, shape, windows):
    with pytest.raises(LayerError, match=rf"round_mode: FLOOR \}} leaves it out and makes {windows} windows"):
        pooling(f"pool: {mode} kernel_size: 1 stride: 2", shape)
    layer = pooling(f"pool: {mode} kernel_size: 1 stride: 2 round_mode: FLOOR", shape)
    assert tuple(layer(torch.zeros(shape)).shape) == (1, 1, 3, 3)


def mask_net(size, up="kernel_size: 2 stride: 2", down=None, between=""):
    """A net that pools planes of ``size`` and places the maxima with the mask, which ``between`` may hand on as ``n``."""
    height, width = size
    return net_of(
        f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 1 dim: {height} dim: {width} }} }} }}'
        f'layer {{ name: "p" type: "Pooling" bottom: "x" top: "p" top: "m" pooling_param {{ {up} }} }}{between}'
        f'layer {{ name: "u" type: "Depooling" bottom: "p" bottom: "{"n" if between else "m"}" top: "u" '
        f"pooling_param {{ pool: SWITCH {down or up} }} }}"
    )


SPLIT = 'layer { name: "s" type: "Split" bottom: "m" top: "n" top: "o" }'
ALIKE = (
    'layer { name: "s" type: "Reshape" bottom: "m" top: "n" reshape_param { shape { dim: 0 dim: 0 dim: 0 dim: 0 } } }'
)
LOCAL = " mask_index_type: LOCAL"
FLOOR = "round_mode: FLOOR"
TWO, THREE = "kernel_size: 2 stride: 2", "kernel_size: 3 stride: 2"
MOVED = {
    "one column more than windows of two divide": ((5, 5), TWO, None, "", "5×5", "6×6"),
    "another width alone": ((6, 5), TWO, None, "", "6×5", "6×6"),
    "the last column in no window": ((7, 7), f"{TWO} {FLOOR}", TWO, "", "7×7", "6×6"),
    "windows of three": ((8, 8), THREE, None, "", "8×8", "9×9"),
    "padded windows, one row too few": ((11, 10), "kernel_size: 3 stride: 3 pad: 1", None, "", "11×10", "10×10"),
    "through a Split": ((5, 5), TWO, None, SPLIT, "5×5", "6×6"),
    "through a Reshape that changes nothing": ((5, 5), TWO, None, ALIKE, "5×5", "6×6"),
    **{
        f"through {kind}": (
            (5, 5),
            TWO,
            None,
            f'layer {{ name: "k" type: "{kind}" bottom: "m" top: "n" }}',
            "5×5",
            "6×6",
        )
        for kind in ("ReLU", "Dropout", "Power", "Concat")
    },
    "other windows": ((7, 7), THREE, TWO, "", "7×7", "6×6"),
}


@pytest.mark.parametrize("case", MOVED)
def test_a_global_mask_of_another_plane_is_refused(case):
    size, up, down, between, pooled, plane = MOVED[case]
    with pytest.raises(LayerError) as error:
        mask_net(size, up, down, between)
    message = str(error.value)
    assert f'layer "u" (Depooling): its GLOBAL mask numbers the places of planes of {pooled}' in message
    assert f'the bottom of layer "p" (Pooling), but the planes here are {plane}' in message
    if case == "other windows":
        assert "both layers the same windows (kernel 3×3, stride 2×2, pad 0×0 there, kernel 2×2, " in message
    else:
        assert "mask_index_type: LOCAL in both layers" in message


def test_the_refusal_names_a_size_that_works():
    with pytest.raises(LayerError, match=r"planes that its windows divide, such as 6×8$"):
        mask_net((5, 7))
    mask_net((6, 8))


@pytest.mark.parametrize(
    "size, up",
    [
        ((5, 6), TWO),  # another height moves nothing: places are numbered along rows
        ((6, 6), TWO),
        ((7, 6), f"{TWO} {FLOOR}"),
        ((1, 5), "kernel_h: 1 kernel_w: 2 stride: 2"),  # a single row is numbered alike in planes of any width
        ((5, 5), TWO + LOCAL),
        ((7, 7), f"{TWO} {FLOOR}{LOCAL}"),
    ],
)
def test_masks_that_mean_the_same_places(size, up):
    down = up.replace(FLOOR, "")
    for net in (mask_net(size, up, down), mask_net(size, up, down, SPLIT)):
        x = torch.rand(1, 1, *size) + 1
        values, _ = net.run(x)
        u, window = values["u"][..., : size[0], : size[1]], net.layers["p"].window
        kept = F.max_pool2d(x, window.kernel, window.stride, ceil_mode=FLOOR not in up, return_indices=True)[1]
        want = torch.zeros_like(x).flatten().index_copy(0, kept.flatten(), x.flatten()[kept.flatten()]).view_as(x)
        assert torch.equal(u, want[..., : u.shape[2], : u.shape[3]])
        assert values["u"].count_nonzero() == want.count_nonzero()


@pytest.mark.parametrize(
    "up, down, message",
    [
        (TWO + LOCAL, TWO, 'reads its mask as GLOBAL, but layer "p" (Pooling) makes it LOCAL'),
        (TWO, TWO + LOCAL, 'reads its mask as LOCAL, but layer "p" (Pooling) makes it GLOBAL'),
        (THREE + LOCAL, TWO + LOCAL, 'LOCAL mask of windows of 3×3 (layer "p" (Pooling)) in windows of 2×2'),
    ],
)
def test_a_warning_of_local_masks_that_are_misread(up, down, message, caplog):
    mask_net((6, 6), down, down)
    assert not caplog.messages
    mask_net((6, 6), up, down)
    assert message in caplog.text


def test_pooling_by_a_mask_of_another_plane_is_refused():
    text = (
        'layer {{ name: "x" type: "Input" top: "x" top: "z" input_param {{ shape {{ dim: 1 dim: 1 dim: 5 dim: 5 }} '
        "shape {{ dim: 1 dim: 1 dim: {0} dim: {0} }} }} }}"
        'layer {{ name: "p" type: "Pooling" bottom: "x" top: "p" top: "m" pooling_param {{ kernel_size: 2 stride: 2 }} }}'
        'layer {{ name: "q" type: "Pooling" bottom: "z" bottom: "m" top: "q" '
        "pooling_param {{ pool: SWITCH kernel_size: 2 stride: 2 }} }}"
    )
    with pytest.raises(LayerError, match=r'layer "q" \(Pooling\): its GLOBAL mask .* 5×5, .* the planes here are 6×6'):
        net_of(text.format(6))
    net_of(text.format(5))


def test_a_mask_of_another_plane_is_refused_after_a_reshape_and_in_a_pass():
    net = mask_net((6, 6))
    with pytest.raises(LayerError, match="planes of 5×5"):
        net.reshape({"x": (1, 1, 5, 5)})
    assert net.blob_shapes["u"] == (1, 1, 6, 6)
    for run in (net, net.objective, net.run):
        with pytest.raises(LayerError, match="planes of 7×5"):
            run(torch.zeros(1, 1, 7, 5))
        run(torch.zeros(3, 1, 8, 4))


def test_the_numpy_face_refuses_it_too(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(format_text(mask_net((6, 6)).param))
    net = pycaffe_compat.Net(str(path), pycaffe_compat.TEST)
    net.forward()
    net.blobs["x"].reshape(1, 1, 5, 5)
    with pytest.raises(LayerError, match=rf"^{path}: layer \"u\" .* planes of 5×5"):
        net.forward()
    net.blobs["x"].reshape(1, 1, 4, 8)
    assert net.forward()["u"].shape == (1, 1, 4, 8)


def test_a_mask_that_the_program_makes_is_taken_as_it_is():
    net = net_of(
        'layer { name: "x" type: "Input" top: "x" top: "m" input_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } } }'
        'layer { name: "u" type: "Depooling" bottom: "x" bottom: "m" top: "u" '
        "pooling_param { pool: SWITCH kernel_size: 2 stride: 2 } }"
    )
    assert net(torch.ones(1, 1, 2, 2), torch.tensor([[[[15.0, 1], [1, 0]]]]))["u"].sum() == 4
