"""Reading weights: caffemodels of every age and form, broken ones, and what reading costs."""

import contextlib
import os
import resource

import h5py
import numpy as np
import pytest
import warm_start
from fork_model import LAYERS, fork_model, message
from golden_files import ROOT
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_compat.errors import CaffeError, MissingFileError, ParseError, UnknownNameError, WeightsError
from pycaffe_compat.proto import blob_to_array, caffe_pb2, parse_text, read_weights, upgrade_net, wire
from pycaffe_compat.proto.upgrade_files import upgrade_net_binary

NET, BLOB = caffe_pb2.NetParameter, caffe_pb2.BlobProto


def write(path, net):
    path.write_bytes(net if isinstance(net, bytes) else net.SerializeToString())
    return path


def test_v1_golden():
    weights = read_weights(ROOT / "upgrade" / "v1.caffemodel")
    with np.load(ROOT / "upgrade" / "v1_caffemodel.npz") as golden:
        read = {f"{name}/{i}": array for name, arrays in weights.items() for i, array in enumerate(arrays)}
        assert set(read) == set(golden.files)
        for key, want in golden.items():
            assert read[key].dtype == np.float32 and read[key].shape == want.shape
            np.testing.assert_array_equal(read[key], want)
    assert weights.layer_types == {"conv1": "Convolution", "fc": "InnerProduct"}
    assert weights.shapes("conv1") == [(4, 3, 3, 3), (1, 1, 1, 4)]
    assert weights.net_name == "v1w" and len(weights) == 2


def test_solver_golden_snapshot(tmp_path):
    with np.load(ROOT / "solvers" / "sgd_clip.npz") as golden:
        weights = read_weights(write(tmp_path / "x.caffemodel", golden["file/caffemodel"].tobytes()))
        for name in ("conv", "ip"):
            for index in (0, 1):
                np.testing.assert_array_equal(weights[name][index], golden[f"param/5/{name}/{index}"])
    assert list(weights) == ["x", "t", "conv", "relu", "ip", "loss"]
    assert weights["relu"] == []


FORMS = """
name: "forms" input: "d"
layers { name: "v1" type: CONVOLUTION blobs { num: 1 channels: 1 height: 2 width: 2 data: [1, 2, 3, 4] } bottom: "d" }
layers { layer { name: "v0" type: "conv" num_output: 3 blobs { num: 1 channels: 1 height: 1 width: 2 data: [5, 6] } } }
layer { name: "v2" type: "Scale" blobs { shape { dim: [2, 1] } data: [7, 8] diff: [9, 10] } blobs { shape { } data: 11 }
} layer { name: "double" type: "Bias" blobs { shape { dim: 2 } double_data: [1e300, 2] double_diff: [3, 4] } }
layer { name: "diff only" blobs { shape { dim: 2 } diff: [1, 2] } }
layer { name: "none" }
layer { name: "wrong" blobs { shape { dim: 3 } data: [1, 2] } }
"""


@pytest.fixture
def forms(tmp_path):
    return read_weights(write(tmp_path / "forms.caffemodel", parse_text(FORMS, NET)))


def test_forms(forms):
    assert list(forms) == ["v1", "v0", "v2", "double", "diff only", "none", "wrong"]
    assert forms.layer_types["v1"] == "Convolution" and forms.layer_types["v2"] == "Scale"
    np.testing.assert_array_equal(forms["v1"][0], [[[[1, 2], [3, 4]]]])
    np.testing.assert_array_equal(forms["v0"][0], [[[[5, 6]]]])
    np.testing.assert_array_equal(forms["v2"][0], [[7], [8]])
    assert forms["v2"][1].shape == () and forms["v2"][1] == 11
    first, second = forms.diffs("v2")
    np.testing.assert_array_equal(first, [[9], [10]])
    assert second is None
    assert forms["double"][0].dtype == np.float64 and forms["double"][0][0] == 1e300
    np.testing.assert_array_equal(forms.diffs("double")[0], [3, 4])
    assert forms["none"] == [] and forms.shapes("none") == []
    np.testing.assert_array_equal(forms.diffs("diff only")[0], [1, 2])
    assert forms.shapes("wrong") == [(3,)]


