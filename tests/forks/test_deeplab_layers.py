"""DeepLab's layers for weak labels, planes and MATLAB files, against the formulas of their sources, written out as loops."""

from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch
from scipy.io import loadmat

from pycaffe_compat.errors import LayerError, MissingFileError


@pytest.mark.parametrize(("begin", "end"), [(1, 2), (-1, -2), (0, -3), (0, 0)])
def test_padding_pads_and_crops(begin: int, end: int) -> None:
    layer = gl.build(f'type: "Padding" padding_param {{ pad_beg: {begin} pad_end: {end} }}', (2, 3, 5, 6))
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    want = np.zeros((2, 3, 5 + begin + end, 6 + begin + end))
    for h, w in np.ndindex(*want.shape[2:]):
        if 0 <= h - begin < 5 and 0 <= w - begin < 6:
            want[:, :, h, w] = x[:, :, h - begin, w - begin]
    np.testing.assert_array_equal(layer(x), want)
    gl.check_gradients(layer, x)


def test_unique_labels() -> None:
    text = 'type: "UniqueLabel" unique_label_param { max_labels: 5 ignore_label: 255 force_label: 0 force_label: 7 }'
    layer = gl.build(text, (2, 1, 2, 3))
    label = torch.tensor([[3.0, 3, 255, 1, 0, 3], [255, 255, 255, 255, 255, 255]]).reshape(2, 1, 2, 3)
    top = layer(label)
    assert top.shape == (2, 5, 1, 1) and top.flatten(1).tolist() == [[0, 1, 3, 7, -1], [0, 7, -1, -1, -1]]
    with pytest.raises(LayerError, match=r"an image has 7 labels, more than unique_label_param.max_labels: 5"):
        layer(torch.arange(12.0).reshape(2, 1, 2, 3))


@pytest.mark.parametrize(
    "options", ["", "bg_bias: 0.5", "background_label: 2 fg_bias: 3", "bg_bias: 1 ignore_label: 3"]
)
@pytest.mark.parametrize("kind", ["IMAGE", "PIXEL"])
def test_bias_of_channels(kind: str, options: str) -> None:
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((2, 4, 3, 2)))
    label = torch.from_numpy(rng.integers(-1, 4, (2, 1, 3, 2) if kind == "PIXEL" else (2, 3, 1, 1)).astype(float))
    layer = gl.build(f'type: "BiasChannel" bias_channel_param {{ label_type: {kind} {options} }}', x.shape, label.shape)
    words = options.split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    bg, fg = float(given.get("bg_bias:", 1)), float(given.get("fg_bias:", 2))
    background = int(given.get("background_label:", 0)) if kind == "PIXEL" else 0
    ignored = {-1, int(given.get("ignore_label:", -1))}
    want = x.numpy().copy()
    for n, c, h, w in np.ndindex(*label.shape):
        at = int(label[n, c, h, w])
        if at in ignored:
            continue
        if kind == "IMAGE":
            want[n, at] += bg if at == 0 else fg
            continue
        if {"bg_bias:", "background_label:"} & set(given):
            want[n, background, h, w] += bg
            want[n, at, h, w] += fg if at != background else 0
        else:
            want[n, at, h, w] += fg
    np.testing.assert_allclose(layer(x, label), want)


def test_a_label_without_a_channel_is_named() -> None:
    layer = gl.build('type: "BiasChannel"', (1, 3, 2, 2), (1, 2, 1, 1))
    with pytest.raises(LayerError, match="label 9 is not a class: there are 3"):
        layer(torch.zeros(1, 3, 2, 2), torch.tensor([1.0, 9]).reshape(1, 2, 1, 1))


def test_spatial_product() -> None:
    layer = gl.build('type: "SpatialProduct"', (2, 3, 4, 5), (2, 1, 4, 5))
    x, plane = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 1, 4, 5, dtype=torch.float64)
    assert torch.equal(layer(x, plane)[1, 2], x[1, 2] * plane[1, 0])
    gl.check_gradients(layer, x, plane)


