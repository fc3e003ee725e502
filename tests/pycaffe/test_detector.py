"""Detector: windows that a program of the user's proposes."""

from __future__ import annotations

import sys
from pathlib import Path

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


def test_selective_search_is_asked_where_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    caffe.Net("net.prototxt", caffe.TEST).save("net.caffemodel")
    image = np.zeros((8, 9, 3), np.uint8)
    image[4:, 4:] = 255
    cv2.imwrite("a.png", image)
    detector = caffe.Detector("net.prototxt", "net.caffemodel")
    with pytest.raises(CaffeError, match=r"selective_search_ijcv_with_python .*is not here"):
        detector.detect_selective_search(["a.png"])

    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "selective_search_ijcv_with_python.py").write_text(SEARCH)
    dark, light = detector.detect_selective_search(["a.png"])
    monkeypatch.delitem(sys.modules, "selective_search_ijcv_with_python")
    assert dark["filename"] == light["filename"] == str(tmp_path / "a.png")
    assert dark["prediction"].ravel().tolist() == [0, 0, 0] and light["prediction"].ravel().tolist() == [1, 1, 1]
