import copy
import json
import re
import sys
import time
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from golden_files import ROOT, golden

from pycaffe_compat.data.datum import array_to_datum
from pycaffe_compat.data.mean import write_mean
from pycaffe_compat.errors import DataError, LayerError, MissingFileError
from pycaffe_compat.layers import layer_class
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from samples import database, encoded, image, raw_database

GOLDEN = golden("data", "data_layers")


def make(text, phase=caffe_pb2.TEST):
    param = parse_text(f'name: "d" {text}', caffe_pb2.LayerParameter)
    param.phase = phase
    return layer_class(param)(param, [])


def data_layer(source, batch=4, transform="", phase=caffe_pb2.TRAIN, more=""):
    options = f'source: "{source}" batch_size: {batch} backend: LMDB {more}'
    return make(f'type: "Data" top: "data" top: "label" data_param {{ {options} }} {transform}', phase)


def batches(layer, count):
    made = [[top.clone() for top in layer()] for _ in range(count)]
    layer.close()
    return made


def same(one, two):
    pairs = zip(one, two, strict=True)
    return all(torch.equal(a, b) for x, y in pairs for a, b in zip(x, y, strict=True))


@pytest.mark.parametrize("case", GOLDEN.meta["cases"])
@pytest.mark.parametrize("threads", [1, 3])
def test_caffes_batches(case, threads, monkeypatch):
    monkeypatch.chdir(ROOT / "data")
    net = parse_text(GOLDEN.meta["cases"][case], caffe_pb2.NetParameter)
    param = net.layer[0]
    param.phase = caffe_pb2.TEST
    layer = layer_class(param)(param, [])
    layer.threads = threads
    for number in range(3):
        tops = layer()
        assert [tuple(top.shape) for top in tops] == layer.top_shapes()
        for name, top in zip(param.top, tops, strict=True):
            assert top.dtype == torch.float32
            np.testing.assert_array_equal(top.numpy(), GOLDEN.arrays[f"{case}/{number}/{name}"])
    layer.close()


@pytest.mark.parametrize("case", GOLDEN.meta["cases"])
def test_caffes_batches_transformed_on_the_device(case, monkeypatch):
    monkeypatch.chdir(ROOT / "data")
    net = parse_text(GOLDEN.meta["cases"][case], caffe_pb2.NetParameter)
    param = net.layer[0]
    param.phase = caffe_pb2.TEST
    layer = layer_class(param)(param, [])
    if not layer.transforms_bytes:
        with pytest.raises(LayerError, match="does not transform images on a device"):
            layer.device_transform = True
        return
    layer.device_transform = True
    for number in range(3):
        for name, top in zip(param.top, layer(), strict=True):
            np.testing.assert_array_equal(top.numpy(), GOLDEN.arrays[f"{case}/{number}/{name}"])
    layer.close()


@pytest.fixture
def source(tmp_path):
    return raw_database(tmp_path / "db", [image(i, 9, 8) for i in range(10)])


AUGMENT = "transform_param { crop_size: 5 mirror: true }"


def test_threads_do_not_change_what_is_drawn(source):
    made = []
    for threads in (1, 2, 5):
        layer = data_layer(source, 4, AUGMENT)
        layer.seed, layer.threads = 3, threads
        made.append(batches(layer, 8))
    assert same(made[0], made[1])
    assert same(made[0], made[2])
    other = data_layer(source, 4, AUGMENT)
    other.seed = 4
    assert not same(made[0], batches(other, 8))


def test_crops_reach_every_place_and_are_mirrored_in_half_of_the_cases(tmp_path):
    planes = image(0, 9, 8, 1)
    layer = data_layer(raw_database(tmp_path / "db", [planes]), 200, AUGMENT)
    layer.seed = 1
    [[data, _]] = batches(layer, 1)
    windows = {}
    for top in range(5):
        for left in range(4):
            part = planes[0, top : top + 5, left : left + 5]
            windows[part.tobytes()], windows[part[:, ::-1].tobytes()] = (top, left, 0), (top, left, 1)
    seen = [windows[item[0].astype(np.uint8).tobytes()] for item in data.numpy()]
    assert {place[:2] for place in seen} == {(top, left) for top in range(5) for left in range(4)}
    assert 70 < sum(place[2] for place in seen) < 130


