"""Layers that combine, reduce, choose: Caffe's numbers, gradients of every option, bad options."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError

FAMILY = (
    "eltwise",
    "reduction",
    "argmax",
    "split",
    "parameter",
    "batch_reindex",
    "filter",
    "shared_bottom",
    "propagate_down",
)


@pytest.mark.parametrize("name", gl.names(*FAMILY))
def test_golden(name):
    gl.check(name)


@pytest.mark.parametrize(
    "prototxt, shapes",
    [
        ('"Eltwise" eltwise_param { operation: PROD }', [(2, 3)] * 4),
        ('"Eltwise" eltwise_param { operation: PROD stable_prod_grad: false }', [(2, 3)] * 2),
        ('"Eltwise" eltwise_param { operation: MAX }', [(2, 3)] * 3),
        ('"Eltwise" eltwise_param { coeff: -2 coeff: 0 coeff: 0.5 }', [(2, 3)] * 3),
        ('"Reduction" reduction_param { operation: MEAN coeff: 3 }', [(2, 3)]),
        ('"Reduction" reduction_param { operation: MEAN axis: -1 }', [(2, 3)]),
        ('"Reduction" reduction_param { operation: SUMSQ coeff: -1 }', [(2, 3)]),
        ('"Reduction" reduction_param { operation: ASUM axis: 1 }', [(2, 3, 2)]),
        ('"Split" top: "a" top: "b" top: "c"', [(2, 3)]),
        ('"Parameter" parameter_param { shape { dim: 2 dim: 3 } }', []),
    ],
)
def test_gradients(prototxt, shapes):
    layer = gl.build(f"type: {prototxt}", *shapes, dtype=torch.float64)
    gl.check_gradients(layer, *(torch.randn(shape, dtype=torch.float64) for shape in shapes))


def test_gradient_of_a_product_at_zero():
    a, b = torch.zeros(1, requires_grad=True), torch.full((1,), 3.0, requires_grad=True)
    gl.build('type: "Eltwise" eltwise_param { operation: PROD }', (1,), (1,))(a, b).backward()
    assert (a.grad.item(), b.grad.item()) == (3, 0)


def test_absolute_sum_has_no_slope_at_zero():
    x = torch.tensor([-1.0, 0, 2], requires_grad=True)
    gl.build('type: "Reduction" reduction_param { operation: ASUM }', (3,))(x).backward()
    assert x.grad.tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    "options, shape, want",
    [
        ("", (2, 4), [[[3.0]], [[1.0]]]),
        ("top_k: 2", (2, 4), [[[3.0, 1.0]], [[1.0, 0.0]]]),
        ("out_max_val: true", (2, 4), [[[3.0], [5.0]], [[1.0], [2.0]]]),
        ("out_max_val: true top_k: 3", (2, 4), [[[3, 1, 0], [5, 5, 1]], [[1, 0, 3], [2, 2, 1]]]),
        ("axis: 1", (2, 4), [[3.0], [1.0]]),
        ("axis: -1 top_k: 2 out_max_val: true", (2, 4), [[5.0, 5.0], [2.0, 2.0]]),
        ("axis: 0", (2, 4), [[1.0, 0.0, 1.0, 0.0]]),
    ],
)
def test_argmax_takes_the_last_of_equals(options, shape, want):
    x = torch.tensor([[1.0, 5, -1, 5], [2, 2, 0, 1]], requires_grad=True)
    y = gl.build(f'type: "ArgMax" argmax_param {{ {options} }}', shape)(x)
    assert y.tolist() == want
    assert not y.requires_grad


def test_argmax_of_four_axes():
    layer = gl.build('type: "ArgMax" argmax_param { top_k: 2 out_max_val: true }', (2, 3, 4, 5))
    assert gl.meta_shapes(layer, [(2, 3, 4, 5)]) == [(2, 2, 2, 1)]
    assert gl.meta_shapes(gl.build('type: "ArgMax"', (6,)), [(6,)]) == [(6, 1, 1)]


def test_silence_has_no_tops():
    assert gl.tops_of(gl.build('type: "Silence"', (2, 3), (1,))(torch.ones(2, 3), torch.ones(1))) == ()


def test_parameter_starts_with_zeros():
    layer = gl.build('type: "Parameter" parameter_param { shape { dim: 2 dim: 3 } }')
    assert torch.equal(layer(), torch.zeros(2, 3))
    assert gl.build('type: "Parameter"')().shape == ()


def test_batch_reindex_gradients():
    """The golden holds none: Caffe runs no backward for a net without loss and without force_backward."""
    layer = gl.build('type: "BatchReindex"', (3, 2), (5,))
    gl.check_gradients(layer, torch.randn(3, 2, dtype=torch.float64), torch.tensor([2, 0, 0, 2, 2]))
    assert layer.differentiable == (True, False)


@pytest.mark.parametrize("index", [-1, 3])
def test_batch_reindex_of_an_item_that_does_not_exist(index):
    layer = gl.build('name: "r" type: "BatchReindex"', (3, 2), (1,))
    with pytest.raises(
        LayerError, match=rf'"r" \(BatchReindex\): index {index}, value 0 of its bottom, is outside 0 … 2'
    ):
        layer(torch.randn(3, 2), torch.tensor([float(index)]))


def test_batch_reindex_of_no_items():
    layer = gl.build('type: "BatchReindex"', (0, 2), (3,))
    assert layer(torch.ones(0, 2), torch.ones(0)).shape == (0, 2)
    with pytest.raises(LayerError, match=r"has 3 indices, but its bottom 0×2 has no items"):
        layer(torch.ones(0, 2), torch.zeros(3))


def test_filter_gradients():
    layer = gl.build('type: "Filter" top: "a" top: "b"', (3, 2), (3,), (3, 1))
    a, b = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    gl.check_gradients(layer, a, b, torch.tensor([[1], [0], [-2]]))


def test_filter_of_nothing_is_empty_and_on_meta_everything():
    layer = gl.build('type: "Filter"', (3, 2), (3,))
    assert layer(torch.ones(3, 2), torch.zeros(3))[0].shape == (0, 2)
    assert gl.meta_shapes(layer, [(3, 2), (3,)]) == [(3, 2)]


@pytest.mark.parametrize(
    "prototxt, shapes, says",
    [
        ('"Eltwise"', [(2, 3)], "has 1 bottom blob, but takes at least 2"),
        ('"Eltwise" eltwise_param { coeff: 1 }', [(2, 3)] * 2, "coeff is given 1 times for 2 bottoms"),
        ('"Eltwise" eltwise_param { operation: PROD coeff: 1 coeff: 1 }', [(2, 3)] * 2, "coeff is for operation: SUM"),
        ('"Reduction" reduction_param { axis: 2 }', [(2, 3)], "axis: 2 is out of range"),
        ('"ArgMax" argmax_param { top_k: 0 }', [(2, 3)], "top_k: 0 must be 1 to 3"),
        ('"ArgMax" argmax_param { top_k: 13 }', [(2, 3, 4)], "top_k: 13 must be 1 to 12"),
        ('"ArgMax" argmax_param { top_k: 4 axis: 1 }', [(2, 3, 4)], "top_k: 4 must be 1 to 3"),
        ('"ArgMax" argmax_param { axis: 3 }', [(2, 3, 4)], "axis: 3 is out of range"),
        ('"ArgMax"', [()], "at least 1 axis"),
        ('"Silence" top: "a"', [(2,)], "has 1 top blob, but takes exactly 0"),
        ('"Parameter" parameter_param { shape { dim: -1 } }', [], "negative dim"),
        ('"Parameter"', [(2,)], "has 1 bottom blob, but takes exactly 0"),
        ('"BatchReindex"', [(2, 3), (2, 1)], r"not bottoms of the shapes 2×3 and 2×1"),
        ('"Filter" top: "a" top: "b"', [(2, 3), (2,)], "has 1 bottoms before the selector, and 2 tops: one each"),
        ('"Filter"', [(2, 3), (2, 3)], r"its shape 2×3 has more than one axis"),
        ('"Filter"', [(2, 3), (3,)], r"bottom 0 has shape 2×3, but the selector has 3 items"),
    ],
)
def test_bad_options(prototxt, shapes, says):
    with pytest.raises(LayerError, match=says):
        gl.build(f"type: {prototxt}", *shapes)


def test_eltwise_does_not_broadcast():
    layer = gl.build('type: "Eltwise"', (2, 3), (2, 1))
    with pytest.raises(LayerError, match=r"bottom 1 has shape 2×1, bottom 0 2×3: they must agree"):
        gl.meta_shapes(layer, [(2, 3), (2, 1)])
