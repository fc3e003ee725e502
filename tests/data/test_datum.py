import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import encoded, image

from pycaffe_compat.data.datum import Record, array_to_datum, datum_to_array, decode_image, parse_datum
from pycaffe_compat.errors import DataError
from pycaffe_compat.proto import caffe_pb2


def test_raw_bytes_come_back_without_a_copy():
    planes = image()
    value = array_to_datum(planes, 7).SerializeToString()
    record = parse_datum(value)
    array = datum_to_array(record)
    assert record.label == 7
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, planes)
    assert isinstance(record.data, memoryview)
    assert record.data.obj is value


def test_floats_come_back():
    values = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    datum = array_to_datum(values, -1)
    assert len(datum.float_data) == 24
    assert not datum.data
    record = parse_datum(datum.SerializeToString())
    assert record.label == -1
    np.testing.assert_array_equal(datum_to_array(record), values)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_encoded_images_keep_their_channels_unless_asked(channels):
    planes = image(channels=channels)
    record = parse_datum(encoded(planes, 3).SerializeToString())
    assert record.label == 3
    np.testing.assert_array_equal(datum_to_array(record), planes)
    assert datum_to_array(record, color=True).shape == (3, 10, 12)
    assert datum_to_array(record, color=False).shape == (1, 10, 12)


def test_force_gray_is_opencvs_grey():
    planes = image()
    want = cv2.cvtColor(planes.transpose(1, 2, 0), cv2.COLOR_BGR2GRAY)
    got = datum_to_array(parse_datum(encoded(planes).SerializeToString()), color=False)[0]
    assert abs(got.astype(int) - want).max() <= 1


ints = st.integers(-(2**31), 2**31 - 1)


@given(
    st.builds(
        dict,
        channels=ints,
        height=ints,
        width=ints,
        label=ints,
        encoded=st.booleans(),
        data=st.binary(max_size=300),
        float_data=st.lists(st.floats(width=32, allow_nan=False), max_size=3),
    ),
    st.booleans(),
)
def test_every_datum_is_read_as_protobuf_reads_it(fields, unknown):
    datum = caffe_pb2.Datum(**fields)
    value = datum.SerializeToString() + (b"\x98\x06\x01" if unknown else b"")
    record = parse_datum(value)
    for name in ("channels", "height", "width", "label", "encoded"):
        assert getattr(record, name) == getattr(datum, name)
    assert bytes(record.data) == datum.data
    assert list([] if record.float_data is None else record.float_data) == list(datum.float_data)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_record_or_an_error(value):
    try:
        array = datum_to_array(parse_datum(value))
    except DataError:
        return
    assert array.ndim == 3


def test_long_numbers_in_garbage_take_no_time():
    with pytest.raises(DataError, match="not a Datum"):
        parse_datum(b"\x08" + b"\xff" * 1_000_000)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Record(), "channels, height, width are 0, 0, 0"),
        (Record(3, 2, 2, data=b"12345"), r"holds 5 values, but .* 3 × 2 × 2 = 12"),
        (Record(3, 2, 2), "holds 0 values"),
        (Record(1, 1, 2, float_data=np.zeros(3, np.float32)), "holds 3 values"),
        (Record(encoded=1), "does not decode as an image: 0 bytes"),
        (Record(encoded=1, data=b"\xff\xd8\xff no jpeg"), r"does not decode as an image: .*\\xff\\xd8"),
    ],
)
def test_errors_name_the_fault(record, message):
    with pytest.raises(DataError, match=message):
        datum_to_array(record)


def test_16_bit_images_are_an_error():
    data = cv2.imencode(".png", np.zeros((2, 2), np.uint16))[1].tobytes()
    with pytest.raises(DataError, match="uint16"):
        decode_image(data)


def test_a_datum_takes_three_axes():
    with pytest.raises(DataError, match=r"\(2, 2\)"):
        array_to_datum(np.zeros((2, 2)))
