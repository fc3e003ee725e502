"""DataHeatmap and EuclideanLossHeatmap, by data_heatmap.cpp and euclidean_loss_heatmap_layer.cpp of tpfister/caffe-heatmap."""

from __future__ import annotations

from pathlib import Path

import cv2
import data_source as ds
import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.data.image_list import read_image
from pycaffe_compat.data.joints import JointReader
from pycaffe_compat.errors import CaffeError, DataError, LayerError, MissingFileError
from pycaffe_compat.layers.data_layers import BatchSource

HEIGHT, WIDTH, CROP = 26, 34, 24
JOINTS = np.array([[15, 11], [9, 17], [20, 8]], np.float32)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """One picture, red at 5 × 5 pixels around the first joint, and its list; a second line has a picture that is narrow."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    x, y = JOINTS[0].astype(int)
    picture[y - 2 : y + 3, x - 2 : x + 3] = (0, 0, 200)
    (tmp_path / "segs").mkdir()
    assert cv2.imwrite(str(tmp_path / "a.png"), picture) and cv2.imwrite(str(tmp_path / "b.png"), picture[:, :20])
    assert cv2.imwrite(
        str(tmp_path / "segs" / "a.png"), np.where(np.arange(WIDTH) < x, 255, 30)[None].repeat(HEIGHT, 0)
    )
    numbers = ",".join(f"{value:g}" for value in JOINTS.ravel())
    (tmp_path / "list.txt").write_text(f"a.png {numbers} 0,0,0,0,0 0\nb.png {numbers} 0,0,0,0,0 0\n")
    return tmp_path


def source(folder: Path, options: str = "", sizes: str = "") -> BatchSource:
    sizes = sizes or f"batchsize: 2 cropsize: {CROP} outsize: 48 label_width: 12 label_height: 12"
    text = f"""type: "DataHeatmap" top: "data" top: "label" visualise: true
        heatmap_data_param {{ source: "{folder}/list.txt" root_img_dir: "{folder}/" {sizes} {options} }}"""
    return ds.build(text, seed=1)


def test_the_middle_is_cut_and_each_joint_has_a_hill(people: Path) -> None:
    data, label = ds.batch(source(people, "scale: 0.5"), fixed=True)
    assert data.shape == (2, 3, 48, 48) and label.shape == (2, 3, 12, 12)
    picture = read_image(people / "a.png").astype(np.float32)
    top, left = (HEIGHT - CROP) // 2, (WIDTH - CROP) // 2
    want = cv2.resize(picture[top : top + CROP, left : left + CROP, ::-1], (48, 48)) * 0.5
    np.testing.assert_allclose(data[0], want.transpose(2, 0, 1), atol=1e-4)
    assert data[0, 0].max() == 100 and not data[0, 1:].any()
    for item, corner in ((0, (left, top)), (1, (0, top))):
        for joint, (x, y) in enumerate((JOINTS - corner) * 2 / 4):
            for i in range(12):
                for j in range(12):
                    hill = 4 / (1.5 * np.sqrt(2 * np.pi)) * np.exp(-0.5 * ((i - y) ** 2 + (j - x) ** 2) / 1.5**2)
                    np.testing.assert_allclose(label[item, joint, i, j], hill, rtol=1e-4, atol=1e-12)
    assert not data[1, :, :, 40:].any()  # padded at the right


def test_joints_move_with_the_picture(people: Path) -> None:
    """The red pixels are where the hill of the first joint is, however it was cut, mirrored and turned."""
    (people / "list.txt").write_text((people / "list.txt").read_text().splitlines()[0])
    options = "random_crop: true angle_max: 40 labelinds: '1,2,5,6' multfact: 1 dont_flip_first: true flip_joint_labels: false"
    sizes = f"batchsize: 60 cropsize: {CROP} outsize: 48 label_width: 48 label_height: 48"
    data, label = ds.batch(source(people, options, sizes), fixed=True)
    assert label.shape == (60, 2, 48, 48)
    seen = 0
    for picture, hill in zip(data[:, 0], label[:, 0], strict=True):
        top = np.unravel_index(hill.argmax(), hill.shape)
        if min(top) > 6 and max(top) < 41:
            rows, columns = np.nonzero(picture > 100)
            np.testing.assert_allclose([rows.mean(), columns.mean()], top, atol=2)
            seen += 1
    assert seen > 30


@pytest.mark.parametrize(("first", "order"), [("false", [1, 0, 3, 2]), ("true", [0, 2, 1])])
def test_mirrored_people_exchange_joints(people: Path, first: str, order: list[int]) -> None:
    layer = source(people, f"dont_flip_first: {first} random_crop: true multfact: 2")
    joints = np.random.default_rng(0).random((len(order), 2)).astype(np.float32)
    picture = np.zeros((CROP, CROP, 3), np.float32)
    reader = layer._reader
    assert isinstance(reader, JointReader)
    made = reader.changed(picture, joints, [1, 0, 0, 2**63])[1]
    np.testing.assert_allclose(made, (joints * [-1, 1] + [CROP / 2, 0])[order] * 2, atol=1e-4)


def test_masks_blacken_what_lies_outside(people: Path) -> None:
    (people / "list.txt").write_text((people / "list.txt").read_text().splitlines()[0])
    data, _ = ds.batch(source(people, "segmentation: true"), fixed=True)
    plain, _ = ds.batch(source(people), fixed=True)
    edge = (int(JOINTS[0, 0]) - (WIDTH - CROP) // 2) * 2
    assert not data[0, 0, :, edge + 1 :].any() and plain[0, 0, :, edge + 1 :].any()
    np.testing.assert_array_equal(data[0, 0, :, : edge - 1], plain[0, 0, :, : edge - 1])


SIZES = f"batchsize: 1 cropsize: {CROP} outsize: 8 label_width: 4 label_height: 4"
FAULTS: dict[str, tuple[str, str, str, type[CaffeError], str]] = {
    "no size": ("", "", SIZES.replace("outsize: 8", ""), LayerError, "outsize 0; all must be at least 1"),
    "maps": (
        "",
        "",
        SIZES.replace("label_width: 4", "label_width: 5"),
        LayerError,
        "label_width is 5 and label_height 4",
    ),
    "mean": ("", "meanfile: 'm'", SIZES, LayerError, "heatmap_data_param.meanfile is not supported"),
    "picks": ("", "labelinds: '1,x'", SIZES, LayerError, "numbers from 1"),
    "many picks": ("", "labelinds: '1,9'", SIZES, DataError, "has 6 numbers, but labelinds asks for number 9"),
    "odd": ("a.png 1,2,3 0 0", "", SIZES, DataError, "list.txt:1: has 3 numbers; x and y"),
    "words": ("a.png 1,2 0", "", SIZES, DataError, 'list.txt:1: "a.png 1,2 0"; expected "IMAGE X,Y'),
    "unlike": (
        "a.png 1,2 0 0\na.png 1,2,3,4 0 0",
        "",
        SIZES,
        DataError,
        "list.txt:2: has 4 numbers, but the first line 2",
    ),
    "no picture": ("c.png 1,2 0 0", "", SIZES, MissingFileError, "c.png: image not found"),
    "low": (
        "",
        "",
        SIZES.replace(f"cropsize: {CROP}", "cropsize: 30"),
        DataError,
        "is 26 pixels high, less than cropsize 30",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_named(people: Path, case: str) -> None:
    lines, options, sizes, kind, words = FAULTS[case]
    if lines:
        (people / "list.txt").write_text(lines)
    with pytest.raises(kind, match=words):
        source(people, options, sizes)


def test_the_gradient_of_the_loss_is_the_difference() -> None:
    layer = gl.build('name: "l" type: "EuclideanLossHeatmap"', (2, 3, 4, 4), (2, 3, 4, 4), (2, 3, 8, 8))
    x, y = (torch.rand(2, 3, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = layer(x, y, torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(loss, (x - y).square().mean())
    (3 * loss).backward()
    torch.testing.assert_close(x.grad, x.detach() - y.detach())
    torch.testing.assert_close(y.grad, x.grad)
    with pytest.raises(LayerError, match="compares bottoms of one shape, not 2×3 and 2×4"):
        gl.build('type: "EuclideanLossHeatmap"', (2, 3), (2, 4), (2, 3))
