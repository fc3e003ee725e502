"""caffe.io: images, blobs and the Transformer."""

from __future__ import annotations

import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe_compat import io
from pycaffe_compat.errors import CaffeError, DataError, UnknownNameError
from pycaffe_compat.proto import caffe_pb2

RNG = np.random.default_rng(0)


def test_arrays_and_messages_are_converted_both_ways() -> None:
    array = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(io.blobproto_to_array(io.array_to_blobproto(array)), array)
    np.testing.assert_array_equal(
        io.blobproto_to_array(io.array_to_blobproto(array, array + 1), return_diff=True), array + 1
    )
    legacy = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=3, data=range(6))
    assert io.blobproto_to_array(legacy).shape == (1, 2, 1, 3)
    vector = io.arraylist_to_blobprotovector_str([array, array[0]])
    for got, want in zip(io.blobprotovector_str_to_arraylist(vector), [array, array[0]], strict=True):
        np.testing.assert_array_equal(got, want)
    pixels = RNG.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    datum = io.array_to_datum(pixels, 7)
    assert datum.label == 7 and datum.data == pixels.tobytes()
    np.testing.assert_array_equal(io.datum_to_array(datum), pixels)
    np.testing.assert_array_equal(io.datum_to_array(io.array_to_datum(array)), array)


@pytest.mark.parametrize("given", [b"\x08\x01", "mean.binaryproto", caffe_pb2.BlobShape()])
def test_what_is_no_message_is_an_error_that_says_how_to_make_one(given: object) -> None:
    for convert, name in ((io.blobproto_to_array, "BlobProto"), (io.datum_to_array, "Datum")):
        with pytest.raises(TypeError, match=rf"takes a {name}, not .*: caffe_pb2\.{name}\.FromString"):
            convert(given)


def test_a_label_that_does_not_fit_a_datum_is_an_error() -> None:
    with pytest.raises(DataError, match="a label has 32 bits; 4294967296 does not fit"):
        io.array_to_datum(np.zeros((1, 2, 2), np.uint8), 2**32)


def test_preprocess_applies_the_setters_in_caffes_order_and_deprocess_undoes_them() -> None:
    image = RNG.random((6, 8, 3)).astype(np.float32)
    t = io.Transformer({"data": (1, 3, 6, 8)})
    t.set_transpose("data", (2, 0, 1))
    t.set_channel_swap("data", (2, 1, 0))
    t.set_raw_scale("data", 255)
    t.set_mean("data", np.array([104.0, 117.0, 123.0]))
    t.set_input_scale("data", 0.5)
    got = t.preprocess("data", image)
    want = (image[:, :, ::-1].transpose(2, 0, 1) * 255 - np.array([104, 117, 123])[:, None, None]) * 0.5
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(t.deprocess("data", got[None]), image, rtol=1e-4, atol=1e-5)


def test_whole_numbers_as_a_mean_leave_images_float32() -> None:
    t = io.Transformer({"data": (1, 3, 6, 8)})
    t.set_transpose("data", (2, 0, 1))
    t.set_mean("data", np.array([104, 117, 123]))
    image = RNG.random((6, 8, 3)).astype(np.float32)
    got = t.preprocess("data", image)
    assert got.dtype == t.deprocess("data", got).dtype == np.float32
    np.testing.assert_allclose(t.deprocess("data", got), image, atol=1e-5)


def test_a_mean_image_of_another_size_is_resized_and_wrong_ones_are_errors() -> None:
    t = io.Transformer({"data": (1, 3, 6, 8)})
    t.set_mean("data", np.full((3, 12, 16), 7.0))
    np.testing.assert_allclose(t.mean["data"], np.full((3, 6, 8), 7.0))
    with pytest.raises(CaffeError, match="2 values for the 3 channels"):
        t.set_mean("data", np.zeros(2))
    with pytest.raises(UnknownNameError, match="did you mean data"):
        t.set_raw_scale("dat", 1)
    with pytest.raises(CaffeError, match="2 axes given"):
        t.set_transpose("data", (1, 0))


