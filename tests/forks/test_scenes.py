"""ImageGtData of MS-CNN, DetectionData and EvalData of Cascade R-CNN: pictures, boxes and maps, by loops as in their sources."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import data_source as ds
import numpy as np
import pytest
from box_reference import common_part

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.forks.cascade_rcnn.detection_data import AspectOrder
from pycaffe_compat.layers.data_layers import BatchSource

# label, ignore, difficult, corners: one box is to be ignored, one is small, and one fits no field; and regions to leave alone
SCENES = [
    ((64, 96), [(1, 0, 0, 10, 8, 40, 40), (2, 0, 1, 60, 20, 90, 60), (1, 1, 0, 44, 2, 58, 16)], [(2, 30, 40, 63)]),
    ((96, 64), [(2, 0, 0, 20, 30, 50, 80), (1, 0, 0, 5, 5, 9, 9), (2, 0, 0, 2, 84, 60, 94)], []),
    ((64, 96), [], []),
]
FIELDS = [(30, 30, 8), (40, 24, 8), (56, 56, 16)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, black with white boxes, and their window files: a.txt of MS-CNN, b.txt of Cascade R-CNN."""
    folder = tmp_path_factory.mktemp("scenes")
    mscnn, cascade = "", ""
    for i, ((height, width), boxes, others) in enumerate(SCENES):
        picture = np.zeros((height, width, 3), np.uint8)
        for *_, x1, y1, x2, y2 in boxes:
            picture[y1 : y2 + 1, x1 : x2 + 1] = 255
        assert cv2.imwrite(str(folder / f"{i}.png"), picture)
        head, tail = f"# {i}\n{i}.png\n3\n{height}\n{width}\n{len(boxes)}\n", f"{len(others)}\n"
        tail += "".join(" ".join(map(str, other)) + "\n" for other in others)
        cascade += head + "".join(" ".join(map(str, box)) + "\n" for box in boxes) + tail
        mscnn += head + "".join(" ".join(map(str, (*box[:2], *box[3:]))) + "\n" for box in boxes) + tail
    (folder / "a.txt").write_text(mscnn)
    (folder / "b.txt").write_text(cascade)
    return folder


def source(
    folder: Path, kind: str, options: str, transform: str = "", fields: bool = True, seed: int = 1
) -> BatchSource:
    stride, file = ("downsample_rate", "a") if kind == "ImageGtData" else ("stride", "b")
    field = {
        "ImageGtData": "image_gt_data_param",
        "DetectionData": "detection_data_param",
        "EvalData": "eval_data_param",
    }[kind]
    shown = FIELDS if fields else []
    sizes = " ".join(f"field_w: {w} field_h: {h} {stride}: {s}" for w, h, s in shown)
    tops = " ".join(
        f'top: "t{i}"' for i in range(3 if kind == "EvalData" else 1 + len(shown) + ("output_gt" in options))
    )
    text = f"""type: "{kind}" {tops} transform_param {{ {transform} }}
        {field} {{ source: "{folder}/{file}.txt" root_folder: "{folder}/" {sizes} {options} }}"""
    return ds.build(text, "TRAIN", seed=seed)


