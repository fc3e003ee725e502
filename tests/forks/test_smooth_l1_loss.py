"""SmoothL1Loss of Fast R-CNN, Faster R-CNN and SSD: their numbers, and their formulas where there are none."""

import golden_layer as gl
import pytest
import torch
from google.protobuf import text_format

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import layer_class
from pycaffe_compat.proto import caffe_pb2

TYPE = 'name: "l" type: "SmoothL1Loss"'
SHAPE = (3, 2)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradient(text: str, *bottoms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and its gradient to the first bottom."""
    a = bottoms[0].clone().requires_grad_()
    loss = gl.build(f"{TYPE} {text}", *(each.shape for each in bottoms))(a, *bottoms[1:])
    return loss.detach(), torch.autograd.grad(loss, a)[0]


@pytest.mark.parametrize("name", gl.names("smoothl1_", folder="forks"))
def test_it_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


@pytest.mark.parametrize("text", ["", "smooth_l1_loss_param { sigma: 2.5 }", "smoothl1_param { turn_point: 0.5 }"])
def test_it_has_its_gradient(text: str) -> None:
    layer = gl.build(f"{TYPE} {text}", SHAPE, SHAPE)
    gl.check_gradients(layer, random(*SHAPE), random(*SHAPE, seed=1))


def test_weights_belong_to_the_gradient_as_each_fork_has_it() -> None:
    a, b, inside, outside = (random(*SHAPE, seed=seed) for seed in range(4))
    difference = inside * (a - b)
    slope = difference.clamp(-1, 1)
    error = torch.where(difference.abs() < 1, difference**2 / 2, difference.abs() - 0.5)
    cases = {
        "": (outside * error, inside * outside * slope),
        "smooth_l1_loss_param { abssum: false }": (outside * error, inside * outside * slope),
        "smooth_l1_loss_param { abssum: true }": ((outside * error).abs(), outside * slope),
    }
    for text, (losses, slopes) in cases.items():
        loss, grad = gradient(text, a, b, inside, outside)
        torch.testing.assert_close(loss, losses.sum() / 3)
        torch.testing.assert_close(grad, slopes / 3)
    loss, grad = gradient("", a, b, inside)  # Fast R-CNN's
    torch.testing.assert_close(loss, error.sum() / 3)
    torch.testing.assert_close(grad, slope / 3)


def test_r_fcn_divides_by_what_loss_param_says_and_shows_the_places() -> None:
    a, b, weight = (random(2, 3, 4, 5, seed=seed) for seed in range(3))
    losses = torch.nn.functional.smooth_l1_loss(weight * (a - b), torch.zeros_like(a), reduction="none")
    for loss_param, divisor in {
        "normalization: VALID": 40,
        "normalization: FULL": 40,
        "normalize: false": 2,
        "normalization: PRE_FIXED pre_fixed_normalizer: 64": 64,
    }.items():
        layer = gl.build(f"{TYPE} loss_param {{ {loss_param} }} top: 'l' top: 'each'", *[a.shape] * 3)
        total, each = layer(a, b, weight)
        torch.testing.assert_close(total, losses.sum() / divisor)
        torch.testing.assert_close(each, losses.sum(1, keepdim=True))
    plain = gl.build(TYPE, a.shape, b.shape)
    named = layer_class(plain.param, fork="rfcn")(plain.param, [a.shape, b.shape])
    torch.testing.assert_close(named(a, b) * 20, plain(a, b))
    four = gl.build(TYPE, *[a.shape] * 4)
    named = layer_class(four.param, fork="rfcn")(four.param, [a.shape] * 4)
    assert named(a, b, weight, weight) == four(a, b, weight, weight)


def test_intels_sum_stays_undivided_if_asked() -> None:
    a, b = random(*SHAPE), random(*SHAPE, seed=1)
    plain = gl.build(TYPE, SHAPE, SHAPE)
    none = text_format.Parse(
        f"{TYPE} bottom: 'a' bottom: 'b' loss_param {{ normalization: NONE }}", caffe_pb2.LayerParameter()
    )
    intels = layer_class(none, likely=("intel", "rfcn"))(none, [SHAPE, SHAPE])
    torch.testing.assert_close(intels(a, b), 3 * plain(a, b))
    assert layer_class(none) is type(plain)


def test_axes_of_length_1_at_the_end_do_not_matter() -> None:
    a, b = random(3, 4), random(3, 4, 1, 1, seed=1)
    assert gradient("", a, b)[0] == gradient("", a, b.reshape(3, 4))[0]


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        ("", [SHAPE], "has 1 bottom blob, but takes 2 to 4"),
        ("", [(3, 2), (3, 4)], "must have one shape, but bottom 1 has 3×4 and bottom 0 3×2"),
        ("", [(3, 2, 4, 4), (3, 4, 2, 4)], "bottom 1 has 3×4×2×4"),
        ("", [SHAPE, SHAPE, SHAPE, (3,)], "bottom 3 has 3 and"),
        ("smooth_l1_loss_param { sigma: 0 }", [SHAPE, SHAPE], "sigma: 0 must be above 0"),
        ("smoothl1_param { turn_point: 2 } smooth_l1_loss_param { sigma: 2 }", [SHAPE, SHAPE], "of no one fork"),
    ],
)
def test_what_it_cannot_do_is_an_error(text: str, shapes: list, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f"{TYPE} {text}", *shapes)
