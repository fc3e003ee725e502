"""caffe-classify-onnx: the classes that the net itself finds, by either engine, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from exported_nets import CLASSIFIER, build_net

from pycaffe_compat.commands import classify_onnx
from pycaffe_compat.export import Preprocessing, to_onnx

HOW = Preprocessing(mean=(104, 117, 123), scale=0.01)


@pytest.fixture(autouse=True)
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A folder with a picture of the net's size, and the net as ``net.onnx`` and ``whole.onnx``."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (19, 17, 3), np.uint8)
    assert cv2.imwrite("cat.png", pixels)
    net = build_net(CLASSIFIER)
    to_onnx(net, "net.onnx", preprocessing=HOW)
    to_onnx(net, "whole.onnx", preprocessing=HOW, bake=True)
    return pixels


def scores_of(pixels: np.ndarray) -> np.ndarray:
    data = (pixels.transpose(2, 0, 1) - np.array(HOW.mean, "f4")[:, None, None]) * np.float32(HOW.scale)
    with torch.no_grad():
        return build_net(CLASSIFIER)(data=torch.from_numpy(data[None].astype("f4")))["prob"].numpy()[0]


@pytest.mark.parametrize("engine", ["onnxruntime", "opencv"])
@pytest.mark.parametrize("model", ["net.onnx", "whole.onnx"])
def test_either_engine_finds_what_the_net_finds(engine, model, picture, capsys):
    Path("names.txt").write_text("a\nb\nc\nd\ne\n")
    assert not classify_onnx.main([model, "cat.png", "--engine", engine, "--top", "2", "--labels", "names.txt"])
    lines = capsys.readouterr().out.splitlines()[-2:]
    want = scores_of(picture)
    best = np.argsort(-want)[:2]
    assert [line.split()[1] for line in lines] == ["abcde"[place] for place in best]
    assert [float(line.split()[2]) for line in lines] == pytest.approx(want[best], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone.onnx", "cat.png"], "gone.onnx"),
        (["cat.png", "cat.png"], "cat.png is not an ONNX model"),
        (["net.onnx", "gone.png"], "gone.png"),
        (["net.onnx", "net.onnx"], "is not an image"),
        (["net.onnx", "cat.png", "--output", "fc9"], "has no output fc9; valid: prob"),
        (["net.onnx", "cat.png", "--labels", "few.txt"], "few.txt has 1 names, but the model 5 classes"),
        (["net.onnx", "cat.png", "--mean", "1,2"], "mean: 2 numbers for 3 channels"),
    ],
)
def test_what_it_refuses(arguments, message, capsys):
    Path("few.txt").write_text("cat\n")
    assert classify_onnx.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_metadata_that_is_nonsense(capsys):
    model = onnx.load("net.onnx")
    next(each for each in model.metadata_props if each.key == "scale").value = "much"
    onnx.save(model, "odd.onnx")
    assert classify_onnx.main(["odd.onnx", "cat.png"]) == 1
    assert "odd.onnx: its metadata has a mean or scale that is not a number" in capsys.readouterr().err
