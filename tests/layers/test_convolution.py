"""Convolutions over 0 to 4 spatial axes: Caffe's numbers, torch's where torch has them, gradients, bad options."""

import golden_layer as gl
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers.convolution import CONVOLUTIONS, TRANSPOSED, convolve, convolve_transposed


@pytest.mark.parametrize("name", gl.names("conv_", "deconv_", "im2col"))
def test_golden(name):
    gl.check(name)


GRADIENTS = [
    ((1, 4, 5, 6), "kernel_size: 3 group: 2 stride: 2 pad: 1"),
    ((2, 2, 6, 5), "kernel_h: 3 kernel_w: 2 dilation: 2 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0"),
    ((2, 2, 5, 5), "kernel_size: 2 pad: 0 pad: 1 dilation: 1 dilation: 3 bias_term: false engine: CAFFE"),
    ((1, 2, 7), "kernel_size: 3 stride: 2"),
    ((1, 2, 3, 4, 3), "kernel_size: 2 pad: 1 stride: 2 force_nd_im2col: true"),
    ((2, 1, 2, 5), "axis: -2 kernel_size: 2"),
    ((2, 3, 4, 3), "axis: 0 kernel_size: 2 stride: 1 stride: 2 stride: 1"),
    ((1, 2, 3, 2, 3, 3), "kernel_size: 2 stride: 1 stride: 2 stride: 2 stride: 1 pad: 1 group: 2"),
    ((3, 4), "group: 2"),
]


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("shape, options", GRADIENTS)
def test_gradients(kind, shape, options):
    fillers = 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }'
    layer = gl.build(
        f'type: "{kind}" convolution_param {{ num_output: 2 {options} {fillers} }}', shape, dtype=torch.float64
    )
    gl.check_gradients(layer, torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("shape, options", GRADIENTS[:6])
def test_im2col_gradients(shape, options):
    layer = gl.build(f'type: "Im2col" convolution_param {{ {options} }}', shape)
    gl.check_gradients(layer, torch.randn(shape, dtype=torch.float64))


def test_im2col_of_one_axis():
    layer = gl.build('type: "Im2col" convolution_param { kernel_size: 2 stride: 2 pad: 1 }', (1, 2, 3))
    y = layer(torch.arange(6.0).reshape(1, 2, 3))
    assert y.tolist() == [[[0, 1], [0, 2], [0, 4], [3, 5]]]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_any_number_of_axes_agrees_with_torch(axes, groups):
    stride, pad, dilation = (2, 1, 3)[:axes], (1, 2, 0)[:axes], (1, 2, 1)[:axes]
    x = torch.randn(2, 4, *(6, 7, 5)[:axes], dtype=torch.float64)
    weight = torch.randn(4, 4 // groups, *(3, 2, 2)[:axes], dtype=torch.float64)
    want = CONVOLUTIONS[axes](x, weight, None, stride, pad, dilation, groups)
    torch.testing.assert_close(convolve(x, weight, stride, pad, dilation, groups), want)
    want = TRANSPOSED[axes](x, weight, None, stride, pad, 0, groups, dilation)
    torch.testing.assert_close(convolve_transposed(x, weight, stride, pad, dilation, groups), want)


@pytest.mark.parametrize(
    "options",
    (
        "num_output: 16 kernel_size: 3 pad: 1",
        "num_output: 32 kernel_h: 2 kernel_w: 3 pad: 0 group: 2",
        "num_output: 16 kernel_size: 3 dilation: 2 pad: 3",
        "num_output: 64 kernel_size: 1",
    ),
)
@pytest.mark.parametrize("layout", (torch.contiguous_format, torch.channels_last))
def test_a_deconvolution_of_large_planes_is_a_convolution(options, layout):
    """At stride 1, with few weights for the places: the same numbers and gradients as the transposed convolution."""
    layer = gl.build(f'type: "Deconvolution" convolution_param {{ {options} weight_filler {{ type: "xavier" }} }}',
                     (1, 4, 100, 100), dtype=torch.float64)  # fmt: skip
    x = torch.randn(1, 4, 100, 100, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    y = layer(x)
    assert "ConvolutionBackward" in type(y.grad_fn).__name__
    assert any("Flip" in type(node).__name__ for node, _ in y.grad_fn.next_functions), "not the mirrored form"
    want = F.conv_transpose2d(x, layer.weight, layer.bias, layer.stride, layer.pad, 0, layer.groups, layer.dilation)
    torch.testing.assert_close(y, want)
    parameters = [x, layer.weight, layer.bias]
    dy = torch.randn_like(y)
    for have, expected in zip(
        torch.autograd.grad(y, parameters, dy), torch.autograd.grad(want, parameters, dy), strict=True
    ):
        torch.testing.assert_close(have, expected)


@pytest.mark.parametrize(
    "options",
    ("num_output: 32 kernel_size: 3 stride: 2", "num_output: 3 kernel_size: 3", "num_output: 16 kernel_size: 1 pad: 1"),
)
def test_other_deconvolutions_are_not(options):
    layer = gl.build(f'type: "Deconvolution" convolution_param {{ {options} }}', (1, 4, 100, 100))
    y = layer(torch.randn(1, 4, 100, 100))
    assert not any("Flip" in type(node).__name__ for node, _ in y.grad_fn.next_functions)


def test_four_axes_are_the_sum_over_the_first_of_three():
    layer = gl.build(
        'type: "Convolution" convolution_param { num_output: 3 kernel_size: 2 weight_filler { type: "xavier" } }',
        (2, 4, 3, 5, 4, 4),
    )
    x = torch.randn(2, 4, 3, 5, 4, 4)
    want = torch.stack([sum(F.conv3d(x[:, :, i + k], layer.weight[:, :, k]) for k in range(2)) for i in range(2)], 2)
    torch.testing.assert_close(layer(x), want)


def test_bottoms_share_the_weights_and_their_gradients_add_up():
    options = 'num_output: 3 kernel_size: 3 weight_filler { type: "xavier" }'
    layer = gl.build(f'type: "Convolution" top: "p" top: "q" convolution_param {{ {options} }}', *[(2, 2, 5, 5)] * 2)
    a, b = torch.randn(2, 2, 5, 5), torch.randn(2, 2, 5, 5)
    tops = layer(a, b)
    torch.testing.assert_close(tops[0], F.conv2d(a, layer.weight))
    torch.testing.assert_close(tops[1], F.conv2d(b, layer.weight))
    torch.autograd.backward([t.sum() for t in tops])
    (want,) = torch.autograd.grad(F.conv2d(torch.cat([a, b]), layer.weight).sum(), layer.weight)
    torch.testing.assert_close(layer.weight.grad, want)


def test_blobs():
    layer = gl.build(
        'type: "Deconvolution" convolution_param { num_output: 6 group: 3 kernel_h: 2 kernel_w: 5 }', (1, 9, 7, 7)
    )
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"weight": (9, 2, 2, 5), "bias": (6,)}


def test_channels_last_stays_channels_last():
    layer = gl.build('type: "Convolution" convolution_param { num_output: 8 kernel_size: 3 }', (2, 4, 8, 8))
    x = torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "shape, options, says",
    [
        ((1, 2, 5, 5), "kernel_size: 3", "num_output: 0 must be at least 1"),
        ((1, 2, 5, 5), "num_output: 2", r"needs kernel_size \(or kernel_h and kernel_w\)"),
        ((1, 2, 5, 5), "num_output: 2 kernel_size: 0", "kernel_size is 0×0; it must be at least 1"),
        ((1, 2, 5, 5), "num_output: 2 kernel_h: 3", "kernel_size is 3×0"),
        (
            (1, 2, 5, 5),
            "num_output: 2 kernel_size: 3 kernel_h: 3 kernel_w: 3",
            "both kernel_size and kernel_h or kernel_w",
        ),
        ((1, 2, 5, 5), "num_output: 2 kernel_size: 1 stride: 2 stride_h: 2", "both stride and stride_h"),
        ((1, 2, 5, 5), "num_output: 2 kernel_size: 1 stride: 0", "stride is 0×0"),
        ((1, 2, 5, 5), "num_output: 2 kernel_size: 1 dilation: 0", "dilation is 0×0"),
        (
            (1, 2, 5, 5),
            "num_output: 2 kernel_size: 3 pad: 1 pad: 1 pad: 1",
            "pad is given 3 times; 2 spatial axes take it once or 2",
        ),
        ((1, 2, 5), "num_output: 2 kernel_h: 3 kernel_w: 3", "are for 2 spatial axes, but the bottom has 1"),
        (
            (1, 4, 5, 5),
            "num_output: 3 group: 2 kernel_size: 1",
            "group: 2 must divide the bottom's 4 channels and num_output: 3",
        ),
        ((1, 3, 5, 5), "num_output: 4 group: 2 kernel_size: 1", "group: 2 must divide the bottom's 3 channels"),
        ((1, 3, 5, 5), "num_output: 4 group: 0 kernel_size: 1", "group: 0"),
        (
            (1, 3, 5, 5),
            "num_output: 4 axis: 4 kernel_size: 1",
            r"axis: 4 is out of range for a blob with 4 axes \(-4 to 3\)",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_bad_options(kind, shape, options, says):
    with pytest.raises(LayerError, match=rf'layer "c" \({kind}\): .*{says}'):
        gl.build(f'name: "c" type: "{kind}" convolution_param {{ {options} }}', shape)


def test_a_window_must_fit():
    with pytest.raises(
        LayerError,
        match=r"window of 5×5 \(kernel_size 3×3, dilation 2×2\) is larger than its input of 4×9 with pad 0×0",
    ):
        gl.build('type: "Convolution" convolution_param { num_output: 1 kernel_size: 3 dilation: 2 }', (1, 1, 4, 9))
    with pytest.raises(LayerError, match="is larger than its input of 4×9"):
        gl.build('type: "Im2col" convolution_param { kernel_size: 5 }', (1, 1, 4, 9))
    with pytest.raises(LayerError, match="pad 2×2 is too large: its top would be 0×1"):
        gl.build('type: "Deconvolution" convolution_param { num_output: 1 kernel_size: 2 pad: 2 }', (1, 1, 3, 4))


def test_bottoms_and_tops_must_agree():
    options = "convolution_param { num_output: 1 kernel_size: 1 }"
    with pytest.raises(LayerError, match="has 2 bottoms and 1 tops, but makes one top per bottom"):
        gl.build(f'type: "Convolution" top: "y" {options}', (1, 1, 4, 4), (1, 1, 4, 4))
    with pytest.raises(LayerError, match=r"same shape, but these have 1×1×4×4 and 1×1×4×5"):
        gl.build(f'type: "Convolution" top: "y" top: "z" {options}', (1, 1, 4, 4), (1, 1, 4, 5))
    with pytest.raises(LayerError, match="needs spatial axes"):
        gl.build('type: "Im2col"', (2, 3))


@pytest.mark.parametrize(
    "holes, dilation", [("hole: 2", "dilation: 2"), ("hole_h: 1 hole_w: 3", "dilation: 1 dilation: 3")]
)
def test_deeplabs_holes_are_dilation(holes, dilation):
    text = 'type: "Convolution" convolution_param {{ num_output: 2 kernel_size: 3 pad: 2 {} }}'
    layer, plain = (gl.build(text.format(options), (1, 2, 8, 8)) for options in (holes, dilation))
    assert layer.dilation == plain.dilation


@pytest.mark.parametrize("holes", ["hole: 2 dilation: 2", "hole_h: 2", "hole: 1 hole_h: 1 hole_w: 1", "hole: 0"])
def test_holes_that_cannot_be(holes):
    with pytest.raises(LayerError, match="hole"):
        gl.build(f'type: "Convolution" convolution_param {{ num_output: 2 kernel_size: 3 {holes} }}', (1, 2, 8, 8))


def test_dilation_of_height_and_width():
    """yjxiong/caffe has fields for them; 0 is found beside kernels of one row."""
    text = 'name: "c" type: "Convolution" convolution_param { num_output: 1 kernel_h: 1 kernel_w: 3'
    layer = gl.build(f"{text} dilation_h: 0 dilation_w: 4 }}", (1, 1, 9, 9))
    assert layer.dilation == (1, 4) and layer(torch.zeros(1, 1, 9, 9)).shape == (1, 1, 9, 1)
    with pytest.raises(LayerError, match="dilation is 2×0; it must be at least 1 where"):
        gl.build(f"{text} dilation_h: 2 dilation_w: 0 }}", (1, 1, 9, 9))
