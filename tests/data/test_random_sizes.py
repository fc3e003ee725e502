"""Random sizes and margins of Intel's Caffe, by the formulas of intel/caffe, data_transformer.cpp."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pycaffe_compat.data.database import DatabaseWriter
from pycaffe_compat.data.random_sizes import RandomAspectRatio, RandomResize
from pycaffe_compat.data.transformer import Transformer
from pycaffe_compat.errors import DataError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

PICTURE = np.random.default_rng(0).integers(0, 256, (40, 61, 3), dtype=np.uint8)
CUBIC = "resize_param { interp_mode: CUBIC }"


def param(text: str) -> object:
    return parse_text(text, caffe_pb2.TransformationParameter)


def resize(options: str) -> RandomResize:
    return RandomResize(param(f"random_resize_param {{ {options} }}").random_resize_param)


def aspect(options: str, crop: int = 24) -> RandomAspectRatio:
    return RandomAspectRatio(param(f"random_aspect_ratio_param {{ {options} }}").random_aspect_ratio_param, crop)


def resized(picture: np.ndarray, height: int, width: int, mode: int = cv2.INTER_CUBIC) -> np.ndarray:
    return cv2.resize(picture, (width, height), interpolation=mode)


def test_the_shorter_side_is_drawn() -> None:
    draw = resize(f"min_size: 20 max_size: 23 {CUBIC}")
    made = {draw(PICTURE, word).shape[0]: draw(PICTURE, word) for word in range(100)}
    assert set(made) == {20, 21, 22, 23}
    for shorter, picture in made.items():
        np.testing.assert_array_equal(picture, resized(PICTURE, shorter, int(61 / 40 * shorter)))
    tall = PICTURE.transpose(1, 0, 2)
    np.testing.assert_array_equal(draw(tall, 0)[:, :, 0].shape, draw(PICTURE, 0).shape[1::-1])
    open_ended = {resize("")(PICTURE, word).shape[0] for word in range(400)}
    assert open_ended == set(range(40, 62))  # from the shorter side to the longer one


def test_parts_are_those_of_the_fork() -> None:
    draw = aspect(f"min_area_ratio: 0.08 aspect_ratio_change: 0.75 {CUBIC}")
    parts = [part for seed in range(3000) if (part := draw.part(40, 61, seed)) is not None]
    top, left, rows, columns = np.array(parts).T
    assert len(parts) > 2990
    assert (top + rows).max() == 40 and (left + columns).max() == 61 and min(top.min(), left.min()) == 0
    shares, shapes = rows * columns / (40 * 61), np.sqrt(rows / columns)
    # Sides are rounded down, so a share can be a little below 0.08.
    assert 0.06 < shares.min() < 0.09 and 0.85 < shares.max() <= 1
    assert shapes.min() < 0.78 and shapes.max() > 1.28 and shapes.min() > 0.7 and shapes.max() < 1.4
    # The fork draws the change from 0.75 to 1.333 and turns half of the parts: as many are tall as are wide.
    small = shares < 0.3
    assert abs((rows > columns)[small].mean() - (rows < columns)[small].mean()) < 0.08


def test_a_part_or_the_whole_is_resized() -> None:
    square = PICTURE[:, :40]
    np.testing.assert_array_equal(aspect(f"min_area_ratio: 1 {CUBIC}")(square, 5), resized(square, 24, 24))
    whole = aspect(f"max_attempt: 0 {CUBIC}")(PICTURE, 5)
    np.testing.assert_array_equal(whole, resized(PICTURE, 24, int(61 / 40 * 24)))


def test_a_part_is_cut_where_it_says() -> None:
    draw = aspect("min_area_ratio: 0.25 max_area_ratio: 0.25")
    found = False
    rows = columns = int(np.sqrt(610))
    made = draw(PICTURE, 3)
    for top in range(40 - rows + 1):
        for left in range(61 - columns + 1):
            cut = PICTURE[top : top + rows, left : left + columns]
            found |= np.array_equal(made, resized(cut, 24, 24, cv2.INTER_LINEAR))
    assert found


def margins(crop: np.ndarray, pad: int, means: list[float], scale: float, mirror: bool) -> np.ndarray:
    """The loop at the end of ``DataTransformer::Transform(const cv::Mat&, …)``, for ``crop`` (H×W×C)."""
    padded = np.pad(crop, ((pad, pad), (pad, pad), (0, 0)))
    height, width, channels = padded.shape
    top = np.empty((channels, height, width), np.float32)
    for h in range(height):
        for w in range(width):
            for c in range(channels):
                value = np.float32(padded[h, w, c])
                if not (h < pad or w < pad or h > height - pad or w > width - pad):
                    value = (value - np.float32(means[c] if means else 0)) * np.float32(scale)
                    value = np.rint(value) if means else value
                top[c, h, width - 1 - w if mirror else w] = value
    return top


@pytest.mark.parametrize("means", [[], [104.5, 117.25, 123.7]])
@pytest.mark.parametrize("pad", [1, 3])
def test_margins_are_those_of_the_fork(pad: int, means: list[float]) -> None:
    given = " ".join(f"mean_value: {mean}" for mean in means)
    transformer = Transformer(param(f"pad: {pad} crop_size: 8 mirror: true scale: 0.5 {given}"), caffe_pb2.TRAIN)
    planes = PICTURE.transpose(2, 0, 1)
    windows = np.array([[2, 5, 0], [32, 53, 1]], np.int32)
    crops = [PICTURE[top : top + 8, left : left + 8] for top, left, _ in windows]
    want = np.stack(
        [margins(crop, pad, means, 0.5, bool(flip)) for crop, (_, _, flip) in zip(crops, windows, strict=True)]
    )
    assert transformer.check(planes.shape) == want.shape[1:]
    assert transformer.window(planes, (32, 53, 1, 0, 0, 0), want.shape[1:]) == (32, 53, True)
    out, cut = torch.empty(want.shape), np.empty(want.shape, np.uint8)
    transformer.transform([planes, planes], windows, out)
    np.testing.assert_array_equal(out, want)
    for window, to in zip(windows, cut, strict=True):
        transformer.crop_bytes(planes, window, to)
    np.testing.assert_array_equal(transformer.finish(torch.from_numpy(cut), torch.from_numpy(windows)), want)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize(
    "options",
    [
        f"random_aspect_ratio_param {{ min_area_ratio: 0.08 aspect_ratio_change: 0.75 {CUBIC} }}",
        f"random_resize_param {{ min_size: 26 max_size: 30 {CUBIC} }} pad: 3",
    ],
)
def test_data_layers_take_them(tmp_path: Path, phase: str, options: str) -> None:
    with DatabaseWriter(tmp_path / "lmdb") as writer:
        for i, size in enumerate([(40, 61), (50, 44), (33, 90)]):
            picture = np.resize(PICTURE, (*size, 3))
            data = cv2.imencode(".png", picture)[1].tobytes()
            writer.put(b"%d" % i, caffe_pb2.Datum(data=data, encoded=True, label=i).SerializeToString())
    text = (
        f'layer {{ name: "d" type: "Data" top: "x" top: "y" data_param {{ source: "{tmp_path / "lmdb"}" batch_size: 3 '
        f"backend: LMDB }} transform_param {{ crop_size: 24 mirror: true mean_value: 100 {options} }} }}"
    )
    side = 30 if "pad" in options else 24
    batches = []
    for _ in range(2):
        torch.manual_seed(7)
        net = Net(parse_text(text, caffe_pb2.NetParameter()), phase)
        batches.append([net.draw()["x"].clone() for _ in range(2)])
    assert batches[0][0].shape == (3, 3, side, side)
    for first, again in zip(*batches, strict=True):
        assert torch.equal(first, again)
    assert not torch.equal(*batches[0])  # the same records again, changed in another way


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("random_resize_param { min_size: 5 }", "random_resize_param needs a crop_size"),
        ("crop_size: 4 random_resize_param { min_size: 5 max_size: 4 }", "max_size 4 is below min_size 5"),
        ("crop_size: 4 random_aspect_ratio_param { aspect_ratio_change: 1.5 }", "aspect_ratio_change: 1.5 must be"),
        ("crop_size: 4 random_aspect_ratio_param { min_area_ratio: 2 }", "min_area_ratio is 2 and max_area_ratio 1"),
        (
            "crop_size: 4 random_resize_param {} resize_param { height: 5 width: 5 }",
            "resize_param does not work with random_resize_param",
        ),
        ("crop_size: 4 random_resize_param {} noise_param {}", "noise_param does not work with random_resize_param"),
        ('pad: 1 mean_file: "m"', "pad does not work with mean_file"),
    ],
)
def test_what_cannot_be(options: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Transformer(param(options), caffe_pb2.TRAIN)


def test_pictures_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"is 40 × 61 .* asks for sizes from 80 to 61; give min_size and max_size"):
        resize("min_size: 80")(PICTURE)
    with pytest.raises(DataError, match="pad is for encoded images"):
        Transformer(param("pad: 1"), caffe_pb2.TEST).prepared(PICTURE.transpose(2, 0, 1), encoded=False)
