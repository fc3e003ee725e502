"""C3D's layers of videos, in nets of both versions, and the caffemodels of version 1.0."""

from __future__ import annotations

import itertools
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, read_weights, wire

SHAPE = (2, 2, 4, 5, 6)
NEWER = "num_output: 3 kernel_size: 3 kernel_depth: 2 stride: 2 temporal_stride: 1 pad: 1 temporal_pad: 1"
FILLERS = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'


def build(type_name: str, options: str, shape: tuple[int, ...] = SHAPE) -> Layer:
    return gl.build(f'name: "v" type: "{type_name}" {options}', shape, dtype=torch.float64)


@pytest.mark.parametrize("field", ["convolution_param", "convolution3d_param"])
def test_convolutions_of_videos(field: str) -> None:
    x = torch.randn(SHAPE, dtype=torch.float64)
    layer = build("Convolution3D", f"{field} {{ {NEWER} {FILLERS} filter_group: 3 }}")
    assert [tuple(blob.shape) for blob in layer.blobs] == [(3, 2, 2, 3, 3), (1, 1, 1, 1, 3)]
    want = F.conv3d(x, layer.blob(0), layer.blob(1).flatten(), (1, 2, 2), (1, 1, 1))
    torch.testing.assert_close(layer(x), want)
    assert layer.sizes(SHAPE[2:]) == list(want.shape[2:])
    back = build("Deconvolution3D", f"{field} {{ {NEWER} {FILLERS} }}")
    assert back.blob(0).shape == (2, 3, 2, 3, 3)
    want = F.conv_transpose3d(x, back.blob(0), back.blob(1).flatten(), (1, 2, 2), (1, 1, 1))
    torch.testing.assert_close(back(x), want)
    gl.check_gradients(layer, x)


@pytest.mark.parametrize("type_name", ["Convolution3D", "Deconvolution3D"])
def test_bias_term_of_the_field_that_the_fork_reads(type_name: str) -> None:
    """LayerSetUp of deconvolution3d_layer.cpp, version 1.1: a net with bias_term: false in the newer field has two blobs."""
    newer, older = (f"{field} {{ {NEWER} bias_term: false }}" for field in ("convolution3d_param", "convolution_param"))
    both = f"{newer} convolution_param {{ bias_term: false }}"
    has = [len(build(type_name, options).blobs) for options in (newer, older, both)]
    assert has == ([2, 1, 1] if type_name == "Deconvolution3D" else [1, 1, 1])


