"""Element-wise layers: Caffe's numbers, gradients of every option, training and testing, bad options."""

import math

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError

FAMILY = (
    "absval",
    "bnll",
    "clip",
    "dropout",
    "elu",
    "exp_",
    "log_",
    "power",
    "prelu",
    "relu",
    "sigmoid",
    "swish",
    "tanh",
    "threshold",
)
IN_PLACE = [f"inplace_{name}" for name in ("bnll", "elu", "exp", "power", "prelu", "relu", "sigmoid", "tanh")]


@pytest.mark.parametrize("name", [n for n in gl.names(*FAMILY) if not n.startswith("sigmoidce")] + IN_PLACE)
def test_golden(name):
    gl.check(name)


@pytest.mark.parametrize(
    "prototxt",
    [
        'type: "AbsVal"',
        'type: "BNLL"',
        'type: "Clip" clip_param { min: -0.5 max: 0.25 }',
        'type: "Dropout"',
        'type: "ELU"',
        'type: "ELU" elu_param { alpha: -0.5 }',
        'type: "Exp" exp_param { shift: 0.5 }',
        'type: "Exp" exp_param { base: 10 scale: -0.3 }',
        'type: "Exp" exp_param { base: 1 shift: 2 }',
        'type: "Log" log_param { shift: 5 }',
        'type: "Log" log_param { base: 2 scale: -0.5 shift: 3 }',
        'type: "Power" power_param { power: 3 shift: 0.5 }',
        'type: "Power" power_param { power: -1 scale: 0.2 shift: 4 }',
        'type: "Power" power_param { power: -2.5 scale: 0.2 shift: 4 }',
        'type: "PReLU"',
        'type: "PReLU" prelu_param { channel_shared: true filler { value: -0.3 } }',
        'type: "ReLU" relu_param { negative_slope: -0.2 engine: CAFFE }',
        'type: "Sigmoid" sigmoid_param { engine: CUDNN }',
        'type: "Swish"',
        'type: "Swish" swish_param { beta: -0.7 }',
        'type: "TanH"',
    ],
)
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 2, 2)])
def test_gradients(prototxt, shape):
    layer = gl.build(prototxt, shape, dtype=torch.float64, phase=1)
    x = torch.randn(shape, dtype=torch.float64)
    x[x.abs() < 0.05] = 0.1  # away from kinks
    gl.check_gradients(layer, x)


@pytest.mark.parametrize(
    "prototxt, value, gradient",
    [
        ('type: "AbsVal"', 0.0, 0.0),
        ('type: "ReLU"', 0.0, 0.0),
        ('type: "ReLU" relu_param { negative_slope: 0.5 }', 0.0, 0.5),
        ('type: "PReLU"', 0.0, 0.25),
        ('type: "ELU" elu_param { alpha: 0.5 }', 0.0, 0.5),
        ('type: "Clip" clip_param { min: -1 max: 1 }', 1.0, 1.0),
        ('type: "Clip" clip_param { min: -1 max: 1 }', -1.0, 1.0),
    ],
)
def test_gradient_at_the_kink_is_that_of_caffes_formula(prototxt, value, gradient):
    x = torch.full((1, 1), value, requires_grad=True)
    gl.build(prototxt, (1, 1))(x).backward(torch.ones(1, 1))
    assert x.grad.item() == gradient


@pytest.mark.parametrize("power, scale, shift, value", [(0, 2, 3, 1), (2, 0, 3, 9), (1, 0, 0, 0), (0.5, 0, 4, 2)])
def test_power_that_does_not_depend_on_its_bottom(power, scale, shift, value):
    layer = gl.build(f'type: "Power" power_param {{ power: {power} scale: {scale} shift: {shift} }}', (2, 3))
    assert torch.equal(layer(torch.tensor([[0.0, 1, 2], [-1, math.nan, math.inf]])), torch.full((2, 3), float(value)))


@pytest.mark.parametrize(
    "options, factor",
    [
        ("", lambda y: 1.0),
        ("scale: 3", lambda y: 9.0),
        ("power: 2 scale: 0.5", lambda y: (0.5 * y) ** 2),
        ("power: 3", lambda y: 9.0),
        ("power: 3 shift: 2", lambda y: (3 * y / (y + 2)) ** 2),
        ("power: 0", lambda y: 0.0),
    ],
)
def test_power_in_place_multiplies_its_slope_with_itself(options, factor):
    """Caffe builds the slope, from the top, in the memory of the top's gradient: see the golden inplace_power."""
    layer = gl.build(f'type: "Power" bottom: "x" top: "x" power_param {{ {options} }}', (2, 3))
    x = torch.rand(2, 3, requires_grad=True)
    y = layer(x)
    y.backward(torch.randn(2, 3))
    torch.testing.assert_close(x.grad, torch.as_tensor(factor(y.detach())).expand(2, 3))


