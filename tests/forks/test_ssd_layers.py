"""The layers of SSD's Caffe, and of the forks that took them over, against its own numbers."""

import io

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.proto.recognise import forks_of


@pytest.mark.parametrize("name", gl.names("permute_", folder="forks"))
def test_permute_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


def test_permute_has_its_gradient() -> None:
    layer = gl.build('name: "p" type: "Permute" permute_param { order: 2 order: 0 }', (2, 3, 4))
    gl.check_gradients(layer, torch.randn(2, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize(
    ("order", "words"),
    [("order: 3", "order: 3 is not one of the 3 axes"), ("order: 1 order: 1", "names axis 1 2 times")],
)
def test_permute_refuses_a_bad_order(order: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "p" type: "Permute" permute_param {{ {order} }}', (2, 3, 4))


@pytest.mark.parametrize("name", gl.names("normalize_", "priorbox_", "detout_", folder="forks"))
def test_inference_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


@pytest.mark.parametrize("options", ["", "channel_shared: false", "across_spatial: false"])
def test_normalize_has_its_gradient(options: str) -> None:
    filler = (
        'scale_filler { type: "constant" value: 3 }'  # where all scales are equal the fork's gradient is the true one
    )
    text = f'name: "n" type: "Normalize" norm_param {{ {options} {filler if "channel" not in options else ""} }}'
    layer = gl.build(text, (2, 3, 2, 2), dtype=torch.float64)
    gl.check_gradients(layer, torch.randn(2, 3, 2, 2, dtype=torch.float64))


def test_normalize_passes_the_forks_gradient_with_a_scale_per_channel() -> None:
    layer = gl.build(
        'name: "n" type: "Normalize" norm_param { across_spatial: false channel_shared: false eps: 0 }', (1, 2)
    )
    layer.set_blob(0, torch.tensor([2.0, 3.0]))
    x = torch.tensor([[3.0, 4.0]], requires_grad=True)
    layer(x).backward(torch.tensor([[1.0, 0.0]]))
    # scale * (dy - x * sum(x * dy) / 25) / 5; the true gradient of the second is -0.192
    torch.testing.assert_close(x.grad, torch.tensor([[2 * (1 - 9 / 25) / 5, 3 * (-12 / 25) / 5]]))


def test_a_traced_normalize_needs_no_python() -> None:
    layer = gl.build('name: "n" type: "Normalize" norm_param { channel_shared: false }', (1, 3, 2, 2))
    x, file = torch.randn(1, 3, 2, 2), io.BytesIO()
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(layer, x), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(x), layer(x))


def test_clustered_priors_have_their_own_sizes() -> None:
    layer = gl.build(
        'name: "p" type: "PriorBoxClustered" prior_box_param '
        "{ width: 10.5 height: 4 width: 2 height: 30 step_w: 8 step_h: 16 variance: 0.1 variance: 0.2 variance: 0.3 "
        "variance: 0.4 clip: true flip: false }",
        *((1, 3, 2, 1), (1, 3, 40, 20)),
    )
    boxes, variances = layer(torch.zeros(1, 3, 2, 1), torch.zeros(1, 3, 40, 20))[0]
    corners = [(4, y, w, h) for y in (8, 24) for w, h in ((10.5, 4), (2, 30))]
    want = torch.tensor(
        [[(x - w / 2) / 20, (y - h / 2) / 40, (x + w / 2) / 20, (y + h / 2) / 40] for x, y, w, h in corners]
    )
    torch.testing.assert_close(boxes.view(-1, 4), want.clamp(0, 1))
    assert variances.view(-1, 4).unique(dim=0).tolist() == [pytest.approx([0.1, 0.2, 0.3, 0.4])]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "min_size is missing"),
        ("min_size: 0", "min_size: 0 must be above 0"),
        ("min_size: 30 max_size: 20", "max_size: 20 must be larger than its min_size, 30"),
        ("min_size: 30 min_size: 40 max_size: 50", "2 min_size and 1 max_size"),
        ("min_size: 30 variance: 1 variance: 2", "variance is given 2 times; give 1 for all sides, or 4"),
        ("min_size: 30 variance: -1", "variance: -1 must be above 0"),
        ("min_size: 30 step: 8 step_h: 8", "give either step or step_h and step_w"),
        ("min_size: 30 img_h: 8", "img_w: 0 must be above 0"),
        ("min_size: 30 aspect_ratio: 0", "aspect_ratio: 0 must be above 0"),
        ("min_size: 30 width: 5", 'width is for the type "PriorBoxClustered"'),
    ],
)
def test_prior_box_refuses_bad_options(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "p" type: "PriorBox" prior_box_param {{ {options} }}', (1, 1, 2, 2), (1, 3, 8, 8))


def test_textboxes_has_each_box_twice_and_is_known_by_its_heads() -> None:
    """prior_box_layer.cpp of MhLiao/TextBoxes, place by place, in a net that no type or field tells from SSD's."""
    prior = "prior_box_param { min_size: 10.5 max_size: 20 aspect_ratio: 5 flip: false variance: 0.1 }"
    net = """
        layer {{ name: "in" type: "Input" top: "data" top: "x" input_param {{
          shape {{ dim: 1 dim: 3 dim: 24 dim: 48 }} shape {{ dim: 1 dim: 2 dim: 3 dim: 4 }} }} }}
        layer {{ name: "l" type: "Convolution" bottom: "x" top: "l" convolution_param {{ num_output: {loc} kernel_size: 1 }} }}
        layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {{ num_output: {conf} kernel_size: 1 }} }}
        layer {{ name: "fl" type: "Flatten" bottom: "l" top: "fl" }}
        layer {{ name: "fc" type: "Flatten" bottom: "c" top: "fc" }}
        layer {{ name: "p" type: "PriorBox" bottom: "x" bottom: "data" top: "p" {prior} }}
        layer {{ name: "d" type: "DetectionOutput" bottom: "fl" bottom: "fc" bottom: "p" top: "d"
          detection_output_param {{ num_classes: 2 }} }}
    """
    for loc, conf, fork in ((24, 12, "textboxes"), (12, 6, "ssd")):
        text = net.format(loc=loc, conf=conf, prior=prior)
        param = parse_text(text, caffe_pb2.NetParameter())
        assert forks_of(param)[0] == fork
        made = Net(param, "TEST").run({"data": torch.zeros(1, 3, 24, 48), "x": torch.zeros(1, 2, 3, 4)})[0]["p"]
        want = []
        for h in range(3):
            for w in range(4):
                for width, height in ((10.5, 10.5), (210**0.5,) * 2, (10.5 * 5**0.5, 10.5 / 5**0.5)):
                    for down in (0.5, 1):
                        x, y = (w + 0.5) * 12, (h + down) * 8
                        box = [(x - width / 2) / 48, (y - height / 2) / 24, (x + width / 2) / 48, (y + height / 2) / 24]
                        want.append([min(max(side, 0), 1) for side in box])
        if fork == "textboxes":
            torch.testing.assert_close(made[0, 0].reshape(-1, 4), torch.tensor(want))
        assert made.shape == (1, 2, len(want) * 4 // (1 if fork == "textboxes" else 2))


def test_faceboxes_has_dense_boxes_and_is_known_by_its_heads() -> None:
    """prior_box_layer.cpp of sfzhang15/FaceBoxes, place by place, in a net that no type or field tells from SSD's."""
    net = """
        layer {{ name: "in" type: "Input" top: "data" top: "x" input_param {{
          shape {{ dim: 1 dim: 3 dim: 64 dim: 96 }} shape {{ dim: 1 dim: 2 dim: 2 dim: 3 }} }} }}
        layer {{ name: "l" type: "Convolution" bottom: "x" top: "l" convolution_param {{ num_output: {} kernel_size: 1 }} }}
        layer {{ name: "p" type: "PriorBox" bottom: "x" bottom: "data" top: "p" prior_box_param {{
          min_size: 32 min_size: 64 min_size: 128 step: 32 offset: 0.5 }} }}
        layer {{ name: "q" type: "PriorBox" bottom: "l" bottom: "data" top: "q" prior_box_param {{
          min_size: 20 aspect_ratio: 4 }} }}
    """
    for heads, fork in ((84, "faceboxes"), (12, "ssd")):
        param = parse_text(net.format(heads), caffe_pb2.NetParameter())
        assert forks_of(param)[0] == fork
        made = Net(param, "TEST").run({"data": torch.zeros(1, 3, 64, 96), "x": torch.zeros(1, 2, 2, 3)})[0]
        want = []
        for h in range(2):
            for w in range(3):
                for size, steps in ((32, (-16, -8, 0, 8)), (64, (-16, 0)), (128, (0,))):
                    steps, half = (steps, (size - 1) / 2) if fork == "faceboxes" else ((0,), size / 2)
                    for y in steps:
                        for x in steps:
                            cx, cy = w * 32 + 16 + x, h * 32 + 16 + y
                            want.append([(cx - half) / 96, (cy - half) / 64, (cx + half) / 96, (cy + half) / 64])
        torch.testing.assert_close(made["p"][0, 0].reshape(-1, 4), torch.tensor(want))
        first, wide, tall = made["q"][0, 0].reshape(-1, 4)[:3] * torch.tensor([96, 64, 96, 64])
        assert round((first[2] - first[0]).item()) == (19 if fork == "faceboxes" else 20)
        assert round((wide[2] - wide[0]).item()) == 40 and round((tall[2] - tall[0]).item()) == 10
    with pytest.raises(LayerError, match="three sizes, are for min_size 32, 64 and 128"):
        text = net.format(84).replace("min_size: 128", "min_size: 128 max_size: 40 max_size: 80 max_size: 150")
        Net(parse_text(text, caffe_pb2.NetParameter()), "TEST")