def maps_of(boxes, others, size, inclusive: bool, threshold: float, pickup: float, margin=None, within=None):
    """The maps of a picture that fills the batch's; a box is label, ignored and corners."""
    edge = 1 if inclusive else 0
    maps, found, best = [], set(), {}
    for k, (fw, fh, stride) in enumerate(FIELDS):
        rows, columns = round(size[0] / stride), round(size[1] / stride)
        top = np.zeros((6, rows, columns))
        for r in range(rows):
            for c in range(columns):
                x, y = (c + 0.5) * stride, (r + 0.5) * stride
                field = (x - fw / 2, y - fh / 2, x + fw / 2, y + fh / 2)
                if margin is not None:
                    far = margin * fw / 2, margin * fh / 2
                    if (
                        field[0] < -far[0]
                        or field[2] >= size[1] + far[0]
                        or field[1] < -far[1]
                        or field[3] >= size[0] + far[1]
                    ):
                        top[5, r, c] = 1
                        continue
                elif within is not None and common_part(field, (0, 0, size[1], size[0]), "IOFU", True) < within:
                    top[5, r, c] = 1
                    continue
                alone = sum(common_part(field, other, "IOFU", inclusive) for other in others) >= 0.4
                if alone and not inclusive:
                    top[5, r, c] = 1
                    continue
                parts = [common_part(box[2:], field, "IOU", inclusive) for box in boxes]
                for i, part in enumerate(parts):
                    if part > best.get(i, (0, 0))[0]:
                        best[i] = (part, k)
                most = max(parts, default=0)
                top[5, r, c] = most
                if most > threshold:
                    label, ignored, x1, y1, x2, y2 = boxes[parts.index(most)]
                    found.add(parts.index(most))
                    top[:5, r, c] = (
                        0 if ignored else label,
                        (x1 + x2) / 2,
                        (y1 + y2) / 2,
                        x2 - x1 + edge,
                        y2 - y1 + edge,
                    )
                elif alone:
                    top[5, r, c] = 1
        maps.append(top)
    for i, (label, ignored, x1, y1, x2, y2) in enumerate(boxes):
        part, k = best.get(i, (0, 0))
        if ignored or i in found or part < pickup:
            continue
        stride, x, y = FIELDS[k][2], (x1 + x2) / 2, (y1 + y2) / 2
        r, c = min(int(y // stride), maps[k].shape[1] - 1), min(int(x // stride), maps[k].shape[2] - 1)
        if not maps[k][0, r, c] > 0:
            maps[k][:5, r, c] = label, x, y, x2 - x1 + edge, y2 - y1 + edge
            if inclusive:
                maps[k][5, r, c] = part
    return maps


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_image_gt_data_maps_what_is_at_each_place(folder: Path, threshold: float) -> None:
    layer = source(
        folder,
        "ImageGtData",
        f"batch_size: 1 resize_width: 128 resize_height: 96 fg_threshold: {threshold} scale: 0.5 output_gt_boxes: true "
        "min_gt_width: 15",
        "mean_value: 10 mean_value: 20 mean_value: 30",
    )
    for (height, width), boxes, others in SCENES:
        data, *maps, true = ds.batch(layer, close=False)
        assert [data.shape, true.shape[1:]] == [(1, 3, 96, 128), (7, 1, 1)]
        assert data[0, :, 0, 0].tolist() == [-5, -10, -15]
        scale = np.array([128 / width, 96 / height] * 2)
        moved = [(label, int(ignored or (x2 - x1) * scale[0] + 1 < 15), *(np.array([x1, y1, x2, y2]) * scale))
                 for label, ignored, _, x1, y1, x2, y2 in boxes]  # fmt: skip
        want = [(0, *box[2:], box[0], box[1]) for box in moved] or [(0, 1, 1, 2, 2, 1, 1)]
        np.testing.assert_allclose(true[:, :, 0, 0], want, rtol=1e-5)
        made = maps_of(moved, [np.array(other) * scale for other in others], (96, 128), False, threshold, 0.2)
        for have, wanted in zip(maps, made, strict=True):
            np.testing.assert_allclose(have[0], wanted, rtol=1e-4, atol=1e-4)
        assert not boxes or any(wanted[0].any() for wanted in made)
    layer.close()


@pytest.mark.parametrize(
    ("options", "limits"),
    [("", {}), ("anchor_ignore_margin_ratio: 0.5", {"margin": 0.5}), ("anchor_ignore_iou_thr: 0.7", {"within": 0.7})],
)
def test_detection_data_maps_what_is_at_each_place(folder: Path, options: str, limits: dict[str, float]) -> None:
    layer = source(
        folder,
        "DetectionData",
        "batch_size: 1 resize_width: 64 resize_height: 64 fg_threshold: 0.35 output_gt_boxes: true pickup_iou_thr: 0.1 "
        + options,
    )
    for (height, width), boxes, others in SCENES:
        _, *maps, true = ds.batch(layer, close=False)
        scale = np.array([64 / width, 64 / height] * 2)
        moved = [(label, ignored, *(np.array(corners) * scale)) for label, ignored, _, *corners in boxes]
        difficult = [box[2] for box in boxes]
        want = [(0, *box[2:], box[0], box[1], d) for box, d in zip(moved, difficult, strict=True)] or [[-1] * 8]
        np.testing.assert_allclose(true[:, :, 0, 0], want, rtol=1e-5)
        made = maps_of(moved, [np.array(other) * scale for other in others], (64, 64), True, 0.35, 0.1, **limits)
        for have, wanted in zip(maps, made, strict=True):
            np.testing.assert_allclose(have[0], wanted, rtol=1e-4, atol=1e-4)
    layer.close()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ImageGtData", "crop_width: 48 crop_height: 40"),
        ("ImageGtData", "resize_width: 72 resize_height: 72 crop_width: 80 crop_height: 64 do_multiple_scale: true min_scale: 10 "
         "max_scale: 80 min_whaspect: 0.5 max_whaspect: 2"),
        ("DetectionData", "crop_width: 48 crop_height: 40 low_scale_ratio: 0.5 high_scale_ratio: 3 multiscale_prob: 1"),
        ("DetectionData", "resize_ratio: 1.2 crop_short_size: 60 crop_long_size: 80 min_scale: 20 max_scale: 60 "
         "min_whaspect: 0.7 max_whaspect: 1.5"),
        ("DetectionData", "short_size: 64 long_size: 96 template_ratio: 0.5 template_ratio: 1 shuffle: \"random_aspect\""),
    ],
)  # fmt: skip
def test_boxes_go_where_the_pixels_go(folder: Path, kind: str, options: str) -> None:
    seen = 0
    for seed in range(12):
        layer = source(folder, kind, f"batch_size: 3 {options} output_gt_boxes: true", "mirror: true", seed=seed)
        data, *_, true = ds.batch(layer)
        for image, x1, y1, x2, y2, _, ignored, *_ in true[:, :, 0, 0]:
            rows = slice(max(math.ceil(y1 + 1), 0), max(math.floor(y2), 0))
            columns = slice(max(math.ceil(x1 + 1), 0), max(math.floor(x2), 0))
            inside = data[int(image), :, rows, columns]
            if inside.size > 60:
                seen += 1
                assert inside.mean() > 200, (seed, image, x1, y1, x2, y2)
            centre = (x1 + x2) / 2, (y1 + y2) / 2
            outside = not (0 <= centre[0] < data.shape[3] and 0 <= centre[1] < data.shape[2])
            assert ignored or not outside
    assert seen > 25


