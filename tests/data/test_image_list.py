import cv2
import numpy as np
import pytest
from samples import GOLDENS, image

from pycaffe_compat.data.image_list import Entry, read_image, read_list
from pycaffe_compat.errors import DataError, MissingFileError


def test_paths_may_hold_spaces(tmp_path):
    (tmp_path / "list").write_bytes("a b/c d.jpg 3\r\n\n  é.png\t-1  \nlast 0".encode())
    assert read_list(tmp_path / "list") == [Entry("a b/c d.jpg", 3), Entry("é.png", -1), Entry("last", 0)]


def test_a_byte_order_mark_is_no_part_of_the_first_path(tmp_path):
    (tmp_path / "list").write_text("a.jpg 1\n", encoding="utf-8-sig")
    assert read_list(tmp_path / "list") == [Entry("a.jpg", 1)]


@pytest.mark.parametrize(
    "line", ["image.jpg", "my image.jpg", "image.jpg 1.5", "image.jpg 1 ?", "image.jpg 1_0", "image.jpg ٣"]
)
def test_a_line_without_a_label_is_named(tmp_path, line):
    (tmp_path / "list").write_text(f"fine.jpg 1\n{line}\n")
    with pytest.raises(DataError, match=r"list:2: no integer label at the end of "):
        read_list(tmp_path / "list")


def test_fractional_labels_are_refused_with_advice(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg 1\nb.jpg 0.25\n")
    with pytest.raises(DataError, match=r"list\.txt:2: no integer label .*fractions, into an HDF5 file"):
        read_list(tmp_path / "list.txt")


@pytest.mark.parametrize("label", ["2147483648", "-2147483649", "9" * 5000])
def test_a_label_that_no_datum_can_hold_is_named(tmp_path, label):
    (tmp_path / "list").write_text(f"fine.jpg 2147483647\nimage.jpg {label}\n")
    with pytest.raises(DataError, match=r"list:2: label -?\d+ is out of range"):
        read_list(tmp_path / "list")


def test_lists_that_cannot_be(tmp_path):
    with pytest.raises(MissingFileError, match="list file not found"):
        read_list(tmp_path / "nothing")
    (tmp_path / "list").write_text("\n\n")
    with pytest.raises(DataError, match="is empty"):
        read_list(tmp_path / "list")
    with pytest.raises(DataError, match="the path is a folder"):
        read_list(tmp_path)


def test_images_are_read_as_opencv_reads_them():
    path = GOLDENS / "images" / "im04.png"
    np.testing.assert_array_equal(read_image(path), cv2.imread(str(path)))
    np.testing.assert_array_equal(read_image(path, color=False), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    assert read_image(path, size=(5, 9)).shape == (5, 9, 3)
    assert read_image(path, color=False, size=(5, 9)).shape == (5, 9)


@pytest.mark.parametrize("size", [(200_000, 200_000), (2**32 - 1, 2**32 - 1)])
def test_a_size_that_no_image_can_have(size):
    with pytest.raises(DataError, match=f"cannot be resized to {size[0]} × {size[1]} pixels"):
        read_image(GOLDENS / "images" / "im04.png", size=size)


def test_images_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"image not found: .*gone\.jpg"):
        read_image(tmp_path / "gone.jpg")
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"^does not decode"):
        read_image(tmp_path / "text.jpg")
    with pytest.raises(DataError, match="cannot read image"):
        read_image(tmp_path)
    data = cv2.imencode(".png", image()[0])[1].tobytes()
    (tmp_path / "cut.png").write_bytes(data[:40])
    with pytest.raises(DataError, match=r"^does not decode"):
        read_image(tmp_path / "cut.png")