@pytest.mark.parametrize("on_device", [False, True])
def test_images_are_resized_and_changed_first(tmp_path, on_device):
    """SSD's resize_param and noise_param, in Data and ImageData; noise only where an image was encoded."""
    pictures = [image(i, 9 + i, 8) for i in range(4)]
    transform = (
        "transform_param { crop_h: 4 crop_w: 5 mean_value: 3 resize_param { height: 6 width: 7 interp_mode: AREA } "
        "noise_param { inverse: true } }"
    )
    resized = [cv2.resize(each.transpose(1, 2, 0), (7, 6), interpolation=cv2.INTER_AREA) for each in pictures]
    cut = np.stack([each.transpose(2, 0, 1)[:, 1:5, 1:6] for each in resized]).astype(np.float32)
    encoded_ones = database(tmp_path / "encoded", [encoded(each) for each in pictures])
    raw_ones = raw_database(tmp_path / "raw", pictures)
    for number, each in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{number}.png"), each.transpose(1, 2, 0))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{number}.png 0\n" for number in range(4)))
    listed = f'type: "ImageData" top: "a" top: "b" image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 4 }}'
    for layer, want in (
        (data_layer(encoded_ones, 4, transform, caffe_pb2.TEST), 252 - cut),
        (data_layer(raw_ones, 4, transform, caffe_pb2.TEST), cut - 3),
        (make(f"{listed} {transform}"), 252 - cut),
    ):
        assert layer.top_shapes()[0] == type(layer).known_shapes(layer.param, 3)[0] == (4, 3, 4, 5)
        layer.device_transform = on_device
        np.testing.assert_array_equal(batches(layer, 1)[0][0].numpy(), want)


@pytest.mark.parametrize("phase", (caffe_pb2.TRAIN, caffe_pb2.TEST))
def test_crops_need_not_be_square(tmp_path, phase):
    """Forks' crop_h and crop_w: the window is part of the record, in its middle if not drawn."""
    planes = image(3, 9, 8)
    layer = data_layer(
        raw_database(tmp_path / "db", [planes]), 40, "transform_param { crop_h: 3 crop_w: 6 }", phase, ""
    )
    assert layer.top_shapes()[0] == (40, 3, 3, 6)
    seen = {made.numpy().tobytes() for made in batches(layer, 4)[0][0]}
    parts = {planes[:, y : y + 3, x : x + 6].astype(np.float32).tobytes() for y in range(7) for x in range(3)}
    if phase == caffe_pb2.TEST:
        assert seen == {planes[:, 3:6, 1:7].astype(np.float32).tobytes()}
    else:
        assert seen <= parts and len(seen) > 10


@pytest.mark.parametrize("channels", (1, 3, 4))
@pytest.mark.parametrize("mean", ("", "mean_value: 7.25", "mean_file"))
@pytest.mark.parametrize("kind", ("raw", "encoded", "both", "floats"))
def test_a_device_transforms_to_the_same_bits(tmp_path, kind, channels, mean):
    images = [image(i, 9, 8, channels) for i in range(6)]
    records = [
        array_to_datum(planes / np.float32(3), i)
        if kind == "floats"
        else encoded(planes, i)
        if kind == "encoded" or (kind == "both" and i % 2)
        else array_to_datum(planes, i)
        for i, planes in enumerate(images)
    ]
    if mean == "mean_file":
        write_mean(tmp_path / "mean", image(9, 9, 8, channels) + np.float32(0.3))
        mean = f'mean_file: "{tmp_path / "mean"}"'
    path, made = database(tmp_path / "db", records), []
    for on in (False, True):
        layer = data_layer(path, 4, f"transform_param {{ {mean} crop_size: 5 mirror: true scale: 0.017 }}")
        layer.seed, layer.device_transform = 5, on
        made.append(batches(layer, 3))
    assert same(*made)


