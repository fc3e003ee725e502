"""classify and detect on a net whose scores can be worked out by hand: the mean of each channel of its input."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from pycaffe_compat.commands import classify, detect
from pycaffe_compat.data.mean import write_mean
from pycaffe_compat.proto import caffe_pb2, parse_text, write_weights

NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "flat" type: "Flatten" bottom: "pool" top: "flat" }
layer { name: "weigh" type: "Scale" bottom: "flat" top: "scores" }
"""
MEAN = np.arange(3, dtype=np.float32)


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name the net; its weights are 1, so it gives the means of the channels."""
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(NET)
    write_weights("net.caffemodel", parse_text(NET, caffe_pb2.NetParameter), {"weigh": [np.ones(3, np.float32)]})
    np.save("mean.npy", MEAN)
    return ["--model_def", "deploy.prototxt", "--pretrained_model", "net.caffemodel"]


def picture(path: str, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Write a PNG; return its pixels, height×width×BGR."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    assert cv2.imwrite(path, pixels)
    return pixels


def test_the_centre_of_an_image(net: list[str]) -> None:
    pixels = picture("a.png", (12, 14))
    status = classify.main(
        ["a.png", "out", *net, "--images_dim", "12,14", "--center_only", "--mean_file=mean.npy", "-input_scale", "0.5"]
    )
    assert status == 0
    want = 0.5 * (pixels[2:10, 3:11].astype(np.float32) - MEAN).mean((0, 1))
    np.testing.assert_allclose(np.load("out.npy"), [want], rtol=1e-5)


def test_ten_crops_of_a_folder_in_alphabetical_order(net: list[str]) -> None:
    Path("images").mkdir()
    Path("images/note.txt").write_text("no image")
    pixels = {name: picture(f"images/{name}.png", (10, 10), seed) for seed, name in enumerate("bac")}
    write_mean("mean.binaryproto", np.tile(MEAN[:, None, None], (1, 8, 8)))
    arguments = ["images", "out.npy", *net, "--ext", "png", "--images_dim=10,10", "--mean_file", "mean.binaryproto"]
    assert classify.main(arguments) == 0
    corners = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]
    want = [
        np.mean([pixels[name][y : y + 8, x : x + 8].mean((0, 1)) for y, x in corners], axis=0) - MEAN for name in "abc"
    ]
    np.testing.assert_allclose(np.load("out.npy"), want, rtol=1e-5)


def test_an_array_of_images(net: list[str]) -> None:
    images = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    np.save("in.npy", images)
    assert classify.main(["in.npy", "out.npy", *net, "--images_dim", "8,8", "--raw_scale", "1", "--channel_swap="]) == 0
    np.testing.assert_allclose(np.load("out.npy"), images.mean((1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.png", "out"], "input not found: nowhere.png"),
        (["deploy.prototxt", "out"], "deploy.prototxt is not an image"),
        ([".", "out"], "the folder has no files that end in .jpg; --ext"),
        (["mean.npy", "out"], "an array of shape (3,); expected images, N×H×W×C"),
        (["objects.npy", "out"], "objects.npy is not a .npy file with an array of numbers"),
        (["a.png", "out", "--images_dim", "7"], "--images_dim: 7 must be a height and a width"),
        (["a.png", "out", "--channel_swap", "b,g,r"], '--channel_swap: "b,g,r" must be integers'),
        (["a.png", "out", "--mean_file", "a.png"], "a.png: the file is an image. Expected a mean file (.binaryproto)"),
        (["a.png", "no/where/out"], "cannot write no/where/out.npy"),
        (["a.png", "out", "--model_def", "train.prototxt"], "no Input layer to give images to"),
    ],
)
def test_mistakes_are_one_line(net: list[str], capsys: pytest.CaptureFixture[str], arguments, words) -> None:
    picture("a.png", (9, 9))
    np.save("objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    Path("train.prototxt").write_text('layer { name: "d" type: "DummyData" top: "data" }')
    assert classify.main([*arguments[:2], *net, *arguments[2:]]) == 1
    error = capsys.readouterr().err
    assert error.startswith("classify: ")
    assert words in error
    assert error.count("\n") == 1
    assert not list(Path().rglob("*out*"))


WINDOWS = "filename,ymin,xmin,ymax,xmax\na.png,0,1,8,9\nb.png,2,2,10,10\na.png,4,0,12,8\n"


@pytest.mark.parametrize("ending", ["csv", "h5"])
def test_windows_of_images(net: list[str], ending: str) -> None:
    pixels = {name: picture(f"{name}.png", (12, 12), seed) for seed, name in enumerate("ab")}
    Path("windows.csv").write_text(WINDOWS)
    assert detect.main(["windows.csv", f"out.{ending}", *net, "--context_pad", "0", "--mean_file", "mean.npy"]) == 0
    order = [("a", (0, 1, 8, 9)), ("a", (4, 0, 12, 8)), ("b", (2, 2, 10, 10))]  # image by image
    want = [pixels[name][y0:y1, x0:x1].mean((0, 1)) - MEAN for name, (y0, x0, y1, x1) in order]
    if ending == "csv":
        with open("out.csv", newline="") as file:
            head, *rows = csv.reader(file)
        assert head == ["filename", "ymin", "xmin", "ymax", "xmax", "class0", "class1", "class2"]
        names = [row[0] for row in rows]
        windows, scores = np.array([row[1:5] for row in rows], float), np.array([row[5:] for row in rows], float)
    else:
        with h5py.File("out.h5") as store:
            names = [name.decode() for name in store["filename"]]
            windows, scores = store["window"][()], store["prediction"][()]
    assert names == [f"{name}.png" for name, _ in order]
    np.testing.assert_array_equal(windows, [window for _, window in order])
    np.testing.assert_allclose(scores, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        (WINDOWS, ["--crop_mode", "selective_search"], "selective_search is not available"),
        ("a.png,1,2,3,4\n", [], "filename, ymin, xmin, ymax, xmax missing"),
        (WINDOWS + "a.png,1,2,x,4\n", [], "windows.csv:5: wanted a file name and four numbers"),
        (WINDOWS + "a.png,1\n", [], "windows.csv:5: wanted a file name and four numbers"),
        (WINDOWS + "a.png,5,5,5,9\n", [], "windows.csv:5: the window [5.0, 5.0, 5.0, 9.0] is empty"),
        ("filename,ymin,xmin,ymax,xmax\n", [], "lists no windows"),
        (WINDOWS, [], "context_pad: 16 leaves nothing of an input 8 wide"),
        (WINDOWS, ["--context_pad", "2"], "image not found: a.png"),
        (WINDOWS.replace("a.png,0,1,8,9", "c.png,0,20,8,29"), ["--context_pad", "2"], "image, 12 high and 12 wide"),
    ],
)
def test_mistakes_in_tables(net: list[str], capsys: pytest.CaptureFixture[str], table, options, words) -> None:
    Path("windows.csv").write_text(table)
    picture("c.png", (12, 12))
    assert detect.main(["windows.csv", "out.csv", *net, *options]) == 1
    error = capsys.readouterr().err
    assert error.startswith("detect: ")
    assert words in error
    assert not Path("out.csv").exists()
    assert detect.main(["windows.csv", "out.txt", *net]) == 1
    assert "the file name must end in .csv or .h5" in capsys.readouterr().err


def test_layers_without_weights_are_named(net: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("deploy.prototxt").write_text(NET.replace('"weigh"', '"other"'))
    picture("a.png", (8, 8))
    Path("windows.csv").write_text("filename,ymin,xmin,ymax,xmax\na.png,0,0,8,8\n")
    for main, files in (
        (classify.main, ["a.png", "out"]),
        (detect.main, ["windows.csv", "out.csv", "--context_pad=0"]),
    ):
        assert main([*files, *net]) == 0
        assert "note: no weights for other in net.caffemodel: they keep" in capsys.readouterr().err
