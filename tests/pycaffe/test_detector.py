"""Detector: windows that a program of the user's proposes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import pycaffe_compat as caffe
from pycaffe_compat.errors import CaffeError

NET = """
input: "data" input_shape { dim: 1 dim: 3 dim: 6 dim: 6 }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean" pooling_param { pool: AVE global_pooling: true } }
"""
SEARCH = """
import os
import numpy as np

def get_windows(files, cmd):
    assert cmd == "selective_search_rcnn" and all(map(os.path.isabs, files))
    return [np.array([[0, 0, 4, 4], [4, 4, 8, 9]]) for _ in files]
"""


def test_selective_search_is_used_if_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    caffe.Net("net.prototxt", caffe.TEST).save("net.caffemodel")
    image = np.zeros((8, 9, 3), np.uint8)
    image[4:, 4:] = 255
    cv2.imwrite("a.png", image)
    detector = caffe.Detector("net.prototxt", "net.caffemodel")
    with pytest.raises(CaffeError, match=r"selective_search_ijcv_with_python .*is not installed"):
        detector.detect_selective_search(["a.png"])

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "selective_search_ijcv_with_python.py").write_text(SEARCH)
    dark, light = detector.detect_selective_search(["a.png"])
    monkeypatch.delitem(sys.modules, "selective_search_ijcv_with_python")
    assert dark["filename"] == light["filename"] == str(tmp_path / "a.png")
    assert dark["prediction"].ravel().tolist() == [0, 0, 0] and light["prediction"].ravel().tolist() == [1, 1, 1]


def detector(folder: Path, height: int, width: int, **options: Any) -> caffe.Detector:
    (folder / "net.prototxt").write_text(NET.replace("dim: 6 dim: 6", f"dim: {height} dim: {width}"))
    prototxt, weights = str(folder / "net.prototxt"), str(folder / "net.caffemodel")
    caffe.Net(prototxt, caffe.TEST).save(weights)
    return caffe.Detector(prototxt, weights, **options)


def test_the_surroundings_of_a_window_fill_an_input_that_is_not_square(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
    wide = detector(tmp_path, 6, 12, context_pad=1, mean=np.array([0.1, 0.2, 0.3]))
    made = wide.crop(image, (1, 2, 10, 12))
    assert made.shape == (6, 12, 3)
    # on each side 1 of 6 and 1 of 12 pixels is context: the box is 6/4 times as high and 12/10 times as wide
    box_h, box_w = np.round(6 + 7.5) - np.round(6 - 7.5), np.round(7.5 + 6.6) - np.round(7.5 - 6.6)
    assert (box_h, box_w) == (16, 13)
    np.testing.assert_allclose(
        made[0], np.broadcast_to([0.1, 0.2, 0.3], (12, 3)), rtol=1e-6
    )  # above the image: the mean
    inside = image[0:14, 1:14]
    np.testing.assert_allclose(made[1:], cv2.resize(inside, (12, 5), interpolation=cv2.INTER_LINEAR), rtol=1e-5)
    tall = detector(tmp_path, 12, 6, context_pad=1, mean=np.array([0.1, 0.2, 0.3]))
    turned = tall.crop(np.ascontiguousarray(image.transpose(1, 0, 2)), (2, 1, 12, 10))
    np.testing.assert_allclose(turned.transpose(1, 0, 2), made, rtol=1e-5)


@pytest.mark.parametrize("pad", [3, -1, (1, 1), "1"])
def test_context_that_leaves_nothing_of_the_input_is_refused(pad: Any, tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match="context_pad"):
        detector(tmp_path, 12, 6, context_pad=pad)


@pytest.mark.parametrize(
    "images_windows, message",
    [
        (("a.png", [[0, 0, 4, 4]]), "takes a list of pairs .* not a str"),
        ({"a.png": [[0, 0, 4, 4]]}, "not a dict instead of the list"),
        ("a.png", "not a str instead of the list"),
        (["a.png"], "takes a list of pairs"),
        ([("a.png", [0, 0, 4, 4])], r"an array of shape \(4,\)"),
        ([("a.png", [[0, 0, 4]])], r"an array of shape \(1, 3\)"),
        ([("a.png", [[0, 0, 4, float("nan")]])], "four numbers expected"),
        ([("a.png", [[0, 0, 0, 4]])], "does not lie in the image"),
        ([("a.png", "0 0 4 4")], "windows of a.png: numbers expected"),
        ([("b.png", [[0, 0, 4, 4]])], r"image not found: b\.png"),
    ],
)
def test_anything_but_a_list_of_images_and_windows_is_refused(
    images_windows: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(CaffeError, match=message):
        detector(tmp_path, 6, 6).detect_windows(images_windows)


def test_rows_of_windows_come_back_as_they_were_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", np.zeros((8, 9, 3), np.uint8))
    rows = [(0, 0, 4, 4), (1, 1, 8, 9)]
    for windows in (rows, iter(rows)):
        found = detector(tmp_path, 6, 6).detect_windows([("a.png", windows), ["a.png", np.zeros((0, 4))]])
        assert [entry["window"] for entry in found] == rows
    assert detector(tmp_path, 6, 6).detect_windows([]) == []
