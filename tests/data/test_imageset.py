import logging
import os
import threading

import cv2
import numpy as np
import pytest
from samples import GOLDENS, database, encoded, image, raw_database

from pycaffe_compat.data.database import Database
from pycaffe_compat.data.datum import array_to_datum, datum_to_array, parse_datum
from pycaffe_compat.data.imageset import ConvertOptions, compute_image_mean, convert_imageset
from pycaffe_compat.data.mean import read_mean
from pycaffe_compat.errors import CaffeError, DataError, MissingFileError

IMAGES, LIST = str(GOLDENS / "images") + "/", str(GOLDENS / "list.txt")


def records(path):
    return {key.decode(): parse_datum(value) for key, value in Database(path)}


def convert(folder, **options):
    assert convert_imageset(IMAGES, LIST, str(folder / "db"), ConvertOptions(**options)) == 12
    return records(folder / "db")


@pytest.mark.parametrize(
    ("golden", "options"),
    [
        ("raw_lmdb", {}),
        ("raw_lmdb", {"check_size": True}),
        ("enc_lmdb", {"encoded": True, "encode_type": "png"}),
        ("enc_lmdb", {"encode_type": "png"}),
        ("gray_lmdb", {"gray": True}),
    ],
)
def test_databases_equal_caffes(tmp_path, golden, options):
    made = convert(tmp_path, resize_height=40, resize_width=48, **options)
    for key, want in records(GOLDENS / golden).items():
        got = made.pop(key)
        assert (got.channels, got.height, got.width, got.label, got.encoded) == (
            want.channels, want.height, want.width, want.label, want.encoded
        )  # fmt: skip
        np.testing.assert_array_equal(datum_to_array(got), datum_to_array(want))
        if not want.encoded:
            assert bytes(got.data) == bytes(want.data)
    assert not made


def test_encoded_files_are_stored_unchanged_if_no_option_changes_them(tmp_path):
    made = convert(tmp_path, encoded=True)
    for key, record in made.items():
        assert bytes(record.data) == (GOLDENS / "images" / key[9:]).read_bytes()


def test_one_type_for_all_changes_only_the_others(tmp_path):
    for key, record in convert(tmp_path, encode_type="jpg").items():
        same = bytes(record.data) == (GOLDENS / "images" / key[9:]).read_bytes()
        assert same == key.endswith("jpg")
        assert bytes(record.data[:2]) == b"\xff\xd8"


def test_the_shorter_edge_keeps_proportions(tmp_path):
    sizes = {(record.height, record.width) for record in convert(tmp_path, shorter_edge=20).values()}
    assert sizes == {(20, 20), (20, 24)}
    image_04 = records(tmp_path / "db")["00000004_im04.png"]
    want = cv2.resize(cv2.imread(IMAGES + "im04.png"), (24, 20)).transpose(2, 0, 1)
    np.testing.assert_array_equal(datum_to_array(image_04), want)


def test_the_shorter_edge_leaves_files_alone_that_have_it(tmp_path):
    record = convert(tmp_path, shorter_edge=80, encoded=True)["00000004_im04.png"]
    assert bytes(record.data) == (GOLDENS / "images" / "im04.png").read_bytes()


def test_shuffling_is_an_order_that_the_seed_gives(tmp_path):
    orders = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        convert_imageset(IMAGES, LIST, str(tmp_path / name), ConvertOptions(shuffle=True, seed=seed))
        keys = list(records(tmp_path / name))
        assert [key[:8] for key in keys] == [f"{i:08d}" for i in range(12)]
        orders.append([key[9:] for key in keys])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == [f"im{i:02d}.{'jpg' if i < 4 or i > 9 else 'png'}" for i in range(12)]


def test_a_root_folder_needs_no_slash(tmp_path):
    assert convert_imageset(IMAGES[:-1], LIST, str(tmp_path / "db")) == 12


@pytest.fixture
def broken(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), image().transpose(1, 2, 0))
    (tmp_path / "b.png").write_text("no image")
    cv2.imwrite(str(tmp_path / "c.png"), image(height=20).transpose(1, 2, 0))
    (tmp_path / "list.txt").write_text("a.png 0\nb.png 1\ngone.png 2\nc.png 3\n")
    return tmp_path


def test_missing_images_are_found_before_anything_is_converted(broken):
    with pytest.raises(MissingFileError, match=r"1 of the 4 images of .*list\.txt are not there: .*gone\.png"):
        convert_imageset(f"{broken}/", str(broken / "list.txt"), str(broken / "db"))
    assert not (broken / "db").exists()


def test_an_image_that_does_not_decode_stops_and_leaves_nothing(broken):
    (broken / "list.txt").write_text("a.png 0\nb.png 1\n")
    with pytest.raises(DataError, match=r"b\.png: does not decode"):
        convert_imageset(f"{broken}/", str(broken / "list.txt"), str(broken / "db"))
    assert sorted(os.listdir(broken)) == ["a.png", "b.png", "c.png", "list.txt"]