def test_a_test_layer_takes_the_centre_but_mirrors_as_caffe_does(tmp_path):
    planes = image(0, 9, 8, 1)
    [[data, _]] = batches(data_layer(raw_database(tmp_path / "db", [planes]), 50, AUGMENT, caffe_pb2.TEST), 1)
    part = planes[0, 2:7, 1:6]
    kinds = {item[0].astype(np.uint8).tobytes() for item in data.numpy()}
    assert kinds == {part.tobytes(), part[:, ::-1].tobytes()}


@pytest.mark.parametrize("kind", ["Data", "ImageData", "HDF5Data", "WindowData"])
def test_resuming_goes_on_bit_for_bit(kind, source, tmp_path):
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"{i}.png"), image(i, 9, 8).transpose(1, 2, 0))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{i}.png {i}\n" for i in range(5)))
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["data"], file["label"] = np.random.default_rng(0).normal(size=(7, 2)), np.arange(7)
    (tmp_path / "files.txt").write_text(f"{tmp_path}/rows.h5")
    (tmp_path / "windows.txt").write_text(f"# 0\n{tmp_path}/0.png\n3 9 8\n2\n1 0.9 0 0 5 6\n0 0.1 1 2 7 8\n")
    options = {
        "Data": f'data_param {{ source: "{source}" batch_size: 3 backend: LMDB }} {AUGMENT}',
        "ImageData": f'image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 3 shuffle: true rand_skip: 4 }}'
        + AUGMENT,
        "HDF5Data": f'hdf5_data_param {{ source: "{tmp_path}/files.txt" batch_size: 3 shuffle: true }}',
        "WindowData": f'window_data_param {{ source: "{tmp_path}/windows.txt" batch_size: 3 }} {AUGMENT}',
    }[kind]
    text = f'type: "{kind}" top: "data" top: "label" {options}'
    whole, part, rest = (make(text, caffe_pb2.TRAIN) for _ in range(3))
    whole.seed = part.seed = 2**63 + 11
    want = batches(whole, 9)
    assert same(batches(part, 4), want[:4])
    state = json.loads(json.dumps(part.state()))
    assert len(json.dumps(state)) < 100
    rest.seek(state)
    assert same(batches(rest, 5), want[4:])
    rest.seek({"position": 0, "seed": part.seed})
    assert same(batches(rest, 9), want)


def test_a_copy_goes_on_by_itself(source):
    layer = data_layer(source, 4, AUGMENT)
    layer.seed, layer.rank, layer.world, layer.threads = 9, 1, 2, 1
    layer()
    other = copy.deepcopy(layer)
    assert (other.rank, other.world, other.threads) == (1, 2, 1)
    assert same(batches(layer, 5), batches(other, 5))


def test_the_seed_is_torchs_unless_set(source):
    torch.manual_seed(77)
    one, two = data_layer(source, 4, AUGMENT), data_layer(source, 4, AUGMENT)
    two.seed = 77
    assert one.seed == 77
    assert same(batches(one, 3), batches(two, 3))


def test_processes_share_the_records_and_see_what_one_alone_would(source):
    alone = data_layer(source, 6, AUGMENT)
    shares = [data_layer(source, 2, AUGMENT) for _ in range(3)]
    alone.seed = 5
    for rank, layer in enumerate(shares):
        layer.seed, layer.rank, layer.world = 5, rank, 3
    want = torch.cat([data for data, _ in batches(alone, 4)])
    got = [torch.cat([data for data, _ in batches(layer, 4)]) for layer in shares]
    assert all(torch.equal(got[rank], want[rank::3]) for rank in range(3))
    assert shares[0].state() == alone.state()


def test_the_first_record_of_a_batch_decides_its_shape(tmp_path):
    planes = [image(i, *size) for i, size in enumerate([(5, 6), (7, 8), (9, 4)])]
    source = database(tmp_path / "db", [encoded(item, i) for i, item in enumerate(planes)])
    layer = data_layer(source, 1)
    assert layer.top_shapes() == [(1, 3, 5, 6), (1,)]
    assert [tuple(data.shape) for data, _ in batches(layer, 4)] == [
        (1, 3, 5, 6),
        (1, 3, 7, 8),
        (1, 3, 9, 4),
        (1, 3, 5, 6),
    ]
    layer = data_layer(source, 2)
    with pytest.raises(DataError, match=r'layer "d" \(Data\): record "00000001" of .*db: has 3 × 7 × 8 .* 3 × 5 × 6'):
        layer()
    layer.close()