def test_pictures_are_rgb_in_0_to_1(tmp_path: Path) -> None:
    bgr = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), bgr)
    image = io.load_image(tmp_path / "a.png")
    np.testing.assert_allclose(image, bgr[:, :, ::-1] / 255, atol=1e-6)
    grey = io.load_image(tmp_path / "a.png", color=False)
    np.testing.assert_allclose(grey[:, :, 0], image @ [0.2125, 0.7154, 0.0721], atol=1e-6)
    cv2.imwrite(str(tmp_path / "g.png"), bgr[:, :, 0])
    assert io.load_image(tmp_path / "g.png").shape == (5, 7, 3)
    held = BytesIO()
    held.write((tmp_path / "a.png").read_bytes())  # and stands at its end
    np.testing.assert_array_equal(io.load_image(held), image)
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(io.load_image(file, color=False), grey)
    out, into = os.pipe()  # what has no beginning to go back to, as the response of a web server
    os.write(into, held.getvalue())
    os.close(into)
    with open(out, "rb") as pipe:
        np.testing.assert_array_equal(io.load_image(pipe), image)
    (tmp_path / "no.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not an image"):
        io.load_image(tmp_path / "no.png")
    for unreadable in (b"nothing", b""):
        with pytest.raises(DataError, match="not an image"):
            io.load_image(BytesIO(unreadable))


def test_resizing_keeps_values_and_any_number_of_channels() -> None:
    image = np.full((4, 6, 5), 3.0)
    np.testing.assert_allclose(io.resize_image(image, (8, 3)), np.full((8, 3, 5), 3.0))
    ramp = np.arange(8, dtype=np.float32)[None, :, None].repeat(4, 0)
    np.testing.assert_allclose(io.resize_image(ramp, (2, 4))[0, :, 0], [0.5, 2.5, 4.5, 6.5])
    np.testing.assert_array_equal(io.resize_image(ramp, (2, 4, 1), 0)[0, :, 0], [1, 3, 5, 7])


def test_images_of_other_than_1_or_3_channels_are_resized_between_the_centres_of_their_corner_pixels() -> None:
    flow = np.arange(8, dtype=np.float32)[None, :, None] * np.ones((3, 1, 2), np.float32)
    for order, want in ((0, [0, 2, 5, 7]), (1, [0, 7 / 3, 14 / 3, 7])):
        got = io.resize_image(flow, (5, 4), order)
        assert got.shape == (5, 4, 2) and got.dtype == np.float32
        np.testing.assert_allclose(got[2, :, 1], want, rtol=1e-6)
    assert io.resize_image(flow, (5, 4), 3)[0, 3, 0] == 7


def test_oversample_takes_corners_centre_and_mirrors() -> None:
    image = RNG.random((6, 8, 2)).astype(np.float32)
    crops = io.oversample([image, image], (4, 4))
    assert crops.shape == (20, 4, 4, 2)
    np.testing.assert_array_equal(crops[3], image[2:, 4:])
    np.testing.assert_array_equal(crops[4], image[1:5, 2:6])
    np.testing.assert_array_equal(crops[15:20], crops[10:15, :, ::-1])
    with pytest.raises(CaffeError, match="do not fit"):
        io.oversample([image], (7, 7))


@pytest.mark.parametrize(
    "order, message",
    [
        ({2, 1, 0}, r"a tuple or list of integers expected, not \{0, 1, 2\} \(set\)"),
        (frozenset((2, 1, 0)), "frozenset"),
        ({2: "a", 1: "b", 0: "c"}, "dict"),
        ({2: 0, 1: 0, 0: 0}.keys(), "dict_keys"),
        ("210", r"not '210' \(str\)"),
        (b"\x02\x01\x00", "bytes"),
        (iter((2, 1, 0)), "iterator"),
        (None, "NoneType"),
        (2, "int"),
        ((2.0, 1.0, 0.0), "integers expected"),
        ((2, True, 0), "integers expected"),
        (np.array([[2, 1, 0]]), "integers expected"),
        ((2, 1), r"2 \w+ given for an input of 3"),
        ((3, 2, 1, 0), r"4 \w+ given for an input of 3"),
        ((0, 0, 1), "must name each of the .* once"),
        ((1, 2, 3), "0 to 2 once"),
        ((2, 1, -3), None),
    ],
)
@pytest.mark.parametrize("setter", ["set_transpose", "set_channel_swap"])
def test_an_order_is_a_permutation_in_a_sequence(setter: str, order: object, message: str | None) -> None:
    t = io.Transformer({"data": (1, 3, 4, 4)})
    if message is None:  # counted from the end
        getattr(t, setter)("data", order)
        assert (t.transpose or t.channel_swap) == {"data": (2, 1, 0)}
        return
    with pytest.raises(DataError, match=message):
        getattr(t, setter)("data", order)
    assert not t.transpose and not t.channel_swap


