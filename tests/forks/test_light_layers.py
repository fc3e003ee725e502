"""The layers of light backbones, against their forks' numbers: depthwise convolutions, ShuffleChannel, Axpy."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", gl.names("convdw_", "depthwise_", "shuffle_", "axpy_", folder="forks"))
def test_layer_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


def test_convolution_depthwise_reads_neither_group_nor_outputs() -> None:
    layer = gl.build(
        'name: "c" type: "ConvolutionDepthwise" convolution_param { num_output: 7 kernel_size: 2 dilation: 2 }',
        (1, 3, 5, 6),
    )
    assert layer.weight.shape == (3, 1, 2, 2) and layer(torch.zeros(1, 3, 5, 6)).shape == (1, 3, 3, 4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("num_output: 6 group: 3", "num_output: 6 must be the number of its bottom's channels, 3"),
        ("num_output: 3 group: 2", "group: 2 must divide"),
    ],
)
def test_depthwise_convolution_refuses_other_outputs(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(
            f'name: "c" type: "DepthwiseConvolution" convolution_param {{ kernel_size: 2 {options} }}', (1, 3, 5, 6)
        )


def test_depthwise_convolution_in_fewer_groups_uses_its_first_weights(caplog: pytest.LogCaptureFixture) -> None:
    text = 'name: "c" type: "DepthwiseConvolution" convolution_param { num_output: 3 kernel_size: 2 pad: 1'
    layer = gl.build(f'{text} weight_filler {{ type: "gaussian" }} }}', (2, 3, 4, 5), dtype=torch.float64)
    assert layer.weight.shape == (3, 3, 2, 2) and "group: 1 is not the number" in caplog.text
    plain = gl.build(f"{text} group: 3 }}", (2, 3, 4, 5), dtype=torch.float64)
    plain.weight.data.copy_(layer.weight.data.flatten()[:12].reshape(3, 1, 2, 2))
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(x), plain(x))
    layer(x).sum().backward()
    assert layer.weight.grad.flatten()[:12].all() and not layer.weight.grad.flatten()[12:].any()


def test_shuffle_channel_has_its_gradient_and_any_axes() -> None:
    layer = gl.build('name: "s" type: "ShuffleChannel" shuffle_channel_param { group: 2 }', (1, 6))
    assert layer(torch.arange(6)[None]).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    gl.check_gradients(layer, torch.randn(1, 6, dtype=torch.float64))


@pytest.mark.parametrize("group", [0, 4])
def test_shuffle_channel_refuses_groups_that_do_not_divide(group: int) -> None:
    with pytest.raises(LayerError, match=f"group: {group} must divide its bottom's 6 channels"):
        gl.build(f'name: "s" type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}', (1, 6, 2, 2))


def test_axpy_has_its_gradients() -> None:
    layer = gl.build('name: "a" type: "Axpy"', (2, 3), (2, 3, 2, 2), (2, 3, 2, 2))
    shapes = ((2, 3), (2, 3, 2, 2), (2, 3, 2, 2))
    gl.check_gradients(layer, *(torch.randn(shape, dtype=torch.float64) for shape in shapes))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((2, 3), (2, 3, 2, 2), (2, 3, 2, 1)), "second and third bottoms must have one shape"),
        (((2, 4), (2, 3, 2, 2), (2, 3, 2, 2)), "first bottom must have shape 2×3 or 2×3×1×1"),
        (((2, 3, 2, 2), (2, 3, 2, 2), (2, 3, 2, 2)), "first bottom must have shape"),
    ],
)
def test_axpy_refuses_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build('name: "a" type: "Axpy"', *shapes)


def test_mish_has_the_forks_gradient_and_hard_swish_its_own() -> None:
    x = torch.linspace(-5, 25, 61, dtype=torch.float64)
    mish, swish = (gl.build(f'name: "n" type: "{name}"', (61,)) for name in ("Mish", "HardSwish"))
    leaf = x.clone().requires_grad_()
    y = mish(leaf)
    torch.testing.assert_close(y.detach(), x * torch.log1p(torch.exp(x)).tanh())
    y.sum().backward()
    soft = torch.log1p(torch.exp(y.detach()))  # mish_layer.cpp reads the top where the bottom is meant
    want = y.detach() * (1 - soft.tanh() ** 2) * (1 - torch.exp(-soft)) + soft.tanh()
    torch.testing.assert_close(leaf.grad, want)
    torch.testing.assert_close(swish(x), x * (x + 3).clamp(0, 6) / 6)
    gl.check_gradients(swish, torch.tensor([-4.0, -1, 0.5, 4], dtype=torch.float64))