def test_unreadable_images_are_left_out_if_asked(broken, caplog):
    with caplog.at_level(logging.ERROR):
        options = ConvertOptions(skip_unreadable=True)
        assert convert_imageset(f"{broken}/", str(broken / "list.txt"), str(broken / "db"), options) == 2
    assert list(records(broken / "db")) == ["00000000_a.png", "00000003_c.png"]
    assert "b.png" in caplog.text
    assert "gone.png" in caplog.text


def test_sizes_are_checked_if_asked(broken):
    (broken / "list.txt").write_text("a.png 0\nc.png 3\n")
    with pytest.raises(DataError, match=r"00000001_c\.png has size \(3, 20, 12\), but .* \(3, 10, 12\)"):
        convert_imageset(f"{broken}/", str(broken / "list.txt"), str(broken / "db"), ConvertOptions(check_size=True))
    with pytest.raises(DataError, match=r"00000001_c\.png has size"):
        options = ConvertOptions(check_size=True, encoded=True)
        convert_imageset(f"{broken}/", str(broken / "list.txt"), str(broken / "db"), options)


def test_images_that_cannot_be_resized_or_encoded_are_named(tmp_path):
    for options, message in (
        (ConvertOptions(resize_width=200_000, resize_height=200_000), "cannot be resized to 200000 × 200000"),
        (ConvertOptions(encode_type="pgm"), "cannot be encoded as pgm: .*jpg and png"),
    ):
        with pytest.raises(DataError, match=rf"images/im\d+\.\w+: {message}"):
            convert_imageset(IMAGES, LIST, str(tmp_path / "db"), options)
    assert not os.listdir(tmp_path)


def test_a_database_without_images_is_not_made(tmp_path):
    (tmp_path / "list.txt").write_text("gone.png 0\n")
    with pytest.raises(DataError, match=r"none of the 1 images of .* can be read"):
        options = ConvertOptions(skip_unreadable=True)
        convert_imageset(f"{tmp_path}/", str(tmp_path / "list.txt"), str(tmp_path / "db"), options)
    assert os.listdir(tmp_path) == ["list.txt"]


def test_a_mean_file_that_cannot_be_written_is_found_first(tmp_path):
    path = database(tmp_path / "garbage", [b"garbage"])
    with pytest.raises(CaffeError, match=r"cannot write .*it is a folder"):
        compute_image_mean(path, str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize_width": 5}, "set resize_width and resize_height, or neither"),
        ({"resize_width": 5, "resize_height": 5, "shorter_edge": 5}, "not both"),
        ({"shorter_edge": -1}, "cannot be negative"),
        ({"encode_type": "docx"}, 'encode_type "docx"'),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(DataError, match=message):
        ConvertOptions(**options)


def test_other_backends_are_an_error(tmp_path):
    with pytest.raises(DataError, match='backend "leveldb" is not supported'):
        convert_imageset(IMAGES, LIST, str(tmp_path / "db"), ConvertOptions(backend="leveldb"))
    with pytest.raises(DataError, match='backend "leveldb" is not supported'):
        compute_image_mean(str(GOLDENS / "raw_lmdb"), backend="leveldb")


def test_the_mean_is_caffes_to_the_byte(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        mean = compute_image_mean(str(GOLDENS / "raw_lmdb"), str(tmp_path / "mean.binaryproto"))
    assert (tmp_path / "mean.binaryproto").read_bytes() == (GOLDENS / "mean.binaryproto").read_bytes()
    np.testing.assert_array_equal(read_mean(tmp_path / "mean.binaryproto"), mean)
    assert f"mean_value channel [1]: {mean[1].mean():.6g}" in caplog.text
    np.testing.assert_array_equal(compute_image_mean(str(GOLDENS / "enc_lmdb")), mean)


def test_the_mean_of_floats(tmp_path):
    values = [np.random.default_rng(i).normal(size=(2, 3, 4)).astype(np.float32) for i in range(5)]
    path = database(tmp_path / "db", [array_to_datum(value) for value in values])
    np.testing.assert_allclose(compute_image_mean(path), np.mean(values, 0), rtol=1e-6, atol=1e-7)


def test_a_mean_needs_one_size_and_records_that_decode(tmp_path):
    path = raw_database(tmp_path / "sizes", [image(), image(), image(width=5)])
    with pytest.raises(DataError, match=r'record "00000002" of .*sizes: is \(3, 10, 5\), but .* \(3, 10, 12\)'):
        compute_image_mean(path)
    path = database(tmp_path / "garbage", [encoded(image()), b"\xff\xff garbage"])
    with pytest.raises(DataError, match=r'record "00000001" of .*garbage: is not a Datum'):
        compute_image_mean(path)
    with pytest.raises(CaffeError, match="cannot write"):
        compute_image_mean(str(GOLDENS / "raw_lmdb"), str(tmp_path / "no" / "mean"))
    assert threading.active_count() < 20