def test_orders_may_be_lists_arrays_and_ranges() -> None:
    image = np.arange(3, dtype=np.float32)[None, None].repeat(4, 0).repeat(4, 1)
    for order in ((2, 1, 0), [2, 1, 0], np.array([2, 1, 0]), range(2, -1, -1)):
        t = io.Transformer({"data": (1, 3, 4, 4)})
        t.set_transpose("data", np.array([2, 0, 1]))
        t.set_channel_swap("data", order)
        made = t.preprocess("data", image)
        assert made[:, 0, 0].tolist() == [2, 1, 0]
        np.testing.assert_array_equal(t.deprocess("data", made), image)


@pytest.mark.parametrize(
    "mean, message",
    [
        ("mean.npy", r"not the name of a file: np\.load\('mean\.npy'\)"),
        ({1.0, 2.0, 3.0}, "numbers expected, not a set"),
        ({0: 1.0}, "numbers expected, not a dict"),
        (None, "numbers expected"),
        (5.0, r"a mean of shape \(\) does not fit"),
        (np.zeros(4), "4 values for the 3 channels"),
        (np.zeros((6, 8)), r"shape \(1, 6, 8\) does not fit"),
        (np.zeros((1, 3, 6, 8)), r"shape \(1, 3, 6, 8\) does not fit"),
        (np.zeros((6, 8, 3)), r"shape \(6, 8, 3\) does not fit .*channels×height×width"),
        (np.zeros((3, 0, 8)), "does not fit"),
        (["a", "b", "c"], "numbers expected"),
        ([[1, 2], [3]], "numbers expected"),
    ],
)
def test_means_that_do_not_fit_are_refused(mean: object, message: str) -> None:
    t = io.Transformer({"data": (1, 3, 6, 8)})
    with pytest.raises(CaffeError, match=message):
        t.set_mean("data", mean)  # type: ignore[arg-type]
    assert not t.mean


def test_scales_are_numbers_and_none_takes_one_back() -> None:
    t = io.Transformer({"data": (1, 3, 6, 8)})
    for setter, scales in ((t.set_raw_scale, t.raw_scale), (t.set_input_scale, t.input_scale)):
        for wrong in ("255", {255}, [None], object()):
            with pytest.raises(CaffeError, match="numbers expected"):
                setter("data", wrong)  # type: ignore[arg-type]
        setter("data", 2)
        assert scales == {"data": 2}
        setter("data", None)  # type: ignore[arg-type]
        assert scales == {}


def test_inputs_and_images_that_are_none_are_refused() -> None:
    for inputs in ((1, 3, 6, 8), "data", {"data": {1, 3, 6, 8}}, {"data": "1368"}, {"data": 5}):
        with pytest.raises(DataError, match="Transformer"):
            io.Transformer(inputs)  # type: ignore[arg-type]
    flat = io.Transformer({"data": (1, 10)})
    for use in (lambda: flat.set_mean("data", np.zeros(10)), lambda: flat.preprocess("data", np.zeros(10))):
        with pytest.raises(DataError, match=r'input "data" has shape \(1, 10\); images need four axes'):
            use()
    t = io.Transformer({"data": (1, 3, 6, 8)})
    t.set_transpose("data", (2, 0, 1))
    t.set_channel_swap("data", (2, 1, 0))
    t.set_mean("data", np.zeros(3))
    for image, message in (
        ("cat.jpg", "load_image"),
        (np.zeros((1, 6, 8, 3)), "not one image"),
        (np.zeros((6, 8, 1)), "channel_swap is for 3 channels"),
        (np.zeros((6, 8)), "channel_swap is for 3 channels"),
        ({1, 2}, "numbers expected"),
    ):
        with pytest.raises(CaffeError, match=message):
            t.preprocess("data", image)  # type: ignore[arg-type]
    for image in (np.zeros((2, 3, 6, 8)), np.zeros(3), np.zeros((6, 8))):
        with pytest.raises(DataError, match=r"not one image|channel_swap"):
            t.deprocess("data", image)
    rgba = io.Transformer({"data": (1, 3, 6, 8)})
    rgba.set_transpose("data", (2, 0, 1))
    rgba.set_mean("data", np.zeros(3))
    with pytest.raises(DataError, match="mean is for 3 channels"):
        rgba.preprocess("data", np.zeros((6, 8, 4)))