def test_mat_files_have_matlabs_order_and_the_names_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg more\nb.jpg\nc.jpg\n")
    options = f'prefix: "{tmp_path}/fc8/" source: "{tmp_path}/list.txt" strip: 4 period: 2'
    layer = gl.build(f'type: "MatWrite" mat_write_param {{ {options} }}', (1, 2, 3, 4), (1, 2))
    values = [torch.randn(1, 2, 3, 4) for _ in range(3)]
    for value in values[:2]:
        assert layer(value, torch.ones(1, 2)) == ()
    state, layer = layer.state(), gl.build(f'type: "MatWrite" mat_write_param {{ {options} }}', (1, 2, 3, 4), (1, 2))
    layer.seek(state)  # a run that is resumed goes on in the list
    layer(values[2], torch.ones(1, 2))
    assert sorted(path.name for path in (tmp_path / "fc8").iterdir()) == [
        f"{name}_blob_{i}.mat" for name in "ac" for i in (0, 1)
    ]
    for name, value in (("a", values[0]), ("c", values[2])):
        data = loadmat(tmp_path / "fc8" / f"{name}_blob_0.mat")["data"]
        assert data.dtype == np.float32 and data.shape == (4, 3, 2, 1)
        np.testing.assert_array_equal(data[..., 0], value[0].numpy().transpose(2, 1, 0))
    layer(values[0], torch.ones(1, 2))
    with pytest.raises(LayerError, match=r"pass 5 has no name: mat_write_param.source has 3"):
        layer(values[0], torch.ones(1, 2))


def test_mat_files_without_a_list_have_numbers(tmp_path: Path) -> None:
    layer = gl.build(f'type: "MatWrite" mat_write_param {{ prefix: "{tmp_path}/x_" }}', (2, 2))
    for _ in range(2):
        layer(torch.ones(2, 2))
    assert {path.name for path in tmp_path.iterdir()} == {"x_iter_0_blob_0.mat", "x_iter_1_blob_0.mat"}


def test_a_list_of_names_is_read_with_the_first_pass(tmp_path: Path) -> None:
    text = f'type: "MatWrite" mat_write_param {{ prefix: "{tmp_path}/" source: "{tmp_path}/none" strip: 9 }}'
    layer = gl.build(text, (1, 3))
    with pytest.raises(MissingFileError, match=r"mat_write_param.source of layer .* not found"):
        layer(torch.zeros(1, 3))
    (tmp_path / "none").write_text("short\n")
    with pytest.raises(LayerError, match="strip: 9 leaves nothing of short"):
        layer(torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        ('"Padding" padding_param { pad_beg: 1 pad_end: -1 }', [(1, 1, 4, 4)], "must not have different signs"),
        ('"Padding" padding_param { pad_beg: -2 pad_end: -2 }', [(1, 1, 4, 9)], "leave nothing of planes of 4×9"),
        (
            '"UniqueLabel" unique_label_param { max_labels: 1 force_label: 2 }',
            [(1, 1, 4, 4)],
            "max_labels: 1 must be more",
        ),
        ('"UniqueLabel" unique_label_param { max_labels: 1 }', [(1, 2, 4, 4)], "needs labels"),
        ('"BiasChannel"', [(1, 3, 4, 4), (1, 1, 4, 4)], r"labels \(num, labels, 1, 1\)"),
        ('"BiasChannel" bias_channel_param { label_type: PIXEL }', [(1, 3, 4, 4), (1, 2, 1, 1)], "height, width"),
        ('"BiasChannel" bias_channel_param { bg_bias: -1 }', [(1, 3, 4, 4), (1, 2, 1, 1)], "must not be negative"),
        ('"SpatialProduct"', [(1, 3, 4, 4), (1, 3, 4, 4)], "needs bottoms"),
        ('"MatWrite" mat_write_param { prefix: "a" period: 0 }', [(1, 3)], "period: 0 must be at least 1"),
    ],
)
def test_faults_are_named(text: str, shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises((LayerError, MissingFileError), match=words):
        gl.build(f"type: {text}", *shapes)
