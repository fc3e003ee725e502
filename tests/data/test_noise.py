import cv2
import numpy as np
import pytest
from samples import GOLDENS

from pycaffe_compat.data.noise import Noise
from pycaffe_compat.errors import DataError
from pycaffe_compat.proto import caffe_pb2, parse_text

PICTURE = cv2.imread(str(GOLDENS / "images" / "im04.png"))
GREY = PICTURE[..., 1].copy()


def noise(text: str) -> Noise:
    return Noise(parse_text(text, caffe_pb2.NoiseParameter))


def on_luminance(change):
    def of(picture):
        planes = list(cv2.split(cv2.cvtColor(picture, cv2.COLOR_BGR2YCrCb)))
        planes[0] = change(planes[0])
        return cv2.cvtColor(cv2.merge(planes), cv2.COLOR_YCrCb2BGR)

    return lambda picture: change(picture) if picture.ndim == 2 else of(picture)


def jpeg(picture):
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 20])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR if picture.ndim == 3 else cv2.IMREAD_GRAYSCALE)


STEPS = {
    "decolorize: true": lambda p: p if p.ndim == 2 else np.stack([cv2.cvtColor(p, cv2.COLOR_BGR2GRAY)] * 3, 2),
    "gauss_blur: true": lambda p: cv2.GaussianBlur(p, (7, 7), 1.5),
    "hist_eq: true": on_luminance(cv2.equalizeHist),
    "clahe: true": on_luminance(lambda plane: cv2.createCLAHE(4).apply(plane)),
    "jpeg: 20": jpeg,
    "erode: true": lambda p: cv2.erode(p, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8)),
    "posterize: true": lambda p: p // 64 * 64 + 32,
    "inverse: true": lambda p: 255 - p,
}


@pytest.mark.parametrize("step", STEPS)
def test_each_step(step) -> None:
    for picture in (PICTURE, GREY):
        if picture.ndim == 3 or "decolorize" not in step:
            np.testing.assert_array_equal(noise(step)(picture), STEPS[step](picture))


def test_all_steps_in_ssds_order() -> None:
    want = PICTURE
    for step in STEPS.values():
        want = step(want)
    got = noise(" ".join(reversed(STEPS)) + " convert_to_hsv: true")(PICTURE)
    np.testing.assert_array_equal(got, cv2.cvtColor(want, cv2.COLOR_BGR2HSV))


def test_salt_and_pepper() -> None:
    sprinkle = noise("saltpepper: true saltpepper_param { fraction: 0.2 value: 1 value: 2 value: 3 }")
    got = sprinkle(PICTURE, 5)
    changed = (got != PICTURE).any(2)
    assert (got[changed] == [1, 2, 3]).all() and 0.15 < changed.mean() < 0.2
    np.testing.assert_array_equal(sprinkle(PICTURE, 5), got)
    assert not np.array_equal(sprinkle(PICTURE, 6), got)
    assert (noise("saltpepper: true saltpepper_param { fraction: 0.2 value: 9 }")(GREY, 1) == 9).mean() > 0.15


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("convert_to_lab: true", "convert_to_lab is not supported"),
        ("saltpepper: true", "needs saltpepper_param.value"),
        ("saltpepper: true saltpepper_param { value: 1 value: 2 }", "has 2 values, but the image 1 channels"),
        ("decolorize: true", "decolorize needs a colour image"),
        ("gaussian_std: 2", "noise_param.gaussian_std belongs to another fork's message"),
    ],
)
def test_what_cannot_be_done_is_one_error(text, message) -> None:
    with pytest.raises(DataError, match=message):
        noise(text)(GREY)
