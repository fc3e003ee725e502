"""Binary messages and blobs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_compat.errors import CaffeError, MissingFileError, ParseError
from pycaffe_compat.proto import array_to_blob, blob_to_array, caffe_pb2, parse_binary, read_message, write_message

NET = caffe_pb2.NetParameter
BLOB = caffe_pb2.BlobProto


def test_message_round_trip_keeps_unknown_fields(tmp_path):
    state = caffe_pb2.SolverState.FromString(b"\x08\x07" + b"\xfa\x3e\x03abc")  # iter: 7, and field 1007
    write_message(tmp_path / "x.solverstate", state)
    back = read_message(tmp_path / "x.solverstate", caffe_pb2.SolverState)
    assert back.iter == 7
    assert (tmp_path / "x.solverstate").read_bytes().endswith(b"\xfa\x3e\x03abc")
    assert back.SerializeToString().endswith(b"\xfa\x3e\x03abc")
    assert [path.name for path in tmp_path.iterdir()] == ["x.solverstate"]


def test_truncated_message_says_where(tmp_path):
    data = NET(name="net", layer=[{"name": "conv", "blobs": [{"data": [1, 2, 3]}]}]).SerializeToString()
    path = tmp_path / "net.binaryproto"
    path.write_bytes(data[:-3])
    with pytest.raises(ParseError, match=r"net.binaryproto: not a valid .* field 100 declares .* at byte 5"):
        read_message(path, NET)


def test_fault_is_found_inside(tmp_path):
    with pytest.raises(ParseError, match=r"at byte 5 \(in blobs\) \(in layer\)"):
        parse_binary(b"\xa2\x06\x04\x3a\x02\x2d\x00", NET)


def test_text_instead_of_binary(tmp_path):
    (tmp_path / "net.caffemodel").write_text('name: "x"\nlayer { name: "a" }\n')
    with pytest.raises(ParseError, match="looks like a text file"):
        read_message(tmp_path / "net.caffemodel", NET)


def test_missing_file_and_folder(tmp_path):
    (tmp_path / "mean.binaryproto").write_bytes(b"")
    with pytest.raises(MissingFileError, match=r"did you mean mean\.binaryproto"):
        read_message(tmp_path / "maen.binaryproto", BLOB)
    with pytest.raises(ParseError, match="cannot be read"):
        read_message(tmp_path, BLOB)
    with pytest.raises(CaffeError, match="cannot write"):
        write_message(tmp_path / "no" / "x", BLOB())


def test_message_that_lacks_a_required_field_is_not_written(tmp_path):
    path = tmp_path / "net"
    path.write_bytes(b"before")
    with pytest.raises(CaffeError):
        write_message(path, NET(layer=[{"clip_param": {"min": 1}}]))
    assert path.read_bytes() == b"before"


NUMBERS = [1.5, -2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    "blob, shape, dtype",
    [
        (BLOB(shape={"dim": [2, 3]}, data=NUMBERS), (2, 3), np.float32),
        (BLOB(num=1, channels=1, height=2, width=3, data=NUMBERS), (1, 1, 2, 3), np.float32),
        (BLOB(num=1, channels=1, height=2, width=3, shape={"dim": [6]}, data=NUMBERS), (1, 1, 2, 3), np.float32),
        (BLOB(shape={"dim": [6]}, double_data=NUMBERS), (6,), np.float64),
        (BLOB(shape={"dim": [6]}, double_data=NUMBERS, data=[0] * 6), (6,), np.float64),
    ],
)
def test_blob_to_array(blob, shape, dtype):
    array = blob_to_array(blob)
    assert array.shape == shape and array.dtype == dtype
    np.testing.assert_array_equal(array.ravel(), NUMBERS)
    array[:] = 0  # the caller's own
    np.testing.assert_array_equal(blob_to_array(blob).ravel(), NUMBERS)


def test_blob_without_axes_and_without_numbers():
    assert blob_to_array(BLOB(data=[7])).shape == ()
    assert blob_to_array(BLOB(shape={"dim": [0, 4]})).shape == (0, 4)


def test_diffs():
    blob = BLOB(shape={"dim": [6]}, diff=NUMBERS)
    np.testing.assert_array_equal(blob_to_array(blob, diff=True), NUMBERS)
    with pytest.raises(ParseError, match="mean: holds diff but no data"):
        blob_to_array(blob, what="mean")


@pytest.mark.parametrize(
    "blob",
    [
        BLOB(shape={"dim": [2, 4]}, data=NUMBERS),
        BLOB(data=NUMBERS),
        BLOB(num=6, data=NUMBERS),
        BLOB(shape={"dim": [-2, -3]}, data=NUMBERS),
        BLOB(shape={"dim": [2**40, 2**40]}),
        BLOB(shape={"dim": [2**32, 2**32]}),
    ],
)
def test_shape_that_does_not_fit(blob):
    with pytest.raises(ParseError, match=r"shape \("):
        blob_to_array(blob)


@pytest.mark.parametrize("dtype, field", [(np.float32, "data"), (np.float64, "double_data"), (np.int64, "data")])
def test_array_to_blob(dtype, field):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)[:, ::2]
    blob = array_to_blob(array, diff=-array)
    assert list(blob.shape.dim) == [2, 2, 4]
    assert list(getattr(blob, field)) == array.ravel().tolist()
    np.testing.assert_array_equal(blob_to_array(blob), array)
    np.testing.assert_array_equal(blob_to_array(blob, diff=True), -array)
    for edge in (np.float32(3), np.zeros((0, 2), np.float32)):
        assert blob_to_array(array_to_blob(edge)).shape == np.shape(edge)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_a_caffe_error(data):
    for cls in (NET, BLOB, caffe_pb2.SolverState):
        try:
            message = parse_binary(data, cls)
            if cls is BLOB:
                blob_to_array(message)
        except CaffeError:
            pass