@pytest.mark.parametrize(
    "name, words",
    [
        ("diff only", 'layer "diff only" blob 0: holds diff but no data'),
        ("wrong", "3 elements, but 2 numbers"),
    ],
)
def test_a_blob_without_its_numbers_is_an_error_when_asked_for(forms, name, words):
    for ask in (lambda: forms[name], lambda: forms.readinto(name, 0, np.empty(2, np.float32))):
        with pytest.raises(ParseError) as caught:
            ask()
        assert words in str(caught.value) and "forms.caffemodel" in str(caught.value)


def test_unknown_layer(forms):
    with pytest.raises(UnknownNameError, match=r"no layer 'V2'.*did you mean v2"):
        forms["V2"]
    assert forms.get("V2") is None and "V2" not in forms and 3 not in forms


def test_arrays_are_views_of_the_map(forms):
    array = forms["v1"][0]
    assert not array.flags.writeable and not array.flags.owndata
    with pytest.raises(ValueError):
        array[0] = 1
    forms.release()
    np.testing.assert_array_equal(array.ravel(), [1, 2, 3, 4])


def test_the_last_of_several_layers_of_a_name_counts(tmp_path):
    net = parse_text(
        """layer { name: "a" type: "X" blobs { shape { dim: 1 } data: 1 } } layer { name: "b" }
           layer { name: "a" type: "Y" blobs { shape { dim: 1 } data: 2 } }""",
        NET,
    )
    weights = read_weights(write(tmp_path / "m.caffemodel", net))
    assert list(weights) == ["b", "a"] and weights["a"][0] == [2] and weights.layer_types["a"] == "Y"


def unpacked(field, values):
    return b"".join(bytes([field << 3 | 5]) + np.float32(v).tobytes() for v in values)


def packed(field, values):
    return message(field, np.asarray(values, "<f4").tobytes())


SHAPE = message(7, message(1, b"\x06"))
ORDER = [1.5, -2, 3, 4, 5, 6]


def raw(kind, values, dtype, type_field=10, field=12):
    """The fields in which NVIDIA Caffe stores an array: the number of its type and its bytes."""
    return bytes([type_field << 3, kind]) + message(field, np.asarray(values, dtype).tobytes())


def one_blob(folder, blob):
    return read_weights(write(folder / "m.caffemodel", message(100, message(1, b"a"), message(7, blob))))


@pytest.mark.parametrize(
    ("kind", "dtype", "read_as"),
    [(0, "<f8", np.float64), (1, "<f4", np.float32), (0, "<f4", np.float32), (2, "<f2", np.float32)],
)
@pytest.mark.parametrize("shape_first", [True, False])
def test_raw_data_of_nvidia_caffe(tmp_path, kind, dtype, read_as, shape_first):
    numbers = raw(kind, ORDER, dtype)
    blob = SHAPE + numbers if shape_first else numbers + SHAPE
    blob += raw(2, [0, 1, 2, 3, 4, 5], "<f2", 11, 13)
    weights = one_blob(tmp_path, blob)
    assert weights.shapes("a") == [(6,)]
    for array in (weights["a"][0], blob_to_array(BLOB.FromString(blob))):
        assert array.dtype == read_as and array.tolist() == ORDER
    for array in (weights.diffs("a")[0], blob_to_array(BLOB.FromString(blob), diff=True)):
        assert array.tolist() == [0, 1, 2, 3, 4, 5]
    for out in (np.zeros(6, np.float32), np.zeros((2, 3)), np.zeros((6, 2), np.float32)[:, 0]):
        weights.readinto("a", 0, out)
        assert out.ravel().tolist() == ORDER


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (raw(2, ORDER[:5], "<f2"), "6 elements of float16, but raw_data of NVIDIA Caffe (field 12) holds 10 bytes"),
        (raw(1, ORDER, "<f2"), "6 elements of float32, but raw_data of NVIDIA Caffe (field 12) holds 12 bytes"),
        (raw(0, ORDER, "<f2"), "6 elements of float64 or float32, but"),
        (raw(3, ORDER, "<i4"), "has type 3; read are 0 (DOUBLE), 1 (FLOAT) and 2 (FLOAT16)"),
        (
            message(12, np.float16(ORDER).tobytes()),
            "holds no data; its 12 bytes of raw_data of NVIDIA Caffe (field 12)",
        ),
        (raw(2, [], "<f2"), "holds 0 bytes"),
        (b"\x50\x02\x60\x05", "6 elements, but 0 numbers of data"),  # a number in field 12: not NVIDIA's
    ],
)
def test_raw_data_that_is_not_the_blobs_is_an_error(tmp_path, fields, words):
    weights = one_blob(tmp_path, SHAPE + fields)
    for ask in (
        lambda: weights["a"],
        lambda: weights.readinto("a", 0, np.zeros(6, np.float32)),
        lambda: blob_to_array(BLOB.FromString(SHAPE + fields)),
    ):
        with pytest.raises(ParseError) as caught:
            ask()
        assert words in str(caught.value)


