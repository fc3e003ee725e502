"""Classifier: nets and images that it takes, and those that it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import pycaffe_compat as caffe
from pycaffe_compat.errors import CaffeError, DataError, NetError

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 } } }'
MEAN = """
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean" pooling_param { pool: AVE global_pooling: true } }
layer { name: "flat" type: "Flatten" bottom: "mean" top: "flat" }
"""
RNG = np.random.default_rng(0)


def files(folder: Path, text: str) -> tuple[str, str]:
    (folder / "net.prototxt").write_text(text)
    net = caffe.Net(str(folder / "net.prototxt"), caffe.TEST)
    net.save(folder / "net.caffemodel")
    return str(folder / "net.prototxt"), str(folder / "net.caffemodel")


@pytest.mark.parametrize(
    "text, message",
    [
        (
            INPUT.replace('"Input"', '"DummyData"').replace("input_param", "dummy_data_param") + MEAN,
            "has none; .*DummyData",
        ),
        (
            'layer { name: "p" type: "Parameter" top: "data" parameter_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 } } }'
            + MEAN,
            "has none; .* no layer at all",
        ),
        (INPUT + 'input: "info" input_shape { dim: 2 dim: 3 }' + MEAN, "2: .*(info, data|data, info)"),
        (
            'input: "data" input_shape { dim: 2 dim: 7 } layer { name: "r" type: "ReLU" bottom: "data" top: "r" }',
            r'input "data" has shape \(2, 7\)',
        ),
        (
            'input: "data" input_shape { dim: 2 dim: 3 dim: 4 dim: 6 dim: 5 } '
            'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }',
            r"shape \(2, 3, 4, 6, 5\)",
        ),
        (INPUT + 'layer { name: "s" type: "Silence" bottom: "data" }', "first output, and this net has none"),
    ],
)
@pytest.mark.parametrize("kind", [caffe.Classifier, caffe.Detector])
def test_nets_without_one_input_of_images_are_refused(kind: type, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(NetError, match=rf"net\.prototxt: {kind.__name__} .*{message}"):
        kind(*files(tmp_path, text))


def test_an_output_that_has_no_row_for_an_image_is_refused(tmp_path: Path) -> None:
    sums = 'layer { name: "sum" type: "Reduction" bottom: "data" top: "sum" }'
    classifier = caffe.Classifier(*files(tmp_path, INPUT + sums))
    with pytest.raises(NetError, match=r'output "sum" has shape \(\): not a row for each of the 2 images'):
        classifier.predict([RNG.random((6, 5, 3))])


def test_a_list_or_a_batch_of_images_is_classified(tmp_path: Path) -> None:
    classifier = caffe.Classifier(*files(tmp_path, INPUT + MEAN))
    images = RNG.random((3, 6, 5, 3)).astype(np.float32)
    want = images.mean(axis=(1, 2))
    for inputs in (
        images,
        list(images),
        tuple(images),
        iter(images),
        torch.from_numpy(images),
        [*images[:2], images[2].tolist()],
    ):
        np.testing.assert_allclose(classifier.predict(inputs, oversample=False), want, rtol=1e-5)
    np.testing.assert_allclose(classifier.predict(images), want, rtol=1e-5)


@pytest.mark.parametrize("oversample", [False, True])
@pytest.mark.parametrize(
    "inputs, message",
    [
        (RNG.random((9, 12, 3)), r"a list of images, not an array of shape \(9, 12, 3\); write \[image\]"),
        (RNG.random((9, 12)), r"not an array of shape \(9, 12\)"),
        (RNG.random((1, 2, 9, 12, 3)), "not an array of shape"),
        (torch.zeros(9, 12, 3), "not an array of shape"),
        ("cat.jpg", "not a str"),
        (b"cat.jpg", "not a bytes"),
        (Path("cat.jpg"), "not a .*Path"),
        ({"cat": RNG.random((9, 12, 3))}, "not a dict"),
        (None, "not a NoneType"),
        (["cat.jpg"], r"image 0: .*load_image\('cat\.jpg'\)"),
        ([RNG.random((9, 12, 3)), None], "image 1: numbers expected"),
        ([RNG.random((1, 9, 12, 3))], r"image 0: an array of shape \(1, 9, 12, 3\)"),
        ([np.zeros((0, 12, 3))], r"shape \(0, 12, 3\) is not one image"),
        ([], "there are no images"),
        (np.zeros((0, 9, 12, 3)), "there are no images"),
    ],
)
def test_anything_but_a_list_of_images_is_refused(inputs: Any, message: str, oversample: bool, tmp_path: Path) -> None:
    classifier = caffe.Classifier(*files(tmp_path, INPUT + MEAN))
    with pytest.raises(CaffeError, match=message):
        classifier.predict(inputs, oversample)


def test_grey_images(tmp_path: Path) -> None:
    classifier = caffe.Classifier(*files(tmp_path, (INPUT + MEAN).replace("dim: 3", "dim: 1")))
    stack = RNG.random((4, 6, 5)).astype(np.float32)
    want = stack.mean(axis=(1, 2))[:, None]
    for inputs in (stack, list(stack), stack[..., None]):
        np.testing.assert_allclose(classifier.predict(inputs, oversample=False), want, rtol=1e-5)
        np.testing.assert_allclose(classifier.predict(inputs), want, rtol=1e-5)
    for one in (stack[0], stack[0][..., None], RNG.random((6, 5, 3))):
        with pytest.raises(DataError, match=r"write \[image\]"):
            classifier.predict(one)


@pytest.mark.parametrize("image_dims", [256, "256", (256,), {8, 9}, (0, 5), (8.5, 9), (5, 5), None])
def test_image_dims_are_two_sizes_that_hold_the_input(image_dims: Any, tmp_path: Path) -> None:
    paths = files(tmp_path, INPUT + MEAN)
    if image_dims is None:
        assert caffe.Classifier(*paths, image_dims=[8, np.int64(9)]).image_dims.tolist() == [8, 9]
        return
    with pytest.raises(DataError, match=r"image_dims: (\(height, width\) expected|images of 5×5 are smaller)"):
        caffe.Classifier(*paths, image_dims=image_dims)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_a_phase_in_the_place_of_the_sizes_is_left_out(
    phase: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier = caffe.Classifier(*files(tmp_path, INPUT + MEAN), phase)
    assert classifier.image_dims.tolist() == [6, 5] and classifier.module.training is False
    assert f"a phase, {phase}, is given for image_dims" in caplog.text


def test_settings_reach_the_transformer_in_the_order_of_pycaffe(tmp_path: Path) -> None:
    paths = files(tmp_path, INPUT + MEAN)
    image = RNG.random((6, 5, 3)).astype(np.float32)
    want = (image.mean(axis=(0, 1))[::-1] * 255 - [1, 2, 3]) * 0.5
    classifier = caffe.Classifier(*paths, None, np.array([1, 2, 3]), 0.5, 255, (2, 1, 0))
    np.testing.assert_allclose(classifier.predict([image])[0], want, rtol=1e-4)
    detector = caffe.Detector(*paths, np.array([1, 2, 3]), 0.5, 255, (2, 1, 0))
    cv2.imwrite(str(tmp_path / "a.png"), np.round(image[:, :, ::-1] * 255))
    (found,) = detector.detect_windows([(str(tmp_path / "a.png"), [[0, 0, 6, 5]])])
    np.testing.assert_allclose(found["prediction"], want, rtol=1e-2)
