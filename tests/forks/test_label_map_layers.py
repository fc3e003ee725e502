"""Data layers of images with label maps. What they must make is worked out here by the formulas of their forks' sources."""

import copy
from pathlib import Path

import cv2
import data_source as ds
import numpy as np
import pytest
import torch

from pycaffe_compat.data import draws
from pycaffe_compat.data.mean import write_mean
from pycaffe_compat.errors import DataError, LayerError, MissingFileError
from pycaffe_compat.layers import layer_class
from pycaffe_compat.layers.data_layers import BatchSource
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

HEIGHT, WIDTH = 9, 12
PLACES = np.stack(np.mgrid[:HEIGHT, :WIDTH], -1).astype(np.uint8)


def label_at(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return (rows * 17 + columns * 5) % 21


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """A list of five images whose pixels tell their own place (row, column, number), and their label maps."""
    lines = []
    for number in range(5):
        image = np.concatenate([PLACES, np.full((HEIGHT, WIDTH, 1), number, np.uint8)], -1)
        labels = label_at(*np.moveaxis(PLACES.astype(int), -1, 0)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        cv2.imwrite(str(tmp_path / f"{number}_l.png"), labels)
        lines.append(f"/{number}.png /{number}_l.png")
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def make(
    kind: str, folder: Path, options: str = "", transform: str = "", phase: str = "TRAIN", tops: int = 2, fork: str = ""
):
    field = "dense_image_data_param" if kind == "DenseImageData" else "image_data_param"
    if "batch_size" not in options:
        options += " batch_size: 1"
    text = f"""type: "{kind}" {" ".join(f'top: "t{i}"' for i in range(tops))}
        {field} {{ source: "{folder}/list.txt" root_folder: "{folder}" {options} }} transform_param {{ {transform} }}"""
    return ds.build(text, phase, fork or FORKS.get(kind, "deconvnet"))


FORKS = {
    "DenseImageData": "segnet",
    "ImageSegData": "deeplab",
    "WindowSegData": "deconvnet",
    "ImageLabelmapData": "hed",
}
PIXEL = "label_type: PIXEL"
CROPPED = [
    ("DenseImageData", "batch_size: 64 mirror: true crop_height: 4 crop_width: 5", "", True),
    ("ImageSegData", f"batch_size: 64 {PIXEL}", "mirror: true crop_height: 4 crop_width: 5", False),
]


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
@pytest.mark.parametrize(("kind", "options", "transform", "random_in_test"), CROPPED)
def test_image_and_label_map_are_cropped_and_mirrored_alike(
    pairs: Path, kind: str, options: str, transform: str, random_in_test: bool, phase: str
) -> None:
    images, labels = ds.batch(make(kind, pairs, options, transform, phase))
    assert images.shape == (64, 3, 4, 5) and labels.shape == (64, 1, 4, 5)
    rows, columns = images[:, 0].astype(int), images[:, 1].astype(int)
    np.testing.assert_array_equal(labels[:, 0], label_at(rows, columns))
    assert ((rows[:, 1:] - rows[:, :-1]) == 1).all()
    steps = columns[:, :, 1:] - columns[:, :, :-1]
    assert (np.abs(steps) == 1).all() and 15 < (steps[:, 0, 0] == -1).sum() < 49
    corners = {(int(r), int(c)) for r, c in zip(rows[:, 0, 0], columns.min((1, 2)), strict=True)}
    if phase == "TRAIN" or random_in_test:
        assert len(corners) > 25 and {r for r, _ in corners} == set(range(HEIGHT - 4 + 1))
    else:
        assert corners == {((HEIGHT - 4) // 2, (WIDTH - 5) // 2)}
    assert images[:10, 2, 0, 0].tolist() == [0, 1, 2, 3, 4] * 2


@pytest.mark.parametrize("side", [11, 14])
def test_an_image_smaller_than_the_crop_is_padded_with_its_mean_and_ignore_label(pairs: Path, side: int) -> None:
    """TransformImgAndSeg of the fork: pads at the bottom and right, crops, mirrors, subtracts the mean."""
    options, transform = (
        f"batch_size: 8 ignore_label: 200 {PIXEL}",
        f"crop_size: {side} mirror: true mean_value: 3 scale: 0.5",
    )
    images, labels, sizes = ds.batch(make("ImageSegData", pairs, options, transform, "TEST", 3))
    seen = set()
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        whole, classes = np.full((side, max(side, WIDTH), 3), 3.0), np.full((side, max(side, WIDTH)), 200.0)
        whole[:HEIGHT, :WIDTH, :2], whole[:HEIGHT, :WIDTH, 2] = PLACES, index % 5
        classes[:HEIGHT, :WIDTH] = label_at(*np.moveaxis(PLACES.astype(int), -1, 0))
        whole, classes = whole[:, :side], classes[:, :side]  # (12 - 11) / 2 is 0
        mirrored = bool(label[0, 0, 0] != classes[0, 0])
        seen.add(mirrored)
        if mirrored:
            whole, classes = whole[:, ::-1], classes[:, ::-1]
        np.testing.assert_array_equal(image, (whole.transpose(2, 0, 1) - 3) * 0.5)
        np.testing.assert_array_equal(label[0], classes)
    assert seen == {False, True}
    assert sizes.shape == (8, 1, 1, 2) and sizes[0, 0, 0].tolist() == [HEIGHT, min(side, WIDTH)]


@pytest.mark.parametrize(("fork", "interpolation"), [("deeplab", cv2.INTER_LINEAR), ("deconvnet", cv2.INTER_NEAREST)])
def test_label_maps_are_resized_as_in_their_fork(
    pairs: Path, fork: str, interpolation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORKS, "ImageSegData", fork)
    images, labels = ds.batch(make("ImageSegData", pairs, f"new_height: 20 new_width: 7 {PIXEL}"))
    want = cv2.resize(cv2.imread(str(pairs / "0.png")), (7, 20))
    np.testing.assert_array_equal(images[0], want.transpose(2, 0, 1))
    grey = cv2.imread(str(pairs / "0_l.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(labels[0, 0], cv2.resize(grey, (7, 20), interpolation=interpolation))


def test_scale_factors_resize_both_before_the_crop(pairs: Path) -> None:
    options = f"batch_size: 40 ignore_label: 99 {PIXEL}"
    images, labels = ds.batch(
        make("ImageSegData", pairs, options, "crop_size: 20 scale_factors: 0.55 scale_factors: 1.5")
    )
    heights = ((labels[:, 0] != 99).sum(1).max(1)).tolist()  # rows that are not padding
    assert set(heights) == {4, 13}  # 9 · 0.55 = 4.95 and 9 · 1.5 = 13.5, rounded down
    assert 8 < heights.count(4) < 32
    at = heights.index(13)
    grey = cv2.imread(str(pairs / "0_l.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(labels[at, 0, :13, :18], cv2.resize(grey, (18, 13), interpolation=cv2.INTER_NEAREST))
    image = cv2.resize(cv2.imread(str(pairs / f"{at % 5}.png")), (18, 13))
    np.testing.assert_array_equal(images[at, :, :13, :18], image.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("lines", "options", "label"),
    [("/0.png 7", "", 7), ("/0.png 300", "", 255), ("/0.png", "label_type: NONE ignore_label: 9", 9)],
)
def test_one_label_or_none_fills_the_map(pairs: Path, lines: str, options: str, label: int) -> None:
    (pairs / "list.txt").write_text(lines)
    _, labels = ds.batch(make("ImageSegData", pairs, options))
    assert labels.shape == (1, 1, HEIGHT, WIDTH) and (labels == label).all()


@pytest.mark.parametrize("corners", [(2, 1, 8, 6), (-3, 2, 13, 10)])
def test_windows_are_cut_padded_and_resized(pairs: Path, corners: tuple[int, int, int, int]) -> None:
    """window_seg_data_layer.cpp: black and ignore_label outside; then resized, the label map to the nearest pixels."""
    (pairs / "list.txt").write_text(f"/1.png /1_l.png {' '.join(map(str, corners))}")
    options = f"new_height: 10 new_width: 14 ignore_label: 77 {PIXEL}"
    images, labels, sizes = ds.batch(make("WindowSegData", pairs, options, "mean_value: 2", tops=3))
    x1, y1, x2, y2 = corners
    image = np.pad(cv2.imread(str(pairs / "1.png")), ((3, 3), (3, 3), (0, 0)))
    grey = np.pad(cv2.imread(str(pairs / "1_l.png"), cv2.IMREAD_GRAYSCALE), 3, constant_values=77)
    window = (slice(y1 + 3, y2 + 4), slice(x1 + 3, x2 + 4))
    np.testing.assert_array_equal(images[0], cv2.resize(image[window], (14, 10)).transpose(2, 0, 1) - 2.0)
    np.testing.assert_array_equal(labels[0, 0], cv2.resize(grey[window], (14, 10), interpolation=cv2.INTER_NEAREST))
    assert sizes.flatten().tolist() == [HEIGHT, WIDTH]


CORNERS = (-1, 2, 8, 7)


def window(folder: Path, name: str, outside: int) -> np.ndarray:
    """The window CORNERS of a label map, resized to 10 × 14."""
    grey = np.pad(cv2.imread(str(folder / name), cv2.IMREAD_GRAYSCALE), 1, constant_values=outside)
    return cv2.resize(grey[3:9, 0:10], (14, 10), interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize("size", ["new_height: 10 new_width: 14", ""])
def test_windows_of_foreground_alone(pairs: Path, size: str) -> None:
    """window_seg_binary_layer.cpp, which looks at the places of the resized window only."""
    (pairs / "list.txt").write_text(f"/1.png /1_l.png {' '.join(map(str, CORNERS))}")
    _, labels = ds.batch(make("WindowSegBinary", pairs, f"{size} {PIXEL}"))
    if size:
        want = window(pairs, "1_l.png", 255)
        np.testing.assert_array_equal(labels[0, 0], np.where((want > 0) & (want < 255), 1, want))
    else:
        assert labels[labels != 255].max() > 1


def test_windows_of_one_instance(pairs: Path) -> None:
    """window_inst_seg_data_layer.cpp: other instances become another label; 0 and ignore_label are none."""
    instances = np.random.default_rng(0).choice(np.array([0, 1, 2, 3, 255], np.uint8), (HEIGHT, WIDTH))
    cv2.imwrite(str(pairs / "1_i.png"), instances)
    (pairs / "list.txt").write_text(f"/1.png /1_l.png /1_i.png {' '.join(map(str, CORNERS))} 2")
    options = f"new_height: 10 new_width: 14 other_object_label: 30 {PIXEL}"
    _, labels = ds.batch(make("WindowInstSegData", pairs, options))
    found = window(pairs, "1_i.png", 0)
    want = np.where(np.isin(found, [1, 3]), 30, window(pairs, "1_l.png", 255))
    np.testing.assert_array_equal(labels[0, 0], want)
    assert (want == 30).any() and (want == 255).any()


def test_which_classes_occur_in_a_window(pairs: Path) -> None:
    """window_cls_data_layer.cpp: 1 for each label of the crop but 0 and 255."""
    (pairs / "list.txt").write_text("/1.png /1_l.png 0 0 3 1\n/2.png /2_l.png 4 3 6 9\n")
    text = f"""name: "d" type: "WindowClsData" top: "x" top: "c" image_data_param {{ source: "{pairs}/list.txt" {PIXEL}
        root_folder: "{pairs}" batch_size: 2 new_height: 7 new_width: 4 }} window_cls_data_param {{ label_dim: 20 }}"""
    param = parse_text(text, caffe_pb2.LayerParameter)
    layer = layer_class(param)(param, [])
    assert layer.top_shapes() == [(2, 3, 7, 4), (2, 20, 1, 1)]
    _, occur = ds.batch(layer)
    for n, (x1, y1, x2, y2) in enumerate([(0, 0, 3, 1), (4, 3, 6, 8)]):
        rows, columns = np.mgrid[y1 : y2 + 1, x1 : x2 + 1]
        assert np.flatnonzero(occur[n]).tolist() == sorted(set((label_at(rows, columns) - 1).flatten()) - {-1})
    param.window_cls_data_param.label_dim = 3
    with pytest.raises(LayerError, match=r"is more than window_cls_data_param.label_dim: 3"):
        ds.batch(layer_class(param)(param, []))


def test_enets_label_maps_are_smaller_than_images(pairs: Path) -> None:
    images, labels = ds.batch(make("DenseImageData", pairs, "new_height: 16 new_width: 24 label_divide_factor: 8"))
    assert images.shape == (1, 3, 16, 24)
    grey = cv2.imread(str(pairs / "0_l.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(labels[0, 0], cv2.resize(grey, (3, 2), interpolation=cv2.INTER_NEAREST))


def test_segnets_mean_image_is_that_of_the_crop_and_not_mirrored(pairs: Path) -> None:
    mean = np.random.default_rng(0).uniform(0, 9, (3, 4, 5)).astype(np.float32)
    write_mean(pairs / "mean.binaryproto", mean)
    options = "batch_size: 20 mirror: true crop_height: 4 crop_width: 5"
    plain, _ = ds.batch(make("DenseImageData", pairs, options))
    images, labels = ds.batch(make("DenseImageData", pairs, options, f'mean_file: "{pairs}/mean.binaryproto" scale: 2'))
    np.testing.assert_array_equal(images, (plain - mean) * np.float32(2))
    assert labels.max() > 1


def test_an_edge_is_what_most_have_marked(pairs: Path) -> None:
    """image_labelmap_data_layer.cpp divides by 255 as OpenCV does, which rounds."""
    values = np.array([[0, 1, 127, 128, 200, 255]], np.uint8)
    cv2.imwrite(str(pairs / "e.png"), values)
    cv2.imwrite(str(pairs / "i.png"), np.zeros((1, 6, 3), np.uint8))
    (pairs / "list.txt").write_text("/i.png /e.png")
    _, labels = ds.batch(make("ImageLabelmapData", pairs))
    assert labels.flatten().tolist() == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(np.round(values[0] / 255), labels.flatten())


DILATION = """name: "d" type: "ImageLabelData" top: "x" top: "l" transform_param {{ {transform} }} image_label_data_param {{
    image_list_path: "{folder}/images" label_list_path: "{folder}/labels" data_dir: "{folder}" {options} }}"""
SLICE = "label_slice { dim: 3 dim: 2 stride: 2 stride: 3 offset: 2 offset: 1 }"


def dilation_layer(folder: Path, options: str, transform: str, phase: str = "TRAIN") -> BatchSource:
    pairs = [line.split() for line in (folder / "list.txt").read_text().splitlines()]
    for name, words in zip(("images", "labels"), zip(*pairs, strict=True), strict=True):
        (folder / name).write_text("\n".join(words))
    text = DILATION.format(folder=folder, options=options, transform=transform)
    param = parse_text(text, caffe_pb2.LayerParameter)
    param.phase = caffe_pb2.Phase.Value(phase)
    layer = layer_class(param)(param, [])
    layer.seed = 1
    return layer


@pytest.mark.parametrize("padding", ["REFLECT", "ZERO"])
def test_dilations_crops_have_a_margin_and_few_labels(pairs: Path, padding: str) -> None:
    """image_label_data_layer.cpp: a margin on each side, then up to the crop, then every few labels of it."""
    layer = dilation_layer(pairs, f"batch_size: 6 padding: {padding} {SLICE}", "crop_size: 17 mirror: true", "TEST")
    images, labels = ds.batch(layer)
    assert images.shape == (6, 3, 17, 17) and labels.shape == (6, 1, 3, 2)
    wide = "reflect" if padding == "REFLECT" else "constant"
    seen = set()
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        picture = cv2.imread(str(pairs / f"{number % 5}.png"))
        grey = cv2.imread(str(pairs / f"{number % 5}_l.png"), cv2.IMREAD_GRAYSCALE)
        # 9 + 2 · 2 rows lack 4, two at each end; 12 + 2 · 1 columns lack 3, two of them on the left
        for edges in (((2, 2), (1, 1)), ((2, 2), (2, 1))):
            picture = np.pad(picture, (*edges, (0, 0)), wide)
            grey = np.pad(grey, edges, constant_values=255)
        mirrored = not np.array_equal(image, picture.transpose(2, 0, 1))
        seen.add(mirrored)
        if mirrored:
            picture, grey = picture[:, ::-1], grey[:, ::-1]
        np.testing.assert_array_equal(image, picture.transpose(2, 0, 1))
        np.testing.assert_array_equal(label[0], grey[2:7:2, 1:5:3])
    assert seen == {False, True}


def test_dilations_random_scales(pairs: Path) -> None:
    """SampleScale: cubic where an image grows, means of areas where it shrinks; label maps by the nearest pixels."""
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        cv2.imwrite(str(pairs / f"{number}.png"), noise)
    text = "label_slice { dim: 40 dim: 40 stride: 1 stride: 1 offset: 0 offset: 0 }"
    options = f"batch_size: 12 padding: ZERO rand_scale: true min_scale: 0.5 max_scale: 2 {text}"
    layer = dilation_layer(pairs, options, "crop_size: 40", "TEST")
    images, labels = ds.batch(layer)
    factors = [0.5 + 1.5 * int(words[3]) / 2**64 for words in draws.words(layer.seed, np.arange(12), 4)]
    assert min(factors) < 1 < max(factors)
    for number, factor in enumerate(factors):
        kind = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
        image = cv2.resize(cv2.imread(str(pairs / f"{number % 5}.png")), None, fx=factor, fy=factor, interpolation=kind)
        grey = cv2.imread(str(pairs / f"{number % 5}_l.png"), cv2.IMREAD_GRAYSCALE)
        grey = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        top, left = (40 - grey.shape[0]) // 2, 40 - grey.shape[1] - (40 - grey.shape[1]) // 2
        at = (slice(top, top + grey.shape[0]), slice(left, left + grey.shape[1]))
        np.testing.assert_array_equal(labels[number, 0][at], grey)
        np.testing.assert_array_equal(images[number].transpose(1, 2, 0)[at], image)


@pytest.mark.parametrize(
    ("options", "transform", "words"),
    [
        (SLICE, "", "crop_size is 0"),
        ("", "crop_size: 9", "label_slice needs dim, stride and offset twice each"),
        (SLICE, "crop_size: 6", "takes 3 labels 2 apart from 2 on, but crops are 6 wide"),
        (
            f"{SLICE} rand_scale: true min_scale: 2",
            "crop_size: 9",
            "min_scale: 2 must be above 0 and at most max_scale: 1",
        ),
        (f"{SLICE} rand_skip: 9", "crop_size: 9", "rand_skip 9 is more than the 5 images"),
    ],
)
def test_faults_of_dilations_layer_are_named(pairs: Path, options: str, transform: str, words: str) -> None:
    with pytest.raises((DataError, LayerError), match=words):
        dilation_layer(pairs, options, transform)


def test_dilations_lists_are_of_one_length(pairs: Path) -> None:
    layer = dilation_layer(pairs, SLICE, "crop_size: 9")
    (pairs / "labels").write_text("/0_l.png")
    with pytest.raises(DataError, match=r"names 5 images, but .* 1 label maps"):
        type(layer)(layer.param, [])


@pytest.mark.parametrize("kind", ["DenseImageData", "ImageSegData"])
def test_a_run_that_is_resumed_or_copied_sees_the_same_batches(pairs: Path, kind: str) -> None:
    crop = "mirror: true crop_height: 4 crop_width: 5"
    how = ("shuffle: true rand_skip: 4 batch_size: 3 ", "")
    options, transform = (how[0] + crop, "") if kind == "DenseImageData" else (how[0] + PIXEL, crop)
    layer = make(kind, pairs, options, transform)
    layer.threads = 1
    wanted = [[top.clone() for top in layer()] for _ in range(6)]
    layer.close()
    other = make(kind, pairs, options, transform)
    other.seed, other.threads = 99, 3
    [other() for _ in range(2)]
    again = make(kind, pairs, options, transform)
    [again() for _ in range(3)]
    other.seek(again.state())
    for twin in (other, copy.deepcopy(again)):
        for number in range(3, 6):
            assert all(torch.equal(a, b) for a, b in zip(twin(), wanted[number], strict=True))
        twin.close()
    again.close()


def test_images_of_any_size_make_batches_of_one(pairs: Path) -> None:
    cv2.imwrite(str(pairs / "1.png"), np.zeros((4, 6, 3), np.uint8))
    cv2.imwrite(str(pairs / "1_l.png"), np.zeros((4, 6), np.uint8))
    layer = make("DenseImageData", pairs)
    assert [layer()[0].shape[2:] for _ in range(2)] == [(HEIGHT, WIDTH), (4, 6)]
    layer.close()
    layer = make("DenseImageData", pairs, "batch_size: 2")
    with pytest.raises(DataError, match=r'layer "d".*/1\.png: has 3 × 4 × 6 values.*need a crop, or batch_size: 1'):
        layer()
    layer.close()


@pytest.mark.parametrize(
    ("kind", "lines", "options", "transform", "words"),
    [
        ("DenseImageData", "/0.png", "", "", r'list.txt:1: "/0.png" has 1 words; expected "IMAGE LABELMAP"'),
        ("DenseImageData", "/0.png a b", "", "", "has 3 words"),
        ("DenseImageData", "", "", "", "is empty"),
        ("DenseImageData", "/0.png /none.png", "", "", "label map .*/none.png: image not found"),
        ("DenseImageData", "/0.png /small.png", "", "", "is 9 × 12 .*its label map .*small.png is 2 × 2"),
        ("DenseImageData", None, "crop_height: 4", "", "crop_height is 4 and crop_width 0; set both"),
        ("DenseImageData", None, "new_height: 4", "", "new_height is 4 and new_width 0"),
        ("DenseImageData", None, "crop_height: 10 crop_width: 4", "", "a crop of 10 × 4 .* larger than the image"),
        ("DenseImageData", None, "", "mirror: true", "would change only the image"),
        ("DenseImageData", None, "label_divide_factor: 2", "", "needs new_height and new_width"),
        ("DenseImageData", None, "rand_skip: 6", "", "rand_skip 6 is more than the 5 images"),
        ("DenseImageData", None, "batch_size: 0", "", "batch_size is 0"),
        ("ImageSegData", "/0.png x", "", "", '"x", where "IMAGE LABEL" has the integer LABEL'),
        ("ImageSegData", None, PIXEL, "crop_height: 3", "give crop_size, or both of the others"),
        ("ImageSegData", None, PIXEL, "scale_factors: 0", "each must be above 0"),
        ("ImageSegData", None, PIXEL, "scale_factors: 0.01", "cannot be resized to 0 × 0"),
        ("ImageSegData", None, PIXEL, 'mean_file: "m"', "does not take transform_param.mean_file"),
        ("ImageSegData", None, PIXEL, "mean_value: 1 mean_value: 2", "2 mean_values for 3 channels"),
        ("WindowSegData", "/0.png /0_l.png 3 3 2 4", PIXEL, "", r"image /0.png: window \(3, 3, 2, 4\).*is empty"),
        ("WindowSegData", "/0.png /0_l.png 3 3 2000000000 2000000000", PIXEL, "", "reaches too far outside"),
        ("ImageLabelmapData", None, "", "crop_size: 10", "larger than the image, which is 9 × 12"),
    ],
)
def test_faults_are_named(pairs: Path, kind: str, lines: str | None, options: str, transform: str, words: str) -> None:
    cv2.imwrite(str(pairs / "small.png"), np.zeros((2, 2), np.uint8))
    if lines is not None:
        (pairs / "list.txt").write_text(lines + "\n")
    with pytest.raises((DataError, LayerError, MissingFileError), match=words):
        ds.batch(make(kind, pairs, options, transform))


def test_a_net_trains_on_label_maps(pairs: Path) -> None:
    text = f"""layer {{ name: "d" type: "DenseImageData" top: "x" top: "l" dense_image_data_param {{
            source: "{pairs}/list.txt" root_folder: "{pairs}" batch_size: 2 }} transform_param {{ scale: 0.01 }} }}
        layer {{ name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param {{ num_output: 21 kernel_size: 1 }} }}
        layer {{ name: "s" type: "SoftmaxWithLoss" bottom: "c" bottom: "l" top: "loss" }}"""
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
    objective, _ = net.objective(net.draw())
    objective.backward()
    np.testing.assert_allclose(objective.item(), np.log(21), rtol=1e-5)
    net.close()


@pytest.mark.parametrize("normalize", [True, False])
def test_saliency_maps_may_keep_their_values(pairs: Path, normalize: bool) -> None:
    """image_labelmap_data_layer.cpp of Andrew-Qibin/caffe_dss: ``cv_gt / 255``, rounded, or ``cv_gt``."""
    grey = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) * 2
    for number in range(5):
        cv2.imwrite(str(pairs / f"{number}_l.png"), grey)
    options = f"normalize: {str(normalize).lower()}"
    _, labels = ds.batch(make("ImageLabelmapData", pairs, options, phase="TEST", fork="dss"))
    np.testing.assert_array_equal(labels[0, 0], np.rint(grey / 255) if normalize else grey)