@pytest.mark.parametrize(
    ("stored", "transform", "more", "channels"),
    [
        (1, "", "", 1),
        (3, "", "", 3),
        (1, "transform_param { force_color: true }", "", 3),
        (3, "transform_param { force_gray: true }", "", 1),
        (1, "", "force_encoded_color: true", 3),
    ],
)
def test_encoded_images_have_the_channels_asked_for(tmp_path, stored, transform, more, channels):
    source = database(tmp_path / "db", [encoded(image(0, 4, 4, stored), 2)])
    layer = data_layer(source, 1, transform, more=more)
    data, label = layer()
    assert data.shape == (1, channels, 4, 4)
    assert label.item() == 2
    layer.close()


def test_a_top_less_is_a_top_less(source):
    layer = make(f'type: "Data" top: "data" data_param {{ source: "{source}" batch_size: 2 backend: LMDB }}')
    assert len(layer.top_shapes()) == len(layer()) == 1
    layer.close()


def test_a_bad_record_is_named_when_its_turn_comes(tmp_path):
    datums = [encoded(image()), encoded(image()), b"no datum at all", encoded(image())]
    layer = data_layer(database(tmp_path / "db", datums), 1)
    layer(), layer()
    for _ in range(2):
        with pytest.raises(DataError, match=r'layer "d" \(Data\): record "00000002" of .*db: is not a Datum'):
            layer()
    layer.close()


def test_an_lmdb_is_read_whatever_the_backend(tmp_path):
    source = raw_database(tmp_path / "db", [image(i) for i in range(3)])
    leveldb = make(
        f'type: "Data" top: "data" top: "label" data_param {{ source: "{source}" batch_size: 2 backend: LEVELDB }}'
    )
    assert same(batches(leveldb, 2), batches(data_layer(source, 2), 2))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            'data_param { source: "/no/db" batch_size: 1 backend: LMDB }',
            MissingFileError,
            "data_param.source: database not found: /no/db.*caffe-convert-imageset",
        ),
        (
            'data_param { source: "{db}" batch_size: 1 backend: LMDB } transform_param { mean_file: "/no/mean" }',
            MissingFileError,
            "transform_param.mean_file: mean file not found: /no/mean",
        ),
        (
            'data_param { source: "/no/db" batch_size: 1 backend: LEVELDB }',
            DataError,
            "LevelDB is not supported.*/no/db",
        ),
        ('data_param { source: "{db}" backend: LMDB }', LayerError, "batch_size is 0; it must be at least 1"),
        (
            'data_param { source: "{db}" batch_size: 4000000000 backend: LMDB }',
            LayerError,
            r"a batch of shape 4000000000×3×9×8 needs 3.46 TB of memory",
        ),
        (
            'data_param { source: "{db}" batch_size: 1 backend: LMDB } transform_param { crop_size: 20 }',
            DataError,
            'record "00000000" of .*: transform_param.crop_size 20 is larger than the image, which is 9 × 8',
        ),
        (
            'data_param { source: "{db}" batch_size: 1 backend: LMDB } transform_param { crop_h: 20 crop_w: 3 }',
            DataError,
            "transform_param.crop_h × crop_w 20 × 3 is larger than the image, which is 9 × 8",
        ),
        (
            'data_param { source: "{db}" batch_size: 1 backend: LMDB } transform_param { crop_h: 2 }',
            DataError,
            "crop_h is 2 and crop_w 0; give both",
        ),
        (
            'data_param { source: "{db}" batch_size: 1 } transform_param { crop_size: 4 crop_h: 2 crop_w: 3 }',
            DataError,
            "crop_size 4 and crop_h 2, crop_w 3 are both given; SSD uses the former",
        ),
        (
            'data_param { source: "{db}" batch_size: 1 backend: LMDB } transform_param { mean_file: "{mean}" }',
            DataError,
            r"mean\.binaryproto has shape 3 × 40 × 48, but the image 3 × 9 × 8",
        ),
    ],
)
def test_set_up_says_what_is_wrong(source, text, error, message):
    text = text.replace("{db}", source).replace("{mean}", str(ROOT / "data" / "mean.binaryproto"))
    with pytest.raises(error, match=rf'layer "d" \(Data\): .*{message}'):
        make(f'type: "Data" top: "data" {text}')


