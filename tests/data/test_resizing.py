import cv2
import numpy as np
import pytest
from samples import GOLDENS

from pycaffe_compat.data.resizing import Resizing
from pycaffe_compat.data.transformer import Transformer
from pycaffe_compat.errors import DataError
from pycaffe_compat.proto import caffe_pb2, parse_text

PICTURE = cv2.imread(str(GOLDENS / "images" / "im04.png"))  # 80 × 96


def resizing(text: str) -> Resizing:
    return Resizing(parse_text(text, caffe_pb2.ResizeParameter))


def test_warp_ignores_the_aspect_ratio() -> None:
    got = resizing("height: 30 width: 50 interp_mode: CUBIC")(PICTURE)
    np.testing.assert_array_equal(got, cv2.resize(PICTURE, (50, 30), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize(("height", "width", "size"), [(30, 30, (30, 36)), (100, 20, (100, 120)), (20, 100, (83, 100))])
def test_nothing_is_smaller(height, width, size) -> None:
    fit = resizing(f"height: {height} width: {width} resize_mode: FIT_SMALL_SIZE")
    assert fit.size(80, 96) == size and fit.fits_small
    np.testing.assert_array_equal(fit(PICTURE), cv2.resize(PICTURE, size[::-1]))


@pytest.mark.parametrize(
    ("mode", "border", "value"),
    [
        ("pad_value: 7", cv2.BORDER_CONSTANT, (7, 7, 7)),
        ("pad_value: 1 pad_value: 2 pad_value: 3", cv2.BORDER_CONSTANT, (1, 2, 3)),
        ("", cv2.BORDER_CONSTANT, (0, 0, 0)),
        ("pad_mode: MIRRORED", cv2.BORDER_REFLECT_101, (0, 0, 0)),
        ("pad_mode: REPEAT_NEAREST", cv2.BORDER_REPLICATE, (0, 0, 0)),
    ],
)
@pytest.mark.parametrize(("height", "width", "inner"), [(61, 48, (40, 48)), (40, 77, (40, 48))])
def test_nothing_is_larger_and_the_rest_is_padded(mode, border, value, height, width, inner) -> None:
    got = resizing(f"height: {height} width: {width} resize_mode: FIT_LARGE_SIZE_AND_PAD {mode}")(PICTURE)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    margins = top, height - inner[0] - top, left, width - inner[1] - left
    want = cv2.copyMakeBorder(cv2.resize(PICTURE, inner[::-1]), *margins, border, value=value)
    np.testing.assert_array_equal(got, want)
    grey = resizing(f"height: {height} width: {width} resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 7")(
        PICTURE[..., 0]
    )
    assert grey.shape == (height, width) and grey[0 if top else height // 2, 0] == 7


def test_each_of_several_interpolations_comes_as_often() -> None:
    fit = resizing("height: 30 width: 50 interp_mode: NEAREST interp_mode: AREA")
    assert fit.random
    for word, mode in ((4, cv2.INTER_NEAREST), (7, cv2.INTER_AREA)):
        np.testing.assert_array_equal(fit(PICTURE, word), cv2.resize(PICTURE, (50, 30), interpolation=mode))


def test_prob_is_not_read_and_the_log_says_so(caplog) -> None:
    param = parse_text("resize_param { height: 3 width: 5 prob: 0.1 }", caffe_pb2.TransformationParameter)
    image = np.ascontiguousarray(PICTURE.transpose(2, 0, 1))
    assert Transformer(param, caffe_pb2.TRAIN).prepared(image).shape == (3, 3, 5)
    assert "resize_param.prob is 0.1; it has no effect" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "height: 3 width: 4 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 1 pad_value: 2",
            "2 pad_value, but the image 3",
        ),
        ("height: 1 width: 200 resize_mode: FIT_LARGE_SIZE_AND_PAD", None),
        ("height: 200 width: 1 resize_mode: FIT_LARGE_SIZE_AND_PAD", r"is 80 × 96 .* cannot be resized .* 200 × 1"),
    ],
)
def test_what_cannot_be_resized_is_one_error(text, message) -> None:
    if message is None:
        assert resizing(text)(PICTURE).shape == (1, 200, 3)
        return
    with pytest.raises(DataError, match=message):
        resizing(text)(PICTURE)