def test_a_grey_image_goes_through_and_back() -> None:
    image = RNG.random((6, 8, 1)).astype(np.float32)
    t = io.Transformer({"data": (1, 1, 6, 8)})
    t.set_transpose("data", (2, 0, 1))
    for one in (image, image[:, :, 0]):
        made = t.preprocess("data", one)
        assert made.shape == (1, 6, 8)
        np.testing.assert_array_equal(t.deprocess("data", made[None]), image)


@pytest.mark.parametrize("dims", [5, "55", {5, 6}, (5,), (0, 5), (-1, 5), (5, None), (5.5, 5), {5: 6}])
def test_sizes_are_two_numbers(dims: object) -> None:
    for use in (io.resize_image, lambda image, size: io.oversample([image], size)):
        with pytest.raises(DataError, match=r"\(height, width\) expected"):
            use(np.zeros((9, 9, 3)), dims)


def test_oversample_takes_a_list_of_images_of_one_shape() -> None:
    image = RNG.random((6, 8, 3)).astype(np.float32)
    assert io.oversample([image[:, :, 0]], (4, 4)).shape == (10, 4, 4, 1)
    assert io.oversample(image[None], (4, 4)).shape == (10, 4, 4, 3)
    for images, message in (
        (image, r"write \[image\] for a single one"),
        ([], "no images"),
        ("cat.jpg", "not a str"),
        ([image, image[1:]], r"the same shape expected, not \(6, 8, 3\) and \(5, 8, 3\)"),
        ([image, image[:, :, :1]], "the same shape expected"),
    ):
        with pytest.raises(DataError, match=message):
            io.oversample(images, (4, 4))


@pytest.mark.parametrize(
    "use, message",
    [
        (lambda a: io.array_to_blobproto("abc"), "numbers expected, not a str"),
        (lambda a: io.array_to_blobproto({1, 2}), "numbers expected, not a set"),
        (lambda a: io.array_to_blobproto(a, a[0]), r"a diff of shape \(3, 4\) for values of shape \(2, 3, 4\)"),
        (lambda a: io.blobproto_to_array(io.array_to_blobproto(a), True), "holds no gradients"),
        (lambda a: io.blobprotovector_str_to_arraylist(b"abc"), "no BlobProtoVector"),
        (lambda a: io.array_to_datum(a, "cat"), "a label must be an integer, not 'cat'"),
        (lambda a: io.array_to_datum(a, 3.7), "a label must be an integer"),
        (lambda a: io.load_image(5), r"the name of a file or an open one, not 5 \(int\)"),
        (lambda a: io.load_image(None), "not None"),
        (lambda a: io.resize_image(a, (2, 2), "cubic"), "interp_order must be an integer"),
    ],
)
def test_values_that_cannot_be_converted(use: Callable[[np.ndarray], object], message: str) -> None:
    with pytest.raises(CaffeError, match=message):
        use(np.ones((2, 3, 4), np.float32))


def test_what_pycaffes_io_imports_is_reached_through_it() -> None:
    image = RNG.random((8, 6, 3)).astype(np.float32)
    zoom = getattr(io, "zoom")  # noqa: B009
    assert zoom(image, (2, 2, 1)).shape == (16, 12, 3)
    assert getattr(io, "skimage").io.imread and not hasattr(io, "imread")  # noqa: B009
    halved = io.resize(image, (4, 3, 3))
    np.testing.assert_allclose(halved, image.reshape(4, 2, 3, 2, 3).mean((1, 3)), atol=1e-6)  # linear, not smoothed
    assert io.resize((image * 255).astype(np.uint8), (4, 3)).max() <= 1
    assert io.resize(image, (4, 3, 3), anti_aliasing=True).std() < halved.std()
    assert io.arraylist_to_blobprotovecor_str is io.arraylist_to_blobprotovector_str


def test_images_of_optical_flow_are_mirrored_with_their_direction() -> None:
    flow = RNG.random((2, 3, 3)).astype(np.float32)
    before = flow.copy()
    np.testing.assert_array_equal(io.flip_image(flow), flow[:, ::-1])
    turned = io.flip_image(flow, 1, is_flow=True)
    np.testing.assert_array_equal(turned[:, :, 0], 1 - flow[:, ::-1, 0])
    np.testing.assert_array_equal(turned[:, :, 1:], flow[:, ::-1, 1:])
    np.testing.assert_array_equal(flow, before)
    transformer = io.Transformer({"data": (1, 3, 2, 3)})
    transformer.set_is_flow("data", True)
    assert transformer.is_flow == {"data": True}
