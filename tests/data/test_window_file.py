import cv2
import numpy as np
import pytest
from samples import image

from pycaffe_compat.data.batches import Shard
from pycaffe_compat.data.mean import write_mean
from pycaffe_compat.data.window_file import ImageWindow, WindowFile, WindowOptions, WindowReader, read_windows
from pycaffe_compat.errors import DataError, MissingFileError

FILE = """# 0
one.png
3 30 40
3
5 0.9 2 3 21 22
7 0.5 0 0 39 29
4 0.2 10 10 12 14
# 1
two.png
3 20 20
2
0 0.0 1 1 8 8
6 0.4 1 1 8 9
"""


@pytest.fixture
def folder(tmp_path):
    for name, planes in (("one", image(1, 30, 40)), ("two", image(2, 20, 20))):
        cv2.imwrite(str(tmp_path / f"{name}.png"), planes.transpose(1, 2, 0))
    (tmp_path / "windows.txt").write_text(FILE)
    return tmp_path


def read(folder, text=FILE, fg=0.5, bg=0.3):
    (folder / "windows.txt").write_text(text)
    return read_windows(folder / "windows.txt", fg, bg, f"{folder}/")


def batch(reader, position=0):
    arrays, jobs = reader.begin(Shard(5), position)
    for array in arrays:
        array.fill(np.nan)
    for job in jobs:
        job()
    return arrays


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_windows_the_system_are_read(folder, encoding):
    (folder / "other.txt").write_text(FILE, encoding=encoding)
    assert read_windows(folder / "other.txt", 0.5, 0.3, f"{folder}/") == read(folder)


def test_windows_are_sorted_by_overlap(folder):
    windows = read(folder)
    one, two = f"{folder}/one.png", f"{folder}/two.png"
    assert windows == WindowFile(
        [ImageWindow(one, 5, 2, 3, 21, 22), ImageWindow(one, 7, 0, 0, 39, 29)],
        [ImageWindow(one, 0, 10, 10, 12, 14), ImageWindow(two, 0, 1, 1, 8, 8)],
        3,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.replace("# 1", "1"), r':8: "1", where "#" and the index of an image should be'),
        (FILE.replace("3 30 40", "3 30 x"), r':3: "x", where width should be'),
        (FILE.replace("5 0.9", "5 high"), r':5: "high", where an overlap should be'),
        (FILE.replace("5 0.9", "0 0.9"), ":5: label 0 of a foreground window"),
        (FILE[:-2], ":13: the file ends where y2 should be"),
        ("", "the file is empty. Expected a window file"),
    ],
)
def test_errors_name_file_and_line(folder, text, message):
    with pytest.raises(DataError, match=rf"windows\.txt.*{message}|{message}"):
        read(folder, text)


def test_a_batch_is_background_and_then_foreground(folder):
    reader = WindowReader("w", read(folder), 8, WindowOptions(crop=16, foreground_fraction=0.3))
    assert reader.shapes() == [(8, 3, 16, 16), (8,)]
    labels = np.array([batch(reader, 8 * i)[1] for i in range(20)])
    assert (labels[:, :6] == 0).all()
    assert set(labels[:, 6:].ravel()) == {5, 7}


def test_a_window_is_warped_mirrored_and_has_its_mean_subtracted(folder):
    windows = WindowFile([ImageWindow(f"{folder}/one.png", 5, 2, 3, 21, 22)], [], 3)
    options = WindowOptions(crop=16, mirror=True, scale=0.5, mean_values=(1, 2, 3), foreground_fraction=1)
    data = batch(WindowReader("w", windows, 12, options))[0]
    part = cv2.resize(image(1, 30, 40).transpose(1, 2, 0)[3:23, 2:22], (16, 16)).transpose(2, 0, 1).astype(np.float32)
    want = (part - np.array([1, 2, 3], np.float32)[:, None, None]) * np.float32(0.5)
    mirrored = [bool((item == want[:, :, ::-1]).all()) for item in data]
    assert set(mirrored) == {False, True}
    assert all((item == want).all() for item, flipped in zip(data, mirrored, strict=True) if not flipped)


def away(value):
    """Round half away from zero, as C does."""
    return int(np.sign(value) * np.floor(abs(value) + 0.5))


