"""SSD's AnnotatedData: boxes go where their objects go."""

import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import pycaffe_compat
from pycaffe_compat.commands import create_annoset
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.layers import layer_class
from pycaffe_compat.layers.variants import check_fork_options
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import Solver

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from samples import GOLDENS, annotated, database, encoded, image

PHOTOGRAPHS = sorted((GOLDENS / "images").glob("*"))
COLOURS = {1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)}
EXPAND = "expand_param { prob: 0.7 max_expand_ratio: 2.5 } mean_value: 60 mean_value: 62 mean_value: 64"
SAMPLERS = """annotated_data_param {
  batch_sampler { max_sample: 1 max_trials: 1 }
  batch_sampler { sampler { min_scale: 0.5 max_scale: 1 min_aspect_ratio: 0.6 max_aspect_ratio: 1.8 }
    sample_constraint { min_jaccard_overlap: 0.1 } max_sample: 1 max_trials: 50 }
  batch_sampler { sampler { min_scale: 0.5 } sample_constraint { max_jaccard_overlap: 1 } max_sample: 1 max_trials: 50 } }"""


def scene(number: int) -> tuple[np.ndarray, list]:
    """A dark photograph with a bright rectangle of each of some classes, apart from each other; and their boxes."""
    random = np.random.default_rng(number)
    photograph = cv2.imread(str(PHOTOGRAPHS[number % len(PHOTOGRAPHS)]), cv2.IMREAD_COLOR)
    height, width = int(random.integers(240, 360)), int(random.integers(240, 360))
    picture = cv2.resize(photograph, (width, height)) // 4
    boxes = []
    for place, label in enumerate(random.permutation(list(COLOURS))[: 1 + number % 3]):
        left, top = width * place // 3 + int(random.integers(2, 20)), int(random.integers(2, height // 2))
        right, bottom = (
            left + int(random.integers(20, width // 3 - 16)),
            top + int(random.integers(25, height // 2 - 2)),
        )
        picture[top:bottom, left:right] = COLOURS[label]
        corners = left / width, top / height, right / width, bottom / height
        boxes.append((int(label), corners, label == 2))
    return picture, boxes


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> str:
    return database(tmp_path_factory.mktemp("scenes") / "db", [annotated(*scene(i)) for i in range(12)])


def make(source: str, transform: str = "", more: str = "", batch: int = 4, phase: int = caffe_pb2.TRAIN, tops: int = 2):
    text = " ".join(f'top: "{name}"' for name in ("data", "label")[:tops])
    param = parse_text(
        f'name: "d" type: "AnnotatedData" {text} transform_param {{ {transform} }} {more} '
        f'data_param {{ source: "{source}" batch_size: {batch} backend: LMDB }}',
        caffe_pb2.LayerParameter,
    )
    param.phase = phase
    layer = layer_class(param)(param, [])
    layer.seed = 5
    return layer


def batches(layer, count: int) -> list:
    try:
        return [tuple(top.clone() for top in layer()) for _ in range(count)]
    finally:
        layer.close()


def visible(picture: np.ndarray, label: int) -> np.ndarray | None:
    """The corners of what has the colour of a class, in pixels: left, top, right, bottom."""
    rest = [channel for channel in range(3) if channel != label - 1]
    channels = picture.astype(np.float32)
    rows, columns = np.nonzero(channels[label - 1] - channels[rest].max(0) > 100)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) if len(rows) else None


def check_boxes(images: torch.Tensor, labels: torch.Tensor, mean: tuple = (0, 0, 0), pixels: float = 4) -> int:
    """Each box is around its colour, and each colour of some size has a box; return how many boxes there were.

    Windows are cut in whole pixels, and their boxes in fractions: that is a pixel, which resizing makes larger.
    """
    pictures = images.numpy() + np.array(mean, np.float32)[:, None, None]
    height, width = pictures.shape[2:]
    rows = labels.numpy()[0, 0]
    for number, label, instance, *corners, difficult in rows:
        found = visible(pictures[int(number)], int(label))
        want = np.array(corners) * [width, height, width, height]
        if found is None:  # a sliver
            assert min(want[2] - want[0], want[3] - want[1]) < pixels
            continue
        np.testing.assert_allclose(found, want, atol=pixels)
        assert instance == 0 and difficult == (label == 2)
    boxed = {(int(row[0]), int(row[1])) for row in rows}
    for number, picture in enumerate(pictures):
        for label in COLOURS:
            found = visible(picture, label)
            if found is not None and (number, label) not in boxed:
                assert min(found[2] - found[0], found[3] - found[1]) < 2 * pixels
    return len(rows)


@pytest.mark.parametrize(
    ("transform", "more", "mean"),
    [
        ("resize_param { height: 200 width: 240 }", "", (0, 0, 0)),
        ("mirror: true resize_param { height: 200 width: 240 interp_mode: AREA interp_mode: CUBIC }", "", (0, 0, 0)),
        (f"mirror: true resize_param {{ height: 220 width: 200 }} {EXPAND}", "", (60, 62, 64)),
        (f"mirror: true resize_param {{ height: 220 width: 200 }} {EXPAND}", SAMPLERS, (60, 62, 64)),
        ("mirror: true crop_size: 100", "", (0, 0, 0)),
        ("mirror: true crop_h: 100 crop_w: 120", SAMPLERS.replace("0.5", "0.9"), (0, 0, 0)),
        (
            "mirror: true resize_param { height: 200 width: 160 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 9 }",
            SAMPLERS,
            (0, 0, 0),
        ),
        ("crop_size: 150 resize_param { height: 180 width: 170 resize_mode: FIT_LARGE_SIZE_AND_PAD }", "", (0, 0, 0)),
        (
            "mirror: true resize_param { height: 200 width: 200 } distort_param { brightness_prob: 0.5 "
            "brightness_delta: 15 contrast_prob: 0.5 contrast_lower: 0.8 contrast_upper: 1.2 }",
            SAMPLERS,
            (0, 0, 0),
        ),
    ],
)
@pytest.mark.parametrize("phase", [caffe_pb2.TRAIN, caffe_pb2.TEST])
def test_boxes_stay_around_their_objects(scenes, transform, more, mean, phase) -> None:
    found = 0
    for images, labels in batches(make(scenes, transform, more, phase=phase), 5):
        assert labels.shape[:2] == (1, 1) and labels.shape[3] == 8 and labels.dtype == torch.float32
        found += check_boxes(images, labels, mean)
    assert found > 10


def test_boxes_are_those_of_the_crop_within_intels_margin(scenes) -> None:
    """intel/caffe, data_transformer.cpp: crop_bbox leaves ``pad`` out."""
    options = "mirror: true crop_size: 100 random_resize_param { min_size: 110 max_size: 150 }"
    plain, padded = (batches(make(scenes, options + more, batch=4), 3) for more in ("", " pad: 7"))
    assert sum(check_boxes(images, labels) for images, labels in plain) > 5
    for (images, labels), (larger, same) in zip(plain, padded, strict=True):
        torch.testing.assert_close(same, labels)
        torch.testing.assert_close(larger[..., 7:-7, 7:-7], images)


def test_without_options_a_batch_holds_what_the_records_hold(tmp_path) -> None:
    picture, boxes = scene(2)
    boxes.append((boxes[0][0], (0.1, 0.1, 0.3, 0.2), True))
    source = database(tmp_path / "db", [annotated(picture, boxes), annotated(picture)])
    layer = make(source, batch=2)
    assert layer.top_shapes() == [(2, 3, *picture.shape[:2]), (1, 1, 4, 8)]
    [(images, labels)] = batches(layer, 1)
    np.testing.assert_array_equal(images[1].numpy(), picture.transpose(2, 0, 1))
    groups = sorted(range(4), key=lambda i: [box[0] for box in boxes].index(boxes[i][0]))
    want = [[0, boxes[i][0], int(i == 3), *boxes[i][1], boxes[i][2]] for i in groups]
    np.testing.assert_allclose(labels.numpy()[0, 0], np.array(want, np.float32), rtol=1e-6)
    assert batches(make(source, tops=1), 1)[0][0].shape[0] == 4


def test_a_batch_without_boxes_has_one_row_of_minus_one(tmp_path, caplog) -> None:
    picture, boxes = scene(0)
    source = database(tmp_path / "db", [annotated(picture)] * 3)
    for _, labels in batches(make(source, batch=2), 3):
        assert labels.shape == (1, 1, 1, 8) and bool((labels == -1).all())
    [record] = caplog.records
    assert record.getMessage() == f"{source}: the last 4 images had no box, so nothing is learned from them"
    caplog.clear()
    batches(make(database(tmp_path / "some", [annotated(picture), annotated(picture, boxes)]), batch=1), 5)
    assert not caplog.records


def test_boxes_of_no_number_are_dropped_with_one_warning(tmp_path, caplog) -> None:
    nan, inf = float("nan"), float("inf")
    boxes = [
        (1, (nan, 0, 1, 1)),
        (1, (0, 0, inf, 1)),
        (1, (0.5, 0.5, 0.2, 0.9)),
        (1, (0.3, 0.3, 0.3, 0.9)),
        (1, (2, 0, 3, 1)),
    ]
    source = database(tmp_path / "db", [annotated(scene(0)[0], boxes)] * 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        [(_, labels)] = batches(make(source, "mirror: true", batch=1), 1)
    assert labels.tolist() == [[[[0, 1, 1, 0, 0, 1, 1, 0]]]]
    [record] = caplog.records
    assert "db: 4 of its 5 boxes are left out, as in SSD's Caffe: they have no area" in record.getMessage()
    assert "such as (nan, 0, 1, 1)" in record.getMessage()


def test_records_without_a_type_have_the_labels_of_their_datums(tmp_path) -> None:
    datums = [caffe_pb2.AnnotatedDatum(datum=encoded(image(i), 7 + i)) for i in range(3)]
    layer = make(database(tmp_path / "db", datums), batch=3)
    assert layer.top_shapes()[1] == (3, 1, 1, 1)
    [(_, labels)] = batches(layer, 1)
    assert labels.flatten().tolist() == [7, 8, 9] and labels.shape == (3, 1, 1, 1)


AUGMENT = (
    f"mirror: true resize_param {{ height: 90 width: 80 interp_mode: AREA interp_mode: NEAREST }} {EXPAND} "
    "noise_param { saltpepper: true saltpepper_param { fraction: 0.1 value: 255 } } emit_constraint { emit_type: CENTER } "
    "distort_param { brightness_prob: 0.5 brightness_delta: 32 contrast_prob: 0.5 contrast_lower: 0.5 contrast_upper: 1.5 "
    "hue_prob: 0.5 hue_delta: 18 saturation_prob: 0.5 saturation_lower: 0.5 saturation_upper: 1.5 random_order_prob: 0.3 }"
)


@pytest.mark.parametrize("on_device", [False, True])
def test_batches_depend_on_seed_and_position_alone(scenes, on_device) -> None:
    layer = make(scenes, AUGMENT, SAMPLERS)
    layer.threads = 1
    want = batches(layer, 4)
    assert "reading, decoding and augmenting pictures to 85² pixels" in layer.describe_effort()
    other = make(scenes, AUGMENT, SAMPLERS)
    other.seek({"seed": 5, "position": 8})
    other.threads = 3
    other.device_transform = on_device
    for one, two in zip(want[2:], batches(other, 2), strict=True):
        assert all(map(torch.equal, one, two))
    assert not torch.equal(want[0][0], want[3][0])  # the same pictures, in the next epoch
    other.seed = 6
    assert not torch.equal(batches(other, 1)[0][0], want[0][0])


def test_raw_records_are_cut_and_moved_but_keep_their_colours(tmp_path, caplog) -> None:
    source = database(tmp_path / "db", [annotated(*scene(i), kind="") for i in range(6)])
    transform = (
        "mirror: true resize_param { height: 200 width: 200 } expand_param { prob: 1 max_expand_ratio: 3 } "
        "distort_param { brightness_prob: 1 brightness_delta: 200 } noise_param { inverse: true }"
    )
    for images, labels in batches(make(source, transform, SAMPLERS), 3):
        check_boxes(images, labels)
        assert images.max() > 250
    assert "distort_param applies to encoded images only" in caplog.text
    assert "noise_param applies to encoded images only" in caplog.text


@pytest.mark.parametrize(
    ("record", "transform", "more", "message"),
    [
        (encoded(image()), "", "", "a plain Datum, which a Data layer reads"),
        (
            b"\xff\xff",
            "",
            "",
            r'record "00000000" of .*db: is not an AnnotatedDatum: protobuf cannot parse its 2 bytes',
        ),
        (annotated(scene(0)[0]), "resize_param { height: 3 }", "", "height is 3 and width 0; both must be at least 1"),
        (
            annotated(scene(0)[0]),
            "resize_param { height: 3 width: 3 resize_mode: FIT_SMALL_SIZE }",
            "",
            "batch_size is 4, .* FIT_SMALL_SIZE .* set batch_size: 1",
        ),
        (annotated(scene(0)[0]), "resize_param { height: 3 width: 3 is_pyramid_test: true }", "", "is_pyramid_test"),
        (annotated(scene(0)[0]), "expand_param { prob: 1 }", "", "max_expand_ratio is 1; it must be above 1"),
        (
            annotated(scene(0)[0]),
            'expand_param { max_expand_ratio: 2 } mean_file: "m"',
            "",
            "beside mean_file|not found",
        ),
        (annotated(scene(0)[0]), "distort_param { hue_prob: 1 hue_delta: -1 }", "", "hue_delta is -1"),
        (annotated(scene(0)[0]), "noise_param { saltpepper: true }", "", "needs saltpepper_param.value"),
        (
            annotated(scene(0)[0]),
            "",
            "annotated_data_param { batch_sampler { } batch_sampler { sampler { min_scale: 2 } } }",
            r"batch_sampler\[1\]\.sampler: min_scale is 2 and max_scale 1; expected 0 < min_scale ≤ max_scale ≤ 1",
        ),
    ],
)
def test_what_cannot_be_used_is_one_error(tmp_path, record, transform, more, message) -> None:
    with pytest.raises(CaffeError, match=message):
        make(database(tmp_path / "db", [record]), transform, more)


def test_what_reads_and_what_makes_a_database_is_said(scenes, tmp_path) -> None:
    with pytest.raises(
        CaffeError, match=r"database not found: .*caffe-create-annoset --anno-type detection ROOT LISTFILE"
    ):
        make(str(tmp_path / "none"))
    param = parse_text(f'type: "Data" data_param {{ source: "{scenes}" batch_size: 1 }}', caffe_pb2.LayerParameter)
    with pytest.raises(
        CaffeError, match="is an AnnotatedDatum of SSD's Caffe, not a Datum: an AnnotatedData layer reads it"
    ):
        layer_class(param)(param, [])


def test_pictures_of_different_sizes_need_one_size(scenes) -> None:
    with pytest.raises(CaffeError, match="records of different sizes need a crop_size"):
        batches(make(scenes), 1)


def test_small_sides_fit_one_picture_a_batch(scenes) -> None:
    layer = make(scenes, "resize_param { height: 150 width: 150 resize_mode: FIT_SMALL_SIZE }", SAMPLERS, batch=1)
    sizes = set()
    for images, labels in batches(layer, 8):
        assert min(images.shape[2:]) == 150
        sizes.add(tuple(images.shape[2:]))
        check_boxes(images, labels)
    assert len(sizes) > 3


def test_boxes_can_be_in_pixels_of_their_own_scale(scenes) -> None:
    more = "height_scale: 50 width_scale: 100"
    resize = "resize_param { height: 150 width: 150 resize_mode: FIT_SMALL_SIZE %s }"
    plain, scaled = (batches(make(scenes, resize % each, batch=1), 3) for each in ("", more))
    for (images, one), (_, two) in zip(plain, scaled, strict=True):
        height, width = images.shape[2:]
        factors = torch.tensor([width / 100, height / 50] * 2)
        torch.testing.assert_close(one[0, 0, :, 3:7] * factors, two[0, 0, :, 3:7], rtol=2e-2, atol=0)


def test_plain_data_does_not_change_colours(caplog) -> None:
    param = parse_text('type: "Data" transform_param { distort_param { hue_prob: 1 } }', caffe_pb2.LayerParameter)
    with caplog.at_level("INFO"):
        check_fork_options(param, layer_class(param), "here", set())
    assert "transform_param.distort_param of SSD" in caplog.text
    assert "has no effect here: the colours of pictures, in AnnotatedData only" in caplog.text


DETECTOR = """layer {{ name: "d" type: "AnnotatedData" top: "data" top: "label" transform_param {{ {transform} }} {more}
  data_param {{ source: "{source}" batch_size: 4 backend: LMDB }} }}
layer {{ name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param {{ num_output: 6 kernel_size: 16 stride: 16
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loc" type: "Convolution" bottom: "c" top: "l" convolution_param {{ num_output: 4 kernel_size: 1
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "conf" type: "Convolution" bottom: "c" top: "f" convolution_param {{ num_output: 4 kernel_size: 1
  weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "lp" type: "Permute" bottom: "l" top: "lp" permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "fp" type: "Permute" bottom: "f" top: "fp" permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "lf" type: "Flatten" bottom: "lp" top: "lf" }}
layer {{ name: "ff" type: "Flatten" bottom: "fp" top: "ff" }}
layer {{ name: "p" type: "PriorBox" bottom: "c" bottom: "data" top: "p" prior_box_param {{ min_size: 30 variance: 0.1 }} }}
layer {{ name: "loss" type: "MultiBoxLoss" bottom: "lf" bottom: "ff" bottom: "p" bottom: "label" top: "loss"
  include {{ phase: TRAIN }} multibox_loss_param {{ num_classes: 4 }} }}
"""


def test_a_detector_trains_and_resumes_bit_for_bit(scenes, tmp_path) -> None:
    (tmp_path / "net.prototxt").write_text(DETECTOR.format(source=scenes, transform=AUGMENT, more=SAMPLERS))
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 max_iter: 9 random_seed: 2 '
        f'snapshot_prefix: "{tmp_path}/s"'
    )
    solver = Solver(str(tmp_path / "solver.prototxt"))
    solver.step(2)
    solver.snapshot()
    solver.step(3)
    again = Solver(str(tmp_path / "solver.prototxt"))
    again.restore(str(tmp_path / "s_iter_2.solverstate"))
    again.step(3)
    for one, two in zip(solver.net.learnable, again.net.learnable, strict=True):
        assert torch.equal(one.tensor, two.tensor) and bool(torch.isfinite(one.tensor).all())
    solver.net.close()
    again.net.close()


def test_blobs_of_pycaffe_take_the_size_of_each_label(scenes, tmp_path) -> None:
    transform = "resize_param { height: 60 width: 80 }"
    (tmp_path / "net.prototxt").write_text(DETECTOR.format(source=scenes, transform=transform, more=""))
    net = pycaffe_compat.Net(str(tmp_path / "net.prototxt"), pycaffe_compat.TEST)
    assert net.blobs["label"].shape[:2] == (1, 1)
    rows = []
    for _ in range(3):
        net.forward()
        label = net.blobs["label"].data
        assert label.shape == tuple(net.blobs["label"].shape) and label[0, 0, -1, 0] == 3
        rows.append(label.shape[2])
    assert rows == [7, 8, 9]
    net.module.close()


def test_a_database_that_caffe_create_annoset_made(tmp_path, monkeypatch) -> None:
    """VOC's files, the command, the layer: the boxes are where the objects are."""
    names = {1: "red", 2: "green", 3: "blue"}
    lines = []
    for number in range(4):
        picture, boxes = scene(number)
        height, width = picture.shape[:2]
        objects = "".join(
            f"<object><name>{names[label]}</name><difficult>{int(difficult)}</difficult><bndbox>"
            + "".join(
                f"<{edge}>{round(at * side)}</{edge}>"
                for edge, at, side in zip(("xmin", "ymin", "xmax", "ymax"), corners, (width, height) * 2, strict=True)
            )
            + "</bndbox></object>"
            for label, corners, difficult in boxes
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        (tmp_path / f"{number}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), picture)
        lines.append(f"{number}.jpg {number}.xml\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    items = (f'item {{ name: "{name}" label: {label} }}' for label, name in names.items())
    (tmp_path / "map.prototxt").write_text(" ".join(items))
    monkeypatch.chdir(tmp_path)
    flags = ["--anno-type=detection", "--label-map-file=map.prototxt", "--encode-type=jpg", "--encoded"]
    assert create_annoset.main([*flags, ".", "list.txt", "db"]) == 0
    transform = f"mirror: true resize_param {{ height: 200 width: 240 }} {EXPAND}"
    found = [check_boxes(*each, (60, 62, 64)) for each in batches(make("db", transform, SAMPLERS), 4)]
    assert sum(found) > 10