def test_truncated_raw_data(tmp_path):
    with pytest.raises(ParseError, match=r"field 12 declares 12 bytes, but 11 are left.*layer .a."):
        one_blob(tmp_path, SHAPE + raw(2, ORDER, "<f2")[:-1])


@pytest.mark.parametrize(
    "fields",
    [
        raw(2, [9] * 6, "<f2"),
        raw(7, b"x" * 3, "S1"),
        message(10, b"a name") + message(12, b"a note") + message(13, b"more"),
        b"\x50\x02\x65\0\0\0\0\x68\x01",
    ],
)
def test_other_contents_of_those_fields_are_ignored(tmp_path, fields):
    blob = SHAPE + packed(5, ORDER) + fields
    weights = one_blob(tmp_path, blob)
    assert weights["a"][0].tolist() == blob_to_array(BLOB.FromString(blob)).tolist() == ORDER
    assert weights.diffs("a") == [None]


@pytest.mark.parametrize(
    "blob",
    [
        SHAPE + unpacked(5, ORDER),
        unpacked(5, ORDER) + SHAPE,
        packed(5, ORDER[:2]) + SHAPE + packed(5, ORDER[2:]),
        packed(5, ORDER[:1]) + unpacked(5, ORDER[1:3]) + packed(5, []) + packed(5, ORDER[3:]) + SHAPE,
        b"".join(unpacked(5, [v]) + unpacked(6, [-v]) for v in ORDER) + SHAPE,
        message(7, b"\x08\x02") + packed(5, ORDER) + message(7, b"\x08\x03"),
        b"\x08\x05\x10\x01" + packed(5, ORDER) + b"\x18\x02\x20\x03\x08\x01" + SHAPE,
        SHAPE + b"\xf8\x07\x05" + packed(5, ORDER) + b"\x9a\x06\x02hi",  # fields of no schema
    ],
)
def test_encodings_that_protobuf_allows(tmp_path, blob):
    weights = read_weights(write(tmp_path / "m.caffemodel", message(100, message(1, b"a"), message(7, blob))))
    want = blob_to_array(BLOB.FromString(blob))
    assert want.ravel().tolist() == ORDER
    np.testing.assert_array_equal(weights["a"][0], want)
    for dtype in (np.float32, np.float64, np.float16):
        out = np.zeros(6, dtype)
        weights.readinto("a", 0, out)
        assert out.tolist() == ORDER


def test_readinto_any_layout_and_a_wrong_size(forms):
    out = np.zeros((2, 4), np.float32)
    forms.readinto("v1", 0, out[:, ::2])
    assert out.tolist() == [[1, 0, 2, 0], [3, 0, 4, 0]]
    big = np.zeros(2, np.float64)
    forms.readinto("double", 0, big)
    assert big[0] == 1e300
    with pytest.raises(WeightsError, match=r'layer "v1" blob 0 has shape \(1, 1, 2, 2\), not \(5,\)'):
        forms.readinto("v1", 0, np.zeros(5, np.float32))