def test_a_backend_that_is_left_out_is_what_is_there(source):
    layer = make(f'type: "Data" top: "data" data_param {{ source: "{source}" batch_size: 2 }}')
    assert layer.top_shapes() == [(2, 3, 9, 8)]


@pytest.fixture
def images(tmp_path):
    for i in range(6):
        cv2.imwrite(str(tmp_path / f"my {i}.png"), image(i, 9, 8).transpose(1, 2, 0))
    (tmp_path / "list.txt").write_text("".join(f"my {i}.png {i}\n" for i in range(6)))
    files = f'source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/"'
    return f'type: "ImageData" top: "data" top: "label" image_data_param {{ {files}'


def test_shuffled_images_come_once_an_epoch(images):
    layer = make(f"{images} batch_size: 6 shuffle: true }}", caffe_pb2.TRAIN)
    layer.seed = 1
    epochs = [label.int().tolist() for _, label in batches(layer, 4)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1


def test_skipping_begins_at_one_of_the_first(images):
    starts = set()
    for seed in range(30):
        layer = make(f"{images} batch_size: 2 rand_skip: 3 }}")
        layer.seed = seed
        [[_, label]] = batches(layer, 1)
        assert label[1] == label[0] + 1
        starts.add(int(label[0]))
    assert starts == {0, 1, 2}


def test_images_with_several_labels(images, tmp_path):
    """HashNet's label_dim."""
    (tmp_path / "list.txt").write_text("".join(f"my {i}.png {i} -1  {10 * i}\n" for i in range(6)))
    layer = make(f"{images} batch_size: 4 label_dim: 3 }} transform_param {{ crop_size: 8 }}")
    assert layer.top_shapes() == layer.known_shapes(layer.param) == [(4, 3, 8, 8), (4, 3)]
    [[pictures, label]] = batches(layer, 1)
    assert pictures.shape == (4, 3, 8, 8)
    assert label.tolist() == [[i, -1, 10 * i] for i in range(4)]
    (tmp_path / "list.txt").write_text("my 0.png 1 2\n")
    with pytest.raises(
        DataError, match=r'list.txt:1: no 3 integer labels at the end of "my 0.png 1 2"; expected "PATH" and 3'
    ):
        make(f"{images} batch_size: 4 label_dim: 3 }}")
    with pytest.raises(LayerError, match="label_dim: 0 must be at least 1"):
        make(f"{images} batch_size: 4 label_dim: 0 }}")


def test_image_data_errors(images, tmp_path):
    with pytest.raises(LayerError, match="new_height is 3 and new_width 0; set both, or neither"):
        make(f"{images} batch_size: 2 new_height: 3 }}")
    with pytest.raises(DataError, match="rand_skip 7 is more than the 6 images"):
        make(f"{images} batch_size: 2 rand_skip: 7 }}")
    with pytest.raises(LayerError, match="exactly 2"):
        make(f'type: "ImageData" top: "data" image_data_param {{ source: "{tmp_path}/list.txt" }}')
    layer = make(f"{images} batch_size: 2 }}")
    (tmp_path / "my 2.png").unlink()
    layer()
    with pytest.raises(MissingFileError, match=r'layer "d" \(ImageData\): image not found: .*my 2\.png'):
        layer()
    layer.close()


def test_hdf5_data_takes_the_datasets_of_its_tops(tmp_path):
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["x"], file["y"] = np.arange(12.0).reshape(3, 2, 2), np.arange(3)
    (tmp_path / "files.txt").write_text(f"{tmp_path}/rows.h5\n")
    text = f'type: "HDF5Data" top: "y" top: "x" hdf5_data_param {{ source: "{tmp_path}/files.txt" batch_size: 2 }}'
    layer = make(text)
    assert layer.top_shapes() == [(2,), (2, 2, 2)]
    made = batches(layer, 3)
    assert [y.tolist() for y, _ in made] == [[0, 1], [2, 0], [1, 2]]
    assert made[1][1].tolist() == [[[8, 9], [10, 11]], [[0, 1], [2, 3]]]
    with pytest.raises(LayerError, match="does not transform data"):
        make(text + " transform_param { scale: 2 }")
    with pytest.raises(DataError, match=r'layer "d" \(HDF5Data\): .* has no dataset "z"'):
        make(text.replace('top: "x"', 'top: "z"'))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("} transform_param { crop_size: 0", "crop_size is 0"),
        ('crop_mode: "sqare" } transform_param { crop_size: 4', 'crop_mode is "sqare"; it must be "warp" or "square"'),
    ],
)
def test_window_data_errors(options, message):
    with pytest.raises(LayerError, match=message):
        make(f'type: "WindowData" top: "a" top: "b" window_data_param {{ source: "w" batch_size: 1 {options} }}')


