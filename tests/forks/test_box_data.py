"""BoxData of YOLO v1's and Intel's Caffe: pictures of a database, and the boxes in them."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import data_source as ds
import numpy as np
import pytest

from pycaffe_compat.data.database import DatabaseWriter
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.layers.data_layers import BatchSource
from pycaffe_compat.proto import caffe_pb2

HEIGHT, WIDTH = 120, 160
# class, difficult, centre, width and height; the last two share a cell of 3 x 3
BOXES = [
    [(1, 0, 0.25, 0.5, 0.3, 0.4)],
    [(0, 1, 0.7, 0.2, 0.2, 0.2), (2, 0, 0.45, 0.55, 0.1, 0.1), (3, 0, 0.5, 0.6, 0.3, 0.3)],
]


def write(path: Path, records: list[tuple[np.ndarray, list]], encoded: bool = True) -> str:
    with DatabaseWriter(path) as writer:
        for i, (picture, boxes) in enumerate(records):
            datum = caffe_pb2.Datum(channels=3, height=picture.shape[0], width=picture.shape[1], encoded=encoded)
            datum.data = cv2.imencode(".png", picture)[1].tobytes() if encoded else picture.tobytes()
            datum.float_data.extend(np.ravel(boxes))
            writer.put(f"{i:04}".encode(), datum.SerializeToString())
    return str(path)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two pictures, black with white boxes."""
    records = []
    for boxes in BOXES:
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for *_, x, y, w, h in boxes:
            rows = slice(round((y - h / 2) * HEIGHT), round((y + h / 2) * HEIGHT))
            picture[rows, round((x - w / 2) * WIDTH) : round((x + w / 2) * WIDTH)] = 255
        records.append((picture, boxes))
    return write(tmp_path_factory.mktemp("boxes") / "db", records)


def source(
    path: str, fork: str, side: str = "side: 3", more: str = "", train: bool = False, tops: int = 2
) -> BatchSource:
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    data = f'data_param {{ source: "{path}" batch_size: 2 {side} }}'
    text = f'type: "BoxData" {names} {data} transform_param {{ {more} }}'
    return ds.build(text, "TRAIN" if train else "TEST", fork)


def test_boxes_lie_in_the_cells_of_grids(database: str) -> None:
    data, coarse, fine = ds.batch(source(database, "yolo_v1", "side: 3 side: 7", "scale: 0.5", tops=3), fixed=True)
    assert data.shape == (2, 3, HEIGHT, WIDTH) and data.max() == 127.5 and fine.shape == (2, 7 * 49)
    for labels, side in ((coarse, 3), (fine, 7)):
        want = np.zeros((2, 7 * side**2), np.float32)
        want[:, 2 * side**2 : 3 * side**2] = -1
        for row, boxes in zip(want, BOXES, strict=True):
            for label, difficult, x, y, w, h in boxes:
                cell = side * int(y * side) + int(x * side)
                row[[cell, side**2 + cell, 2 * side**2 + cell]] = difficult, 1, label
                row[3 * side**2 + 4 * cell : 3 * side**2 + 4 * cell + 4] = x, y, w, h
        np.testing.assert_array_equal(labels, want)
    assert coarse[1, 9:18].sum() == 2  # of two boxes in a cell the last one stays


def test_intels_labels_are_a_list(database: str) -> None:
    _, labels = ds.batch(source(database, "intel", ""), fixed=True)
    want = np.zeros((2, 150), np.float32)
    for row, boxes in zip(want, BOXES, strict=True):
        row[: 5 * len(boxes)] = np.ravel([(label, *box) for label, _, *box in boxes])
    np.testing.assert_array_equal(labels, want)


def test_in_training_boxes_go_where_the_pixels_go(database: str) -> None:
    layer = source(database, "intel", "", train=True)
    seen = []
    for _ in range(20):
        data, labels = (top.clone().numpy() for top in layer())
        for picture, boxes in zip(data, labels.reshape(2, 30, 5), strict=True):
            for label, x, y, w, h in boxes:
                if w:
                    rows = slice(max(int((y - h / 2) * HEIGHT) + 4, 0), max(int((y + h / 2) * HEIGHT) - 4, 0))
                    columns = slice(max(int((x - w / 2) * WIDTH) + 4, 0), max(int((x + w / 2) * WIDTH) - 4, 0))
                    if picture[0, rows, columns].size:
                        assert picture[0, rows, columns].mean() > 240
                    seen.append((label, x, w))
    layer.close()
    widths = np.array([w for label, _, w in seen if label == 1])
    assert 0.29 < widths.min() < 0.32 and 0.38 < widths.max() < 0.45 and len({x for _, x, _ in seen}) > 30


def test_without_labels_pictures_stay_whole(database: str) -> None:
    (data,) = ds.batch(source(database, "intel", "", train=True, tops=1), fixed=True)
    assert data.shape == (2, 3, HEIGHT, WIDTH) and 0.11 < (data[0, 0] == 255).mean() < 0.13


def test_mirroring_pictures_alone_is_warned_of(database: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        source(database, "yolo_v1", more="mirror: true")
    assert "change only pictures, not their boxes" in caplog.text


@pytest.mark.parametrize(
    ("boxes", "fork", "message"),
    [
        ([(1, 0, 0.5, 0.5, 0.1)], "yolo_v1", "holds an encoded picture and 5 float_data; expected one, and 6 numbers"),
        ([(-1, 0, 0.5, 0.5, 0.1, 0.1)], "yolo_v1", "has a box of class -1; classes are from 0 on"),
        ([(1, 0, -0.5, 0.5, 0.1, 0.1)], "yolo_v1", "has a box whose centre is left of the picture or above it"),
        ([(1, 0, 0.5, np.nan, 0.1, 0.1)], "intel", "has a box with a number that is not finite"),
        ([(1, 0, 0.5, 0.5, 0.1, 0.1)] * 31, "intel", "has 31 boxes; a label of this layer holds 30"),
    ],
)
def test_records_that_cannot_be_are_errors(tmp_path: Path, boxes: list, fork: str, message: str) -> None:
    path = write(tmp_path / "db", [(np.zeros((9, 9, 3), np.uint8), boxes)])
    with pytest.raises(CaffeError, match=f'record "0000" of .*: {message}'):
        ds.batch(source(path, fork), fixed=True)


def test_a_box_outside_of_the_picture_cannot_be_trained_on(tmp_path: Path) -> None:
    path = write(tmp_path / "db", [(np.zeros((40, 40, 3), np.uint8), [(1, 0, 1.5, 0.5, 0.1, 0.1)])])
    with pytest.raises(CaffeError, match="has no box whose centre is within a part of the picture"):
        ds.batch(source(path, "intel", train=True), fixed=True)


def test_raw_pictures_and_wrong_sides_are_errors(tmp_path: Path, database: str) -> None:
    with pytest.raises(CaffeError, match="holds no encoded picture and 6 float_data"):
        source(write(tmp_path / "db", [(np.zeros((9, 9, 3), np.uint8), BOXES[0])], encoded=False), "yolo_v1")
    with pytest.raises(CaffeError, match=r"has 1 tops of labels; give data_param\.side, at least 1, for each"):
        source(database, "yolo_v1", "side: 3 side: 7")
