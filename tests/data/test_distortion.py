"""Colours by the formulas of SSD's Caffe (im_transforms.cpp)."""

import cv2
import numpy as np
import pytest
from samples import GOLDENS, image

from pycaffe_compat.data.distortion import Distortion, Expansion
from pycaffe_compat.errors import DataError
from pycaffe_compat.proto import caffe_pb2, parse_text

PICTURE = cv2.imread(str(GOLDENS / "images" / "im04.png"))
RANGES = "brightness_delta: 32 contrast_lower: 0.5 contrast_upper: 1.5 saturation_lower: 0.5 saturation_upper: 1.5 hue_delta: 36"
PROBS = ("brightness_prob", "contrast_prob", "saturation_prob", "hue_prob", "random_order_prob")


def distortion(text: str) -> Distortion:
    return Distortion(parse_text(f"{RANGES} {text}", caffe_pb2.DistortionParameter))


def drawn(first: float, amount: float) -> list[float]:
    """Every step is done by ``amount``; ``first`` decides which order they have."""
    return [first, *[0.5, amount] * 4, 0.5, 0.9, 0.1, 0.5]


def scaled(values, factor, delta):
    return np.clip(np.rint(values.astype(np.float32) * np.float32(factor) + np.float32(delta)), 0, 255).astype(np.uint8)


def in_hsv(picture, channel, factor, delta):
    hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV)
    hsv[..., channel] = scaled(hsv[..., channel], factor, delta)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


STEPS = {
    "brightness_prob": lambda picture, share: scaled(picture, 1, -32 + 64 * share),
    "contrast_prob": lambda picture, share: scaled(picture, 0.5 + share, 0),
    "saturation_prob": lambda picture, share: in_hsv(picture, 1, 0.5 + share, 0),
    "hue_prob": lambda picture, share: in_hsv(picture, 0, 1, -36 + 72 * share),
    "random_order_prob": lambda picture, share: picture[..., [1, 2, 0]],
}


@pytest.mark.parametrize("share", [0.03, 0.8])
@pytest.mark.parametrize("steps", [*((name,) for name in PROBS), PROBS])
@pytest.mark.parametrize("first", [0.2, 0.7])
def test_each_step_and_their_two_orders(first, steps, share) -> None:
    want = PICTURE
    late = [name for name in PROBS if name != "contrast_prob"]
    for name in PROBS if first > 0.5 else [*late[:-1], "contrast_prob", late[-1]]:
        want = STEPS[name](want, share) if name in steps else want
    got = distortion(" ".join(f"{name}: 0.6" for name in steps))(PICTURE, drawn(first, share))
    np.testing.assert_array_equal(got, want)
    assert not np.array_equal(got, PICTURE)
    rare = distortion(" ".join(f"{name}: 0.4" for name in steps))
    np.testing.assert_array_equal(rare(PICTURE, drawn(first, share)), PICTURE)


def test_the_two_orders_differ() -> None:
    both = distortion("contrast_prob: 1 saturation_prob: 1")
    assert not np.array_equal(both(PICTURE, drawn(0.2, 0.8)), both(PICTURE, drawn(0.7, 0.8)))


def test_grey_pictures_keep_to_what_needs_no_colours() -> None:
    grey = PICTURE[..., 0].copy()
    np.testing.assert_array_equal(distortion("brightness_prob: 1")(grey, drawn(0, 0.9)), scaled(grey, 1, 32 * 0.8))
    for name in ("saturation_prob", "hue_prob", "random_order_prob"):
        with pytest.raises(DataError, match=f"has 1 channel, but transform_param.distort_param.{name} needs 3"):
            distortion(f"{name}: 1")(grey, drawn(0, 0.9))


def test_expanded_pictures() -> None:
    picture = image(0, 40, 60).transpose(1, 2, 0)
    param = caffe_pb2.ExpansionParameter(prob=0.5, max_expand_ratio=3)
    expansion = Expansion(param, [104, 117.5, 300])
    larger, window = expansion(picture, [0.5, 0.25, 0.5, 0.75])
    assert larger.shape == (60, 90, 3) and window is not None
    np.testing.assert_array_equal(larger[10:50, 22:82], picture)
    assert larger[0, 0].tolist() == [104, 118, 255] and (larger[:, 82:] == larger[0, 0]).all()
    np.testing.assert_allclose(window, [-22 / 60, -10 / 40, (90 - 22) / 60, (60 - 10) / 40], rtol=1e-6)
    assert (expansion(picture, [0.5, 0.25, 0.5, 0.75], encoded=False)[0][0, 0] == 32).all()
    same, window = expansion(picture, [0.51, 0.25, 0.5, 0.75])
    assert same is picture and window is None
    assert Expansion(param, [])(picture[..., 0], [0, 0.9, 0, 0])[0][-1, -1] == 0
    with pytest.raises(DataError, match="2 mean_values for 3 channels"):
        Expansion(param, [1, 2])(picture, [0, 0.9, 0, 0])
    with pytest.raises(DataError, match="max_expand_ratio is inf; it must be above 1 and finite"):
        Expansion(caffe_pb2.ExpansionParameter(prob=1, max_expand_ratio=np.inf), [])
    with pytest.raises(
        DataError, match=r"is 40 × 60 \(height × width\) and cannot be laid on .*max_expand_ratio is 1e\+09"
    ):
        Expansion(caffe_pb2.ExpansionParameter(prob=1, max_expand_ratio=1e9), [])(picture, [0, 0.9, 0, 0])