def pad_by_hand(window, crop, pad, square, mirror, rows, columns):
    """Where the pixels of a window with context go: (top, left, height, width) of the crop, and the part of the image."""
    height, width = window.y2 - window.y1 + 1, window.x2 - window.x1 + 1
    y, x = window.y1 + height / 2, window.x1 + width / 2
    if square:
        height = width = max(height, width)
    grow = crop / (crop - 2 * pad)
    half_height, half_width = height / 2 * grow, width / 2 * grow
    y1, y2, x1, x2 = map(away, (y - half_height, y + half_height, x - half_width, x + half_width))
    scale_y, scale_x = crop / (y2 - y1 + 1), crop / (x2 - x1 + 1)
    above, before, after = max(0, -y1), max(0, -x1), max(0, x2 - columns + 1)
    inside = (max(y1, 0), min(y2, rows - 1), max(x1, 0), min(x2, columns - 1))
    top, left = away(above * scale_y), away((after if mirror else before) * scale_x)
    size = away((inside[1] - inside[0] + 1) * scale_y), away((inside[3] - inside[2] + 1) * scale_x)
    return (top, left, min(size[0], crop - top), min(size[1], crop - left)), inside


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("corner", [(0, 0, 9, 14), (28, 20, 39, 29), (5, 6, 30, 12)])
def test_context_beyond_the_image_is_zero(folder, square, mirror, corner):
    window = ImageWindow(f"{folder}/one.png", 5, *corner)
    options = WindowOptions(
        crop=24, mirror=True, context_pad=4, square=square, mean_values=(100,), foreground_fraction=1, cache=True
    )
    data = batch(WindowReader("w", WindowFile([window], [], 3), 16, options))[0]
    (top, left, height, width), (y1, y2, x1, x2) = pad_by_hand(window, 24, 4, square, mirror, 30, 40)
    part = cv2.resize(image(1, 30, 40).transpose(1, 2, 0)[y1 : y2 + 1, x1 : x2 + 1], (width, height))
    want = np.zeros((3, 24, 24), np.float32)
    part = part[:, ::-1] if mirror else part
    want[:, top : top + height, left : left + width] = part.transpose(2, 0, 1).astype(np.float32) - 100
    assert any((item == want).all() for item in data), "one of 16 windows is mirrored, and one is not"
    if corner != (5, 6, 30, 12):
        assert (want == 0).any()


def test_the_mean_image_is_cropped_in_its_middle(folder):
    mean = image(3, 20, 20).astype(np.float32)
    write_mean(folder / "mean", mean)
    windows = WindowFile([], [ImageWindow(f"{folder}/two.png", 0, 0, 0, 19, 19)], 3)
    options = WindowOptions(crop=16, mean_file=str(folder / "mean"), foreground_fraction=0)
    data = batch(WindowReader("w", windows, 1, options))[0][0]
    part = cv2.resize(image(2, 20, 20).transpose(1, 2, 0), (16, 16)).transpose(2, 0, 1)
    np.testing.assert_array_equal(data, part - mean[:, 2:18, 2:18])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"context_pad": 8}, "crop_size 16 must be more than twice window_data_param.context_pad 8"),
        ({"mean_values": (1, 2)}, "2 mean_values for 3 channels"),
        ({"mean_values": (1,), "mean_file": "x"}, "not both"),
        ({"mean_file": "mean"}, r"mean has shape \(3, 10, 10\); it must hold a crop of 3 × 16 × 16"),
    ],
)
def test_options_that_cannot_be(folder, monkeypatch, options, message):
    monkeypatch.chdir(folder)
    write_mean("mean", np.zeros((3, 10, 10), np.float32))
    with pytest.raises(DataError, match=message):
        WindowReader("w", read(folder), 4, WindowOptions(crop=16, **options))


def test_a_kind_without_windows_is_an_error_only_if_it_is_asked_for(folder):
    windows = read(folder, fg=0.95)
    with pytest.raises(DataError, match="has no foreground windows"):
        WindowReader("w", windows, 4, WindowOptions(crop=16))
    WindowReader("w", windows, 3, WindowOptions(crop=16))


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (
            ImageWindow("one.png", 1, 5, 5, 40, 9),
            r"window \(5, 5, 40, 9\) .* is not within one.png, which is 40 wide and 30 high",
        ),
        (ImageWindow("one.png", 1, 9, 5, 5, 9), "is not within"),
        (ImageWindow("gone.png", 1, 0, 0, 5, 5), "image not found: gone.png"),
    ],
)
def test_windows_that_do_not_fit_are_named(folder, monkeypatch, window, message):
    monkeypatch.chdir(folder)
    reader = WindowReader("w", WindowFile([window], [], 3), 1, WindowOptions(crop=16, foreground_fraction=1))
    with pytest.raises((DataError, MissingFileError), match=message):
        batch(reader)