def test_log_and_clip_in_place_take_their_slope_from_the_top():
    x = torch.rand(2, 3, requires_grad=True)
    y = gl.build('type: "Log" bottom: "x" top: "x" log_param { shift: 2 }', (2, 3))(x)
    y.backward(torch.randn(2, 3))
    torch.testing.assert_close(x.grad, (y.detach() + 2) ** -2)
    x = torch.tensor([[-5.0, 0.5]], requires_grad=True)
    gl.build('type: "Clip" bottom: "x" top: "x" clip_param { min: 0 max: 1 }', (1, 2))(x).backward(
        torch.tensor([[2.0, 3]])
    )
    assert x.grad.tolist() == [[2, 3]]


def test_bnll_of_large_numbers_is_finite():
    y = gl.build('type: "BNLL"', (2,))(torch.tensor([100.0, -100.0]))
    assert y.tolist() == [100.0, pytest.approx(0, abs=1e-30)]


def test_dropout_scales_what_it_keeps_and_only_in_training():
    layer = gl.build('type: "Dropout" dropout_param { dropout_ratio: 0.3 }', (100, 100))
    x = torch.ones(100, 100)
    y = layer(x)
    assert torch.equal(y.unique(), torch.tensor([0, 1 / 0.7]))
    assert y.count_nonzero().item() / x.numel() == pytest.approx(0.7, abs=0.03)
    assert torch.equal(layer.eval()(x), x)


def test_a_test_net_may_drop_all_because_it_drops_nothing():
    layer = gl.build('type: "Dropout" dropout_param { dropout_ratio: 1 }', (3,), phase=1)
    assert layer(torch.ones(3)).tolist() == [1, 1, 1]


def test_prelu_has_a_quarter_as_slope_unless_told():
    assert gl.build('type: "PReLU"', (2, 3, 4)).weight.tolist() == [0.25] * 3
    assert gl.build('type: "PReLU" prelu_param { channel_shared: true }', (2, 3, 4)).weight.shape == ()


@pytest.mark.parametrize(
    "prototxt, says",
    [
        ('type: "Clip" clip_param { min: 1 max: 0 }', r"min: 1 is above max: 0"),
        ('type: "Dropout" dropout_param { dropout_ratio: 1 }', r"dropout_ratio: 1 must be at least 0 and below 1"),
        ('type: "Dropout" dropout_param { dropout_ratio: nan }', r"dropout_ratio: nan"),
        ('type: "Exp" exp_param { base: 0 }', r"exp_param.base: 0 must be above 0"),
        ('type: "Exp" exp_param { base: 10 shift: 1e30 }', r"exp_param.shift"),
        ('type: "Log" log_param { base: -2 }', r"log_param.base: -2 must be above 0"),
        ('type: "Log" log_param { base: 1 }', r"no logarithm to base 1"),
        ('type: "Power" power_param { power: 0.5 scale: 0 shift: -1 }', r"-1 \*\* 0.5 is not a real number"),
        ('type: "ReLU" bottom: "a" bottom: "b"', r'layer "odd" \(ReLU\): has 2 bottom blobs, but takes exactly 1'),
        ('type: "TanH" top: "a" top: "b"', r"has 2 top blobs, but takes exactly 1"),
    ],
)
def test_bad_options(prototxt, says):
    shapes = [(2, 3)] * max(1, prototxt.count("bottom:"))
    with pytest.raises(LayerError, match=says):
        gl.build(f'name: "odd" {prototxt}', *shapes)


def test_prelu_needs_channels():
    with pytest.raises(LayerError, match=r"at least 2 axes"):
        gl.build('type: "PReLU"', (2,))


def test_clip_needs_both_limits():
    param = gl.caffe_pb2.LayerParameter(name="c", type="Clip", top=["y"])
    with pytest.raises(LayerError, match="needs both min and max"):
        gl.layer_class(param)(param, [(2, 3)])