def test_skeleton_is_the_net_without_numbers(tmp_path):
    net = parse_text(FORMS.replace("layers { layer", "layer { name: 'w' } #"), NET)
    del net.layer[:]
    weights = read_weights(write(tmp_path / "m.caffemodel", net))
    for layer in net.layers:
        layer.ClearField("blobs")
    upgrade_net(net)
    assert weights.skeleton() == net


def test_skeleton_of_v0(tmp_path):
    net = parse_text('layers { layer { name: "v0" type: "conv" blobs { num: 1 data: 5 } } }', NET)
    weights = read_weights(write(tmp_path / "m.caffemodel", net))
    assert weights.skeleton() == parse_text('layer { name: "v0" type: "Convolution" }', NET)


SEED = parse_text(FORMS.replace("layers { layer", "layer { name: 'w' } #"), NET).SerializeToString()


def test_truncated_at_every_byte(tmp_path):
    path = tmp_path / "cut.caffemodel"
    for length in range(len(SEED)):
        write(path, SEED[:length])
        try:
            net = NET.FromString(SEED[:length])
        except DecodeError:
            net = NET()
        want = [layer.name for layer in (*net.layers, *net.layer)]
        try:
            assert list(read_weights(path)) == want
        except ParseError as error:
            assert "cut.caffemodel" in str(error) and not want


def test_a_broken_file_says_where(tmp_path):
    data = (ROOT / "upgrade" / "v1.caffemodel").read_bytes()
    with pytest.raises(ParseError, match=r"field 2 declares 812 bytes, but 406 are left at byte 491$"):
        read_weights(write(tmp_path / "x.caffemodel", data[:900]))
    layer = message(1, b"conv7") + message(7, message(5, b"12345678")[:-4])
    with pytest.raises(ParseError, match=r'8 bytes, but 4 are left at byte 12 \(in layer "conv7" that starts'):
        read_weights(write(tmp_path / "x.caffemodel", message(100, layer)))
    layer = message(1, b"conv7") + message(7, message(5, b"1234567"))
    with pytest.raises(ParseError, match=r"7 bytes, which is not a multiple of 4 at byte"):
        read_weights(write(tmp_path / "x.caffemodel", message(100, layer)))