MEMORY = 'type: "MemoryData" top: "a" top: "b" memory_data_param { batch_size: 2 channels: 1 height: 2 width: 3 }'


def test_memory_data_gives_views_of_the_arrays_it_was_given():
    layer = make(MEMORY)
    data, labels = np.arange(24, dtype=np.float32).reshape(4, 1, 2, 3), np.arange(4, dtype=np.float32)
    layer.reset(data, labels)
    assert [layer()[1].tolist() for _ in range(3)] == [[0, 1], [2, 3], [0, 1]]
    data[2:] = -1
    state = layer.state()
    assert (layer()[0] == -1).all()
    layer.seek(state)
    assert layer()[1].tolist() == [2, 3]
    layer.reset(data.astype(np.float64), labels[:, None, None, None])
    assert layer()[1].tolist() == [0, 1]
    assert layer.top_shapes() == [(2, 1, 2, 3), (2,)]


def test_memory_data_errors(caplog):
    with pytest.raises(LayerError, match="given and positive; they are 2, 1, 2, 0"):
        make(MEMORY.replace("width: 3", ""))
    layer = make(MEMORY + " transform_param { scale: 2 }")
    with pytest.raises(LayerError, match="has no data yet"):
        layer()
    for data, labels, message in [
        (np.zeros((2, 1, 2, 4)), np.zeros(2), r"data has shape 2×1×2×4; expected N×1×2×3"),
        (np.zeros((3, 1, 2, 3)), np.zeros(3), "data has 3 images; expected a multiple of batch_size 2"),
        (np.zeros((0, 1, 2, 3)), np.zeros(0), "data has 0 images"),
        (np.zeros((2, 1, 2, 3)), np.zeros(3), r"labels has shape 3"),
    ]:
        with pytest.raises(LayerError, match=message):
            layer.reset(data, labels)
    layer.reset(np.zeros((2, 1, 2, 3)), np.zeros(2))
    assert "does not transform" in caplog.text


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (
            'type: "Data" data_param { source: "no" batch_size: 1 backend: LMDB }',
            "data_param.source: database not found: no",
        ),
        (
            'type: "ImageData" image_data_param { source: "no" batch_size: 1 }',
            "image_data_param.source: list file not found",
        ),
        (
            'type: "HDF5Data" hdf5_data_param { source: "no" batch_size: 1 }',
            "hdf5_data_param.source: list of HDF5 files not",
        ),
        (
            'type: "WindowData" transform_param { crop_size: 4 } window_data_param { source: "no" batch_size: 1 }',
            "window_data_param.source: window file not found: no",
        ),
    ],
)
def test_a_missing_source_is_named_with_prototxt_layer_and_field(layer, words, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(f'layer {{ name: "d" top: "data" top: "label" {layer} }}')
    with pytest.raises(MissingFileError) as caught:
        Net(str(path))
    assert str(caught.value).startswith(f'{path}: layer "d" (') and words in str(caught.value)


class TestTransformingOnTheDevice:
    """Batches of bytes that an operator makes floats: the same batches, from the same places on."""

    TRANSFORM = "transform_param {{ crop_size: 5 mirror: true scale: 0.017 {mean} }}"

    @pytest.fixture(params=["raw", "png", "grey", "mixed"])
    def records(self, request, tmp_path):
        images = [image(i, 9, 8, 1 if request.param == "grey" else 3) for i in range(10)]
        raw = [array_to_datum(planes, i) for i, planes in enumerate(images)]
        png = [encoded(planes, i) for i, planes in enumerate(images)]
        mixed = [a if i % 3 else b for i, (a, b) in enumerate(zip(raw, png, strict=True))]
        kinds = {"raw": raw, "png": png, "grey": raw, "mixed": mixed}
        return database(tmp_path / "db", kinds[request.param]), len(images[0])

    @pytest.mark.parametrize("mean", ["none", "values", "file"])
    def test_the_batches_are_the_same(self, records, mean, tmp_path):
        source, channels = records
        means = {"none": "", "values": "mean_value: 100.3", "file": f'mean_file: "{tmp_path}/mean.binaryproto"'}
        write_mean(tmp_path / "mean.binaryproto", np.random.default_rng(5).random((channels, 9, 8), np.float32) * 200)
        made = []
        for on_device in (False, True):
            layer = data_layer(source, 4, self.TRANSFORM.format(mean=means[mean]))
            layer.seed, layer.device_transform = 3, on_device
            made.append(batches(layer, 8))
        assert same(*made)
        assert made[1][0][0].shape == (4, channels, 5, 5)

    def test_it_can_be_turned_on_and_off_between_batches(self, source):
        one, other = (data_layer(source, 4, AUGMENT) for _ in range(2))
        one.seed = other.seed = 3
        want = batches(one, 6)
        got = []
        for on_device in (False, True, True, False, False, True):
            other.device_transform = on_device
            assert other.device_transform is on_device
            got.append([top.clone() for top in other()])
        other.close()
        assert same(want, got)

    def test_a_copy_goes_on_in_the_same_way(self, source):
        layer = data_layer(source, 4, AUGMENT)
        layer.seed, layer.device_transform = 3, True
        layer()
        twin = copy.deepcopy(layer)
        assert twin.device_transform
        assert same(batches(layer, 2), batches(twin, 2))

    def test_floats_are_made_as_ever(self, tmp_path):
        floats = [array_to_datum(image(i, 6, 6).astype(np.float32) / 3, i) for i in range(4)]
        layer = data_layer(database(tmp_path / "floats", floats), 4, AUGMENT)
        plain = data_layer(database(tmp_path / "again", floats), 4, AUGMENT)
        layer.seed = plain.seed = 1
        layer.device_transform = True
        assert same(batches(layer, 2), batches(plain, 2))
        both = [array_to_datum(image(0, 6, 6), 0), *floats]
        layer = data_layer(database(tmp_path / "both", both), 4, AUGMENT)
        layer.device_transform = True
        with pytest.raises(DataError, match=r'record "00000001" .* holds floats .* leave out --device-transform'):
            layer()
        layer.close()

    def test_a_net_draws_with_it(self, source):
        text = f'''layer {{ name: "d" type: "Data" top: "data" top: "label" {AUGMENT}
            data_param {{ source: "{source}" batch_size: 4 backend: LMDB }} }}'''
        net = Net(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
        net.sources["d"].seed = 3
        first = net.draw()
        net.sources["d"].seek({"position": 0, "seed": 3})
        again = net.draw(device_transform=True)
        assert net.sources["d"].device_transform
        assert all(torch.equal(first[name], again[name]) for name in ("data", "label"))
        assert net.transform_on_device(False) == ["d"]
        assert not net.sources["d"].device_transform
        net.close()


def test_the_batch_after_waits_for_nobody(source):
    """What staging on a GPU asks before it takes a batch early: whether that would wait."""
    layer = data_layer(source, 4, AUGMENT)
    layer()
    while not layer._loader.ready:
        time.sleep(0.01)
    position = layer.state()["position"]
    assert position == 4
    layer.close()


def test_where_the_time_goes_is_told(source):
    layer = data_layer(source, 4, AUGMENT)
    layer.threads = 1
    for _ in range(5):
        layer()
    told = layer.describe_effort()
    assert re.match(r'layer "d" \(Data\): 1 thread, busy \d+% of the time.*\. What helps: .+', told)
    layer.close()


class TestSeveralLabels:
    """The ways to several labels a record that Caffe itself has."""

    def test_a_database_of_labels_goes_along(self, source, tmp_path):
        """A second Data layer: ``float_data`` or bytes, in the order of the images, over epochs and processes."""
        rows = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
        floats = database(tmp_path / "floats", [array_to_datum(row[:, None, None]) for row in rows])
        codes = raw_database(tmp_path / "codes", [np.array([[[i]], [[200 + i]]], np.uint8) for i in range(10)])
        layers = "".join(
            f'''layer {{ name: "{top}" type: "Data" top: "{top}" {more}
            data_param {{ source: "{path}" batch_size: 3 backend: LMDB }} }}'''
            for top, path, more in (
                ("data", source, f'top: "number" {AUGMENT}'),
                ("floats", floats, ""),
                ("codes", codes, "transform_param { scale: 0.5 }"),
            )
        )
        loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "floats" bottom: "floats" top: "loss" }'
        for on_device in (False, True):
            net = Net(parse_text(layers + loss, caffe_pb2.NetParameter), "TRAIN")
            for layer in net.sources.values():
                layer.seed, layer.rank, layer.world = 5, 1, 2
            for _ in range(5):
                batch = net.draw(device_transform=on_device)
                numbers = batch["number"].int().tolist()
                assert batch["floats"].shape == (3, 4, 1, 1)
                np.testing.assert_array_equal(batch["floats"][:, :, 0, 0].numpy(), rows[numbers])
                assert batch["codes"][:, :, 0, 0].tolist() == [[n / 2, 100 + n / 2] for n in numbers]
            assert net(batch)["loss"] == 0
            net.close()

    def test_hdf5_labels_have_columns(self, tmp_path):
        labels = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
        with h5py.File(tmp_path / "rows.h5", "w") as file:
            file["data"], file["labels"], file["mask"] = np.arange(20).reshape(5, 1, 2, 2), labels, labels > 0
        (tmp_path / "files.txt").write_text(f"{tmp_path}/rows.h5")
        options = f'hdf5_data_param {{ source: "{tmp_path}/files.txt" batch_size: 2 }}'
        [[data, columns]] = batches(make(f'type: "HDF5Data" top: "data" top: "labels" {options}'), 1)
        assert data.shape == (2, 1, 2, 2)
        np.testing.assert_array_equal(columns.numpy(), labels[:2])
        with pytest.raises(DataError, match=r'dataset "mask" .* holds bool; expected floats or integers'):
            make(f'type: "HDF5Data" top: "data" top: "mask" {options}')

    @pytest.mark.parametrize("labels", ["3 5", "3 5 7", "0.5 7", "1e-3 -2 4"])
    def test_a_list_with_several_labels_says_where_to_put_them(self, labels, tmp_path):
        cv2.imwrite(str(tmp_path / "a.png"), image().transpose(1, 2, 0))
        (tmp_path / "list.txt").write_text(f"{tmp_path}/a.png {labels}\n")
        with pytest.raises(
            MissingFileError, match=r"a\.png .* An image of a list has one label.*HDF5Data.*second Data layer"
        ):
            make(
                f'type: "ImageData" top: "a" top: "b" image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 1 }}'
            )

    def test_a_missing_image_says_nothing_of_labels(self, tmp_path):
        (tmp_path / "list.txt").write_text(f"{tmp_path}/a 2.png 3\n{tmp_path}/a.png 3\n")
        with pytest.raises(MissingFileError) as caught:
            make(
                f'type: "ImageData" top: "a" top: "b" image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 1 }}'
            )
        assert "one label" not in str(caught.value)