def test_the_first_picture_turns_a_batch(folder: Path) -> None:
    layer = source(folder, "DetectionData", "batch_size: 1 short_size: 64 long_size: 96")
    assert layer.known_shapes(layer.param) == [(1, 3, 96, 64), (1, 6, 12, 8), (1, 6, 12, 8), (1, 6, 6, 4)]
    assert [ds.batch(layer, close=False)[0].shape for _ in range(3)] == [(1, 3, 64, 96), (1, 3, 96, 64), (1, 3, 64, 96)]
    layer.close()
    assert ds.batch(source(folder, "DetectionData", "batch_size: 2", fields=False))[0].shape == (2, 3, 64, 96)


def test_high_and_wide_pictures_take_turns() -> None:
    high = np.array([True] * 5 + [False] * 7)
    for group, want in ((None, None), (2, [0, 0, 1, 1, 0, 0, 1, 1, 0])):
        order = AspectOrder(high, group)
        epochs = [[order.index(3, at) for at in range(12 * epoch, 12 * epoch + 12)] for epoch in range(6)]
        assert all(sorted(epoch) == list(range(12)) for epoch in epochs) and len(set(map(tuple, epochs))) > 3
        assert len({bool(high[epoch[0]]) for epoch in epochs}) == 2
        for epoch in epochs:
            kinds = [int(high[at] != high[epoch[0]]) for at in epoch]
            if want is None:
                assert kinds == sorted(kinds)
            else:
                assert kinds[:8] == want[:8]


def test_eval_data_gives_whole_pictures_and_their_sizes(folder: Path) -> None:
    layer = source(folder, "EvalData", "batch_size: 1 short_size: 100 long_size: 140", fields=False)
    data, true, size = ds.batch(layer, close=False)
    assert data.shape == (1, 3, 96, 128) and size.shape == (1, 2, 1, 1) and size.flatten().tolist() == [96, 128]
    scale = np.array([128 / 96, 96 / 64] * 2)
    want = [(0, *(np.array(box[3:]) * scale), *box[:3]) for box in SCENES[0][1]]
    np.testing.assert_allclose(true[:, :, 0, 0], want, rtol=1e-6)
    assert ds.batch(layer)[0].shape == (1, 3, 128, 96)
    with pytest.raises(CaffeError, match="batch_size: 2 must be 1 without resize_width"):
        source(folder, "EvalData", "batch_size: 2", fields=False)


def test_pictures_with_an_object_come_more_often(folder: Path) -> None:
    assert (
        source(folder, "ImageGtData", "batch_size: 1 resize_width: 64 resize_height: 64 fg_img_multiple: 3").records
        == 7
    )


def test_colours_change_within_the_options(folder: Path) -> None:
    options = (
        "batch_size: 3 resize_width: 64 resize_height: 64 distort_param { brightness_prob: 1 brightness_delta: 40 }"
    )
    data = ds.batch(source(folder, "DetectionData", options))[0]
    corners = data[:, 0, 0, 0]
    assert (corners > 0).any() and (corners <= 40).all() and len(set(corners.tolist())) > 1


