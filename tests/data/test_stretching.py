"""Random sizes of NVIDIA's Caffe: within their bounds, crops, records of any size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pycaffe_compat.data.stretching import Stretching
from pycaffe_compat.data.transformer import Transformer
from pycaffe_compat.errors import DataError
from pycaffe_compat.proto import caffe_pb2, parse_text, write_message

SIZE = "img_rand_resize_lower: 20 img_rand_resize_upper: 24"


def param(text: str) -> object:
    return parse_text(text, caffe_pb2.TransformationParameter)


def sizes(text: str, height: int, width: int) -> np.ndarray:
    stretching = Stretching(param(text))
    return np.array([stretching.size(height, width, word) for word in range(400)])


def test_the_shorter_side_has_a_random_size() -> None:
    made = sizes(SIZE, 40, 80)
    assert set(made[:, 0]) == {20, 21, 22, 23, 24}
    np.testing.assert_array_equal(made[:, 1], made[:, 0] * 2)
    assert set(map(tuple, sizes(SIZE, 10, 12))) == {(10, 12)}  # nothing becomes larger
    assert set(sizes(SIZE + " allow_upscale: true", 10, 20)[:, 0]) == {20, 21, 22, 23, 24}
    assert sizes(SIZE + " crop_size: 23", 40, 60)[:, 0].min() == 23


def test_shapes_are_random_within_their_bounds() -> None:
    text = "img_rand_resize_lower: 30 img_rand_resize_upper: 30"
    ratio = sizes(text + " rand_resize_ratio_lower: 1 rand_resize_ratio_upper: 1.2", 40, 60)
    assert (ratio[:, 0] == 30).all() and ratio[:, 1].min() == 30 and ratio[:, 1].max() == 36
    square = sizes(text + " rand_resize_ratio_lower: 1 rand_resize_ratio_upper: 1.2", 40, 40)
    assert {tuple(row > 30) for row in square} == {(False, False), (True, False), (False, True)}
    tall = sizes(text + " vertical_stretch_lower: 0.8 vertical_stretch_upper: 1.1", 40, 60)
    assert (tall[:, 1] == 45).all() and tall[:, 0].min() == 24 and tall[:, 0].max() == 33
    wide = sizes("horizontal_stretch_lower: 0.5 horizontal_stretch_upper: 1", 40, 60)
    assert (wide[:, 0] == 40).all() and wide[:, 1].min() == 30 and wide[:, 1].max() == 60


@pytest.mark.parametrize(("algorithm", "mode"), [("INTER_NEAREST", cv2.INTER_NEAREST), ("INTER_AREA", cv2.INTER_AREA)])
def test_pictures_are_resized_before_they_are_cropped(algorithm: str, mode: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    options = f"{SIZE} interpolation_algo_down: {algorithm} crop_size: 16"
    transformer = Transformer(param(options), caffe_pb2.TEST)
    assert transformer.random
    words = (0, 0, 0, 9, 0, 0)
    made = transformer.prepared(picture.transpose(2, 0, 1), words)
    height, width = Stretching(param(options)).size(40, 60, 9)
    np.testing.assert_array_equal(made, cv2.resize(picture, (width, height), interpolation=mode).transpose(2, 0, 1))
    out = np.empty((3, 16, 16), np.float32)
    transformer(made, words, out)
    top, left = (height - 16) // 2, (width - 16) // 2
    np.testing.assert_array_equal(out, made[:, top : top + 16, left : left + 16])


def test_a_mean_image_is_that_of_the_crop(tmp_path: Path) -> None:
    mean = np.random.default_rng(1).random((3, 20, 22), dtype=np.float32)
    blob = caffe_pb2.BlobProto(channels=3, height=20, width=22, num=1, data=mean.flatten().tolist())
    write_message(tmp_path / "mean.binaryproto", blob)
    options = f'{SIZE} crop_size: 16 mean_file: "{tmp_path / "mean.binaryproto"}"'
    transformer = Transformer(param(options), caffe_pb2.TRAIN)
    picture = np.random.default_rng(0).integers(0, 256, (3, 24, 30), dtype=np.uint8)
    windows, out = np.array([[5, 7, 0]], np.int32), torch.empty(1, 3, 16, 16)
    assert transformer.check(picture.shape) == (3, 16, 16)
    want = picture[:, 5:21, 7:23] - mean[:, 2:18, 3:19]
    transformer.transform([picture], windows, out)
    np.testing.assert_allclose(out[0], want, rtol=1e-6)
    cut = torch.from_numpy(picture[None, :, 5:21, 7:23].copy())
    np.testing.assert_allclose(transformer.finish(cut, torch.from_numpy(windows))[0], want, rtol=1e-6)
    with pytest.raises(DataError, match="smaller than crops of 21 × 21"):
        Transformer(param(options.replace("crop_size: 16", "crop_size: 21")), caffe_pb2.TRAIN)


def test_what_cannot_be() -> None:
    with pytest.raises(DataError, match="img_rand_resize_upper: 3 must not be below img_rand_resize_lower: 5"):
        Stretching(param("img_rand_resize_lower: 5 img_rand_resize_upper: 3"))
    assert not Stretching.wanted(param("crop_size: 3")) and Stretching.wanted(param("vertical_stretch_upper: 1"))