@pytest.mark.parametrize(
    "data, words",
    [
        (b"", "empty"),
        (b'name: "x"\nlayer { name: "a" }', "text file"),
        (b"PK\x03\x04" + bytes(30), "zip"),
        (NET(name="x").SerializeToString(), "no layers"),
        (caffe_pb2.SolverState(iter=3, learned_net="x").SerializeToString(), "name has wire type 0"),
        (BLOB(num=1, data=[1]).SerializeToString(), "name has wire type 0"),
        (message(100, message(1, b"\xff")), "utf-8"),
        (message(2, b"\x08\x01", message(4, b"a")), "field 1 of a layer has wire type 0"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    ],
)
def test_other_files(tmp_path, data, words):
    with pytest.raises(ParseError) as caught:
        read_weights(write(tmp_path / "x.caffemodel", data))
    assert words in str(caught.value) and "x.caffemodel" in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(MissingFileError, match="weights not found"):
        read_weights(tmp_path / "x.caffemodel")
    with pytest.raises(ParseError, match="cannot be read"):
        read_weights(tmp_path)


def use(path):
    """Read everything that is in ``path``."""
    weights = read_weights(path)
    for name in weights:
        shapes = weights.shapes(name)
        for read in (weights.__getitem__, weights.diffs):
            with contextlib.suppress(CaffeError):
                read(name)
        for index, shape in enumerate(shapes):
            if 0 <= np.prod(shape, dtype=object) < 1000:
                with contextlib.suppress(CaffeError):
                    weights.readinto(name, index, np.empty(shape, np.float64))
    weights.skeleton()


EDITS = st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(data=EDITS | st.binary(max_size=60))
def test_any_bytes_are_weights_or_a_caffe_error(tmp_path_factory, data):
    if not isinstance(data, bytes):
        edited = bytearray(SEED)
        for index, value in data:
            edited[index] = value
        data = bytes(edited)
    path = write(tmp_path_factory.getbasetemp() / "fuzz.caffemodel", data)
    with contextlib.suppress(CaffeError):
        use(path)


def test_runs_of_unpacked_numbers_cost_linear_time(tmp_path):
    blob = b"".join(unpacked(field, [1] * 50) for field in (5, 6) * 2000)
    assert wire.repeats(blob, 0, len(blob), 5) == 50
    weights = read_weights(write(tmp_path / "m.caffemodel", message(100, message(1, b"a"), message(7, blob))))
    assert weights.shapes("a") == [()]


MEMORY = """
import resource, sys
import numpy as np
from pycaffe_compat.proto import read_weights
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
weights = read_weights(sys.argv[1])
opened = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out = np.empty(weights.shapes("big")[0], np.float32)
weights.readinto("big", 0, out)
assert out[-1] == 7
print(opened - before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory(tmp_path):
    """Opening takes none; reading into an array takes that array."""
    count = 8_000_000
    numbers = np.ones(count, np.float32)
    numbers[-1] = 7
    shape = message(7, caffe_pb2.BlobShape(dim=[count]).SerializeToString())
    write(tmp_path / "m.caffemodel", message(100, message(1, b"big"), message(7, shape, message(5, numbers.tobytes()))))
    opened, read = map(int, warm_start.run("-c", MEMORY, tmp_path / "m.caffemodel").stdout.split())
    assert opened * 1024 < 0.1 * numbers.nbytes
    assert read * 1024 < 1.2 * numbers.nbytes


def test_a_file_over_2_gb(tmp_path):
    """A sparse file: a blob of zeros, 2.2 GB of them, and a layer behind it."""
    path = tmp_path / "huge.caffemodel"
    count = 550_000_000
    shape = message(7, caffe_pb2.BlobShape(dim=[count]).SerializeToString())
    head = message(1, b"huge") + wire.header(7, len(shape) + len(wire.header(5, 4 * count)) + 4 * count)
    head += shape + wire.header(5, 4 * count)
    tail = message(100, message(1, b"behind"), message(7, message(7, b"\x08\x01"), message(5, np.float32(3).tobytes())))
    with open(path, "wb") as file:
        file.write(wire.header(100, len(head) + 4 * count) + head)
        file.seek(4 * count, os.SEEK_CUR)
        file.write(tail)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = read_weights(path)
    assert weights["huge"][0].shape == (count,) and weights["huge"][0][-1] == 0
    assert weights["behind"][0] == [3]
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < 50_000


def h5_file(path, build):
    with h5py.File(path, "w") as file:
        build(file)
    return path


def test_hdf5_as_caffe_writes_it(tmp_path):
    """Groups for layers without blobs, nested groups for names with a slash, shared blobs left out, diffs beside."""

    def build(file):
        data, diff = file.create_group("data"), file.create_group("diff")
        for group, sign in ((data, 1), (diff, -1)):
            group.create_group("relu")
            group["conv/0"] = sign * np.arange(6, dtype=np.float32).reshape(2, 3)
            group["conv/1"] = sign * np.arange(2, dtype=np.float64)
            group["conv/pool/0"] = sign * np.ones(1, np.float32)
            group["tied/1"] = sign * np.full(2, 5, np.float32)
        diff["tied/0"] = np.zeros((2, 3), np.float32)

    weights = read_weights(h5_file(tmp_path / "m.caffemodel.h5", build))
    assert sorted(weights) == ["conv", "conv/pool", "relu", "tied"]
    assert weights.partial
    assert weights.shapes("conv") == [(2, 3), (2,)] and weights["conv"][1].dtype == np.float64
    np.testing.assert_array_equal(weights["conv"][0], [[0, 1, 2], [3, 4, 5]])
    assert weights["relu"] == [] and weights["conv/pool"][0] == [1]
    assert weights.shapes("tied") == [None, (2,)] and weights["tied"][0] is None
    np.testing.assert_array_equal(weights.diffs("conv")[0], [[0, -1, -2], [-3, -4, -5]])
    np.testing.assert_array_equal(weights.diffs("tied")[0], np.zeros((2, 3)))
    for out in (np.zeros((2, 3), np.float32), np.zeros(6, np.float64), np.zeros((3, 2), np.float32).T):
        weights.readinto("conv", 0, out)
        assert out.ravel().tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(WeightsError, match="left out"):
        weights.readinto("tied", 0, np.zeros(6, np.float32))
    with pytest.raises(WeightsError, match=r"\(2, 3\), not \(7,\)"):
        weights.readinto("conv", 0, np.zeros(7, np.float32))
    assert [layer.name for layer in weights.skeleton().layer] == list(weights)


def external(file):
    file["data/a/0"] = h5py.ExternalLink("/etc/other.h5", "/x")


def loop(file):
    group = file.create_group("data/a")
    group["again"] = file["data"]


BROKEN_HDF5 = {
    "no data": (lambda f: f.create_group("weights"), "weights"),
    "huge": (lambda f: f.create_dataset("data/a/0", (10**6, 10**7), "f4", chunks=(1, 1)), "declares"),
    "number": (lambda f: f.create_dataset("data/a/123456789", data=[1.0]), "123456789"),
    "strings": (lambda f: f.create_dataset("data/a/0", data=["x"]), "not an array of numbers"),
    "empty": (lambda f: f.create_dataset("data/a/0", data=h5py.Empty("f4")), "not an array of numbers"),
    "link": (external, "link"),
    "loop": (loop, "contains itself"),
}


@pytest.mark.parametrize("case", BROKEN_HDF5)
def test_broken_hdf5(tmp_path, case):
    build, words = BROKEN_HDF5[case]
    path = h5_file(tmp_path / "m.caffemodel.h5", build)
    with pytest.raises(ParseError) as caught:
        read_weights(path)
    assert words in str(caught.value) and "m.caffemodel.h5" in str(caught.value)


def test_truncated_hdf5(tmp_path):
    path = h5_file(tmp_path / "m.caffemodel.h5", lambda f: f.create_dataset("data/a/0", data=np.ones(1000, np.float32)))
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        write(path, data[:length])
        with pytest.raises(ParseError, match=r"m\.caffemodel\.h5"):
            use(path)


def test_the_skeleton_of_a_fork_leaves_out_its_own_fields(tmp_path, caplog):
    weights = read_weights(write(tmp_path / "fork.caffemodel", fork_model()))
    assert weights["conv"][0].tolist() == [1, 2] and not caplog.messages
    net = weights.skeleton()
    want = parse_text(LAYERS, NET)
    for layer in want.layer:
        layer.ClearField("blobs")
    assert list(net.layer) == list(want.layer) and net.name == "fork"
    assert caplog.messages == [
        f'{tmp_path}/fork.caffemodel: layer "loss": field 148 is not the clip_param of BVLC Caffe (is the file from a '
        "fork?); it is left out",
        f'{tmp_path}/fork.caffemodel: layer "write": field 145 is not the parameter_param of BVLC Caffe (is the file from '
        "a fork?); it is left out",
    ]


def test_the_caffemodel_of_a_fork_is_upgraded(tmp_path):
    source = write(tmp_path / "fork.caffemodel", fork_model())
    assert upgrade_net_binary(source, tmp_path / "new.caffemodel") == []
    new, old = read_weights(tmp_path / "new.caffemodel"), read_weights(source)
    assert new.skeleton() == old.skeleton()
    assert new["conv"][0].tolist() == [1, 2] and new.diffs("conv")[0].tolist() == [3, 4]
    assert new["ip"][0].dtype == np.float64 and new["ip"][0] == old["ip"][0]
    with pytest.raises(ParseError, match="not a valid binary NetParameter"):
        upgrade_net_binary(write(tmp_path / "cut.caffemodel", fork_model()[:-1]), tmp_path / "none.caffemodel")