@pytest.mark.parametrize(
    ("kind", "options", "transform", "message"),
    [
        ("ImageGtData", "batch_size: 1 coord_num: 5", "", "coord_num: 5 must be 4"),
        ("ImageGtData", "batch_size: 0", "", "batch_size is 0; it must be at least 1"),
        (
            "ImageGtData",
            "batch_size: 1",
            "scale: 2",
            "does not support transform_param.scale; give image_gt_data_param.scale",
        ),
        (
            "ImageGtData",
            "batch_size: 1",
            "crop_size: 2",
            "does not support transform_param.crop_size; it supports only mean_value, mirror",
        ),
        ("ImageGtData", "batch_size: 1 downsample_rate: 3", "", "they are given 3, 3, 4 times"),
        (
            "DetectionData",
            "batch_size: 1 short_size: 4",
            "",
            "is given short_size; give resize_width and resize_height, or",
        ),
        ("DetectionData", "batch_size: 1 short_size: 9 long_size: 9", "", "short_size: 9 must be below long_size: 9"),
        ("DetectionData", "batch_size: 1 resize_ratio: 0", "", "resize_ratio must be above 0"),
        ("DetectionData", 'batch_size: 1 shuffle: "often"', "", '"often" is not one of random, random_aspect'),
        ("DetectionData", "batch_size: 1 scale: 2", "", "give transform_param.scale"),
        (
            "DetectionData",
            "batch_size: 1 distort_param { contrast_prob: 1 contrast_lower: 2 contrast_upper: 1 }",
            "",
            "detection_data_param.distort_param: contrast_lower is 2",
        ),
    ],
)
def test_what_cannot_be_is_an_error(folder: Path, kind: str, options: str, transform: str, message: str) -> None:
    with pytest.raises(CaffeError, match=message):
        source(folder, kind, options, transform)


def test_boxes_without_area_in_their_pictures_are_told_of(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = "batch_size: 1 resize_width: 64 resize_height: 64"
    source(folder, "DetectionData", options)
    assert not caplog.records
    boxes = "1 0 0 20 20 1 1\n1 0 0 5 5 5 5\n1 0 0 90 1 99 9\n1 0 0 97 1 99 9\n1 0 0 -9 1 -2 9"
    (tmp_path / "0.png").write_bytes((folder / "0.png").read_bytes())
    (tmp_path / "b.txt").write_text(f"# 0 0.png 3 64 96 5\n{boxes}\n0")
    source(tmp_path, "DetectionData", options)
    [record] = caplog.records
    assert "3 boxes have no area within their pictures, such as 20 20 1 1 (X1 Y1 X2 Y2) of" in record.getMessage()


def test_errors_of_files_name_them(folder: Path, tmp_path: Path) -> None:
    kind, options = "DetectionData", "batch_size: 1 resize_width: 64 resize_height: 64"
    (tmp_path / "b.txt").write_text("# 0 0.png 3 64 96 1 1 0 0 10 8 40 40")
    with pytest.raises(
        CaffeError, match=r"b\.txt:1: the file ends where the number of regions to leave alone should be"
    ):
        source(tmp_path, kind, options)
    (tmp_path / "b.txt").write_text("# 0 0.png 3 64 96 1\n0 0 0 1 1 5 5\n0")
    with pytest.raises(CaffeError, match=r"b\.txt:3: label 0 of a box of .*0\.png; labels are from 1 on"):
        source(tmp_path, kind, options)
    (tmp_path / "b.txt").write_text("# 0 0.png 3 64 96 -1 0")
    with pytest.raises(CaffeError, match=r"b\.txt:1: the number of boxes is -1; it must be 0 or more"):
        source(tmp_path, kind, options)
    (tmp_path / "b.txt").write_text("# 0 0.png 3 64 96 1\n1 0 0 1 1 5 99999999999\n0")
    with pytest.raises(CaffeError, match=r"b\.txt:2: Y2 is 99999999999, which does not fit 32 bits"):
        source(tmp_path, kind, options)
    (tmp_path / "b.txt").write_text("# 0 0.png 3 64 64 0 0")
    with pytest.raises(CaffeError, match=r'layer "d".*0\.png'):
        ds.batch(source(tmp_path, kind, options))
    assert cv2.imwrite(str(tmp_path / "0.png"), np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(
        CaffeError, match=r"0.png: is 8 × 9 pixels \(height × width\), but the window file says 64 × 64"
    ):
        ds.batch(source(tmp_path, kind, options))
