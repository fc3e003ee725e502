"""Inner products, embeddings, scales and biases: Caffe's numbers, gradients of every option, bad options."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", gl.names("ip_", "embed", "scale_", "bias_", "silu_bias", "inplace_scale"))
def test_golden(name):
    gl.check(name)


@pytest.mark.parametrize(
    "prototxt, shapes",
    [
        ('"InnerProduct" inner_product_param { num_output: 3 FILL }', [(2, 3, 2)]),
        ('"InnerProduct" inner_product_param { num_output: 3 transpose: true FILL }', [(2, 3, 2)]),
        (
            '"InnerProduct" inner_product_param { num_output: 3 axis: -1 transpose: true bias_term: false FILL }',
            [(2, 3, 2)],
        ),
        ('"InnerProduct" inner_product_param { num_output: 3 axis: 0 FILL }', [(2, 3)]),
        ('"Scale" scale_param { axis: -1 FILLER }', [(2, 3, 4)]),
        ('"Scale" scale_param { axis: 0 num_axes: -1 bias_term: true FILLER }', [(2, 3)]),
        ('"Scale" scale_param { num_axes: 0 bias_term: true FILLER }', [(2, 3)]),
        ('"Scale" scale_param { axis: -2 bias_term: true FILLER }', [(2, 3, 2), (3, 2)]),
        ('"Scale" scale_param { axis: 2 bias_term: true }', [(2, 3), ()]),
        ('"Bias" bias_param { axis: 0 num_axes: 2 FILLER }', [(2, 3, 2)]),
        ('"Bias" bias_param { num_axes: 0 FILLER }', [(2, 3)]),
        ('"Bias" bias_param { num_axes: -1 FILLER }', [(2, 3, 2)]),
        ('"Bias" bias_param { axis: 0 }', [(2, 3, 2), (2, 3)]),
        ('"Bias"', [(2, 3), ()]),
    ],
)
def test_gradients(prototxt, shapes):
    prototxt = prototxt.replace("FILLER", 'filler { type: "gaussian" }')
    prototxt = prototxt.replace("FILL", 'weight_filler { type: "gaussian" } bias_filler { type: "gaussian" }')
    layer = gl.build(f"type: {prototxt}", *shapes, dtype=torch.float64)
    gl.check_gradients(layer, *(torch.randn(shape, dtype=torch.float64) for shape in shapes))


@pytest.mark.parametrize("bias", ["true", "false"])
def test_embed_gradients(bias):
    """The golden holds none: Caffe runs no backward for a net without loss and without force_backward."""
    options = f'num_output: 2 input_dim: 5 bias_term: {bias} weight_filler {{ type: "gaussian" }}'
    layer = gl.build(f'type: "Embed" embed_param {{ {options} }}', (2, 3), dtype=torch.float64)
    gl.check_gradients(layer, torch.tensor([[0, 4, 4], [1, 0, 4]]))


def test_inner_product_transposed_is_the_same_with_its_weights_transposed():
    plain = gl.build(
        'type: "InnerProduct" inner_product_param { num_output: 4 weight_filler { type: "xavier" } }', (2, 3)
    )
    turned = gl.build('type: "InnerProduct" inner_product_param { num_output: 4 transpose: true }', (2, 3))
    assert turned.weight.shape == (3, 4)
    turned.set_blob(0, plain.weight.detach().t().contiguous())
    x = torch.randn(2, 3)
    torch.testing.assert_close(turned(x), plain(x))


def test_names_and_defaults_of_blobs():
    layer = gl.build('type: "Scale" scale_param { bias_term: true }', (2, 3, 4))
    assert {name: p.tolist() for name, p in layer.named_parameters()} == {"weight": [1, 1, 1], "bias": [0, 0, 0]}
    layer = gl.build('type: "Scale" scale_param { bias_term: true bias_filler { value: 2 } }', (2, 3, 4), (3, 4))
    assert [(name, tuple(p.shape)) for name, p in layer.named_parameters()] == [("bias", (3, 4))]
    assert gl.build('type: "Bias" bias_param { num_axes: 0 filler { value: 3 } }', (2, 3)).bias.item() == 3
    assert list(
        dict(gl.build('type: "InnerProduct" inner_product_param { num_output: 4 }', (2, 3)).named_parameters())
    ) == [
        "weight",
        "bias",
    ]


@pytest.mark.parametrize(
    "prototxt, shapes, says",
    [
        ('"InnerProduct"', [(2, 3)], "num_output: 0 must be at least 1"),
        ('"InnerProduct" inner_product_param { num_output: 2 axis: 2 }', [(2, 3)], "axis: 2 is out of range"),
        (
            '"InnerProduct" inner_product_param { num_output: 2 }',
            [(2, 3), (2, 3)],
            "takes weights from its second bottom, as in happynear's Caffe",
        ),
        ('"Embed" embed_param { num_output: 2 }', [(2,)], "input_dim: 0 must be at least 1"),
        ('"Embed" embed_param { input_dim: 2 }', [(2,)], "num_output: 0 must be at least 1"),
        ('"Scale" scale_param { axis: 3 }', [(2, 3)], "axis: 3 is out of range"),
        ('"Scale" scale_param { num_axes: 2 }', [(2, 3)], "axis: 1 and num_axes: 2 reach past the bottom's 2 axes"),
        ('"Scale" scale_param { num_axes: -2 }', [(2, 3)], "num_axes: -2 must be at least -1"),
        ('"Scale"', [(2, 3), (2,)], r"its bottom 2×3 is not 2 from axis 1 on"),
        ('"Scale"', [(2, 3), (1,)], r"its bottom 2×3 is not 1 from axis 1 on"),
        ('"Scale"', [(2, 3), (3, 4)], r"its bottom 2×3 is not 3×4 from axis 1 on"),
        ('"Scale"', [(2, 3)] * 3, "has 3 bottom blobs, but takes 1 to 2"),
        ('"Bias" bias_param { axis: -3 }', [(2, 3)], "axis: -3 is out of range"),
        ('"Bias"', [(2, 3), (2, 3)], r"is not 2×3 from axis 1 on"),
    ],
)
def test_bad_options(prototxt, shapes, says):
    with pytest.raises(LayerError, match=says):
        gl.build(f"type: {prototxt}", *shapes)


@pytest.mark.parametrize("index", [-1, 5])
def test_embed_of_an_index_that_does_not_exist(index):
    layer = gl.build('name: "words" type: "Embed" embed_param { num_output: 2 input_dim: 5 }', (2,))
    with pytest.raises(
        LayerError, match=rf'layer "words" \(Embed\): index {index}, value 1 of its bottom, is outside 0 … 4'
    ):
        layer(torch.tensor([0.0, index]))


def test_other_bottoms_than_it_was_made_for():
    """A size of 1 is not broadcast silently after a reshape."""
    with pytest.raises(LayerError, match="from axis 1 on"):
        gl.build('type: "Scale"', (2, 3, 4))(torch.ones(2, 1, 4))