@pytest.mark.parametrize(
    ("options", "kernel", "stride", "pad"),
    [
        ("kernel_size: 2 kernel_depth: 1 stride: 2", (1, 2, 2), (1, 2, 2), 0),
        ("kernel_size: 2 kernel_depth: 2 stride: 2 temporal_stride: 2", (2, 2, 2), (2, 2, 2), 0),
        ("kernel_size: 3 kernel_depth: 3 stride: 2 temporal_stride: 2", (3, 3, 3), (2, 2, 2), 0),
        ("pool: AVE kernel_size: 3 kernel_depth: 3 stride: 2 temporal_stride: 2 pad: 1", (3, 3, 3), (2, 2, 2), 1),
    ],
)
@pytest.mark.parametrize("field", ["pooling_param", "pooling3d_param"])
def test_pooling_of_videos(
    field: str, options: str, kernel: tuple[int, ...], stride: tuple[int, ...], pad: int
) -> None:
    """Forward_cpu and Backward_cpu of pool3d_layer.cpp; small whole numbers, so that many are equal."""
    layer = build("Pooling3D", f"{field} {{ {options} }}")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, SHAPE).astype(float)
    size, pads = SHAPE[2:], (0, pad, pad)
    out = [-(-(n + 2 * p - k) // s) + 1 for n, k, s, p in zip(size, kernel, stride, pads, strict=True)]
    y, dx, dy = np.zeros((*SHAPE[:2], *out)), np.zeros(SHAPE), rng.standard_normal((*SHAPE[:2], *out))
    for at in itertools.product(*map(range, out)):
        first = [i * s - p for i, s, p in zip(at, stride, pads, strict=True)]
        end = [min(f + k, n + p) for f, k, n, p in zip(first, kernel, size, pads, strict=True)]
        places = np.prod([e - f for e, f in zip(end, first, strict=True)])
        box = (..., *(slice(max(f, 0), min(e, n)) for f, e, n in zip(first, end, size, strict=True)))
        values, here = x[box].reshape(*SHAPE[:2], -1), (slice(None), slice(None), *at)
        if "AVE" in options:
            y[here] = values.sum(2) / places
            dx[box] += (dy[here] / places)[..., None, None, None]
        else:
            y[here] = values.max(2)
            dx[box] += (x[box] == y[here][..., None, None, None]) * dy[here][..., None, None, None]
    bottom = torch.from_numpy(x).requires_grad_()
    top = layer(bottom)
    np.testing.assert_allclose(top.detach(), y)
    top.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(bottom.grad, dx, atol=1e-12)


@pytest.mark.parametrize(
    ("type_name", "options", "words"),
    [
        ("Pooling3D", "pooling3d_param { kernel_size: 2 kernel_depth: 2 pad: 1 }", "only AVE pads"),
        ("Pooling3D", "pooling_param { kernel_size: 2 }", "pooling_param.kernel_depth: 0 must be at least 1"),
        (
            "Pooling3D",
            "pooling_param { pool: STOCHASTIC kernel_size: 2 kernel_depth: 1 }",
            "STOCHASTIC never ran in C3D",
        ),
        ("Pooling3D", "pooling_param { kernel_size: 7 kernel_depth: 1 }", "larger than the input's height 5"),
        (
            "Convolution3D",
            "convolution_param { num_output: 1 kernel_size: [3, 2] kernel_depth: 1 }",
            "is given 2 times",
        ),
        (
            "Convolution3D",
            "convolution3d_param { num_output: 1 kernel_size: 7 kernel_depth: 1 }",
            "is too large for a bottom of",
        ),
        ("Convolution3D", "convolution3d_param { kernel_size: 1 kernel_depth: 1 }", "num_output: 0 must be at least 1"),
    ],
)
def test_what_cannot_be(type_name: str, options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        build(type_name, options)


def test_videos_need_five_axes() -> None:
    with pytest.raises(LayerError, match=r"needs a bottom \(N, C, length, height, width\), not of shape 1×2×3×4"):
        build("Convolution3D", f"convolution3d_param {{ {NEWER} }}", (1, 2, 3, 4))


def test_l2_normalize() -> None:
    x = torch.randn(2, 3, 2, dtype=torch.float64)
    layer = build("L2Normalize", "", (2, 3, 2))
    torch.testing.assert_close(layer(x), x / (x.square().sum((1, 2), keepdim=True) + 1e-7).sqrt())
    gl.check_gradients(layer, x)


NET = """input: "x" input_shape { dim: 1 dim: 2 dim: 2 dim: 4 dim: 4 }
layers { name: "c" type: CONVOLUTION3D bottom: "x" top: "c" blobs_lr: 1 blobs_lr: 2
         convolution_param { num_output: 3 kernel_size: 3 kernel_depth: 3 pad: 1 temporal_pad: 1 } }
layers { name: "r" type: RELU bottom: "c" top: "c" }
layers { name: "p" type: POOLING3D bottom: "c" top: "p"
         pooling_param { kernel_size: 2 kernel_depth: 2 stride: 2 temporal_stride: 2 } }
layers { name: "f" type: INNER_PRODUCT bottom: "p" top: "f" inner_product_param { num_output: 4 } }"""


def test_caffemodels_of_version_1_0_are_read(tmp_path: Path) -> None:
    """Its BlobProto has length 3, height 4, width 5, data 6 and diff 7."""
    rng = np.random.default_rng(0)
    blobs = {"c": [(3, 2, 3, 3, 3), (1, 1, 1, 1, 3)], "f": [(1, 1, 1, 4, 12), (1, 1, 1, 1, 4)]}
    values = {name: [rng.standard_normal(s).astype(np.float32) for s in shapes] for name, shapes in blobs.items()}

    def message(number: int, body: bytes) -> bytes:
        return wire.header(number, len(body)) + body

    def blob(array: np.ndarray) -> bytes:
        dims = b"".join(bytes([(i + 1) << 3, n]) for i, n in enumerate(array.shape))
        return dims + message(6, array.tobytes()) + message(7, b"\0" * array.nbytes)

    layers = b"".join(
        message(2, message(4, name.encode()) + b"".join(message(6, blob(a)) for a in arrays))
        for name, arrays in values.items()
    )
    path = tmp_path / "c3d.caffemodel"
    path.write_bytes(layers)
    assert read_weights(path).shapes("c") == blobs["c"]
    net = Net(parse_text(NET, caffe_pb2.NetParameter), "TEST", weights=path)
    assert net.layers["c"].fork == "c3d"
    x = torch.randn(1, 2, 2, 4, 4)
    (conv, bias), (weight, more) = ([torch.from_numpy(a) for a in arrays] for arrays in values.values())
    y = F.max_pool3d(F.relu(F.conv3d(x, conv, bias.flatten(), 1, 1)), 2)
    torch.testing.assert_close(net(x=x)["f"], F.linear(y.flatten(1), weight[0, 0, 0], more.flatten()))


def test_video_caffes_layers_have_a_size_for_each_axis() -> None:
    """cudnn_ndconv_layer.cpp and cudnn_ndpooling_layer.cpp of chuckcho/video-caffe."""
    x = torch.randn(SHAPE, dtype=torch.float64)
    sizes = (
        "kernel_shape { dim: 2 dim: 3 dim: 1 } stride_shape { dim: 1 dim: 2 dim: 3 } pad_shape { dim: 1 dim: 0 dim: 2 }"
    )
    layer = build("NdConvolution", f"convolution_param {{ num_output: 4 group: 2 {sizes} {FILLERS} }}")
    assert [tuple(blob.shape) for blob in layer.blobs] == [(4, 1, 2, 3, 1), (4,)]
    torch.testing.assert_close(layer(x), F.conv3d(x, *layer.blobs, (1, 2, 3), (1, 0, 2), groups=2))
    sizes = "kernel_shape { dim: 1 dim: 2 dim: 2 } stride_shape { dim: 1 dim: 2 dim: 2 }"
    pool = build("NdPooling", f"pooling_param {{ pool: MAX {sizes} }}")
    torch.testing.assert_close(pool(x), F.max_pool3d(x, (1, 2, 2), ceil_mode=True))
    whole = build("NdPooling", "pooling_param { pool: AVE global_pooling: true kernel_shape { dim: 1 dim: 1 dim: 1 } }")
    torch.testing.assert_close(whole(x).flatten(2), x.flatten(2).mean(2, keepdim=True))
    with pytest.raises(LayerError, match=r'"v" \(NdPooling\): pooling_param has no kernel_shape'):
        build("NdPooling", "pooling_param { pool: MAX }")
    with pytest.raises(LayerError, match=r"convolution_param.pad_shape has 1 sizes, but kernel_shape 3"):
        build("NdConvolution", "convolution_param { kernel_shape { dim: 1 dim: 1 dim: 1 } pad_shape { dim: 1 } }")
