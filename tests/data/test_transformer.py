import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import image

from pycaffe_compat.data.mean import write_mean
from pycaffe_compat.data.transformer import Transformer
from pycaffe_compat.errors import DataError, MissingFileError
from pycaffe_compat.proto import caffe_pb2

TRAIN, TEST = caffe_pb2.TRAIN, caffe_pb2.TEST


def transform(transformer, planes, words=(0, 0, 0)):
    out = np.full(transformer.check(planes.shape), np.nan, np.float32)
    transformer(planes, words, out)
    return out


def value_by_value(planes, crop, train, mirror, mean, scale, words):
    """The transformation as Caffe's documentation has it, one value at a time."""
    channels, height, width = planes.shape
    rows, columns = (crop, crop) if crop else (height, width)
    top = words[0] % (height - rows + 1) if train else (height - rows) // 2
    left = words[1] % (width - columns + 1) if train else (width - columns) // 2
    out = np.empty((channels, rows, columns), np.float32)
    for c, h, w in np.ndindex(*out.shape):
        minus = mean[c] if np.ndim(mean) == 1 else mean[c, top + h, left + w]
        to = columns - 1 - w if mirror and words[2] % 2 else w
        out[c, h, to] = (np.float32(planes[c, top + h, left + w]) - np.float32(minus)) * np.float32(scale)
    return out


@settings(deadline=None, max_examples=60)
@given(
    channels=st.sampled_from([1, 3, 4]),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    crop=st.integers(0, 9),
    phase=st.sampled_from([TRAIN, TEST]),
    mirror=st.booleans(),
    mean=st.sampled_from(["none", "one", "each", "image"]),
    scale=st.sampled_from([1.0, 0.00390625, 0.017]),
    interleaved=st.booleans(),
    floats=st.booleans(),
    words=st.tuples(*[st.integers(0, 2**64 - 1)] * 3),
)
def test_every_option_works(
    tmp_path_factory, channels, size, crop, phase, mirror, mean, scale, interleaved, floats, words
):
    crop = min(crop, *size)
    planes = image(sum(size), *size, channels)
    if interleaved:
        planes = np.ascontiguousarray(planes.transpose(1, 2, 0)).transpose(2, 0, 1)
    if floats:
        planes = planes.astype(np.float32) / 3
    param = caffe_pb2.TransformationParameter(scale=scale, mirror=mirror, crop_size=crop)
    minus = np.zeros(channels, np.float32)
    if mean in ("one", "each"):
        param.mean_value.extend([100.5, 110.25, 120.125, 7.0][: 1 if mean == "one" else channels])
        minus = np.resize(np.array(param.mean_value, np.float32), channels)
    elif mean == "image":
        minus = image(1, *size, channels).astype(np.float32) + np.float32(0.3)
        param.mean_file = str(tmp_path_factory.mktemp("mean") / "mean.binaryproto")
        write_mean(param.mean_file, minus)
    got = transform(Transformer(param, phase), planes, words)
    np.testing.assert_array_equal(got, value_by_value(planes, crop, phase == TRAIN, mirror, minus, scale, words))


def test_random_says_whether_words_are_needed():
    needs = {
        (crop, mirror, phase): Transformer(
            caffe_pb2.TransformationParameter(crop_size=crop, mirror=mirror), phase
        ).random
        for crop in (0, 2)
        for mirror in (False, True)
        for phase in (TRAIN, TEST)
    }
    assert {key for key, random in needs.items() if random} == {
        (0, True, TRAIN), (0, True, TEST), (2, True, TRAIN), (2, True, TEST), (2, False, TRAIN)
    }  # fmt: skip


def test_errors_give_both_sizes(tmp_path):
    def make(**options):
        return Transformer(caffe_pb2.TransformationParameter(**options), TEST)

    with pytest.raises(DataError, match="crop_size 11 is larger than the image, which is 10 × 12"):
        transform(make(crop_size=11), image())
    with pytest.raises(DataError, match="2 mean_values for 3 channels"):
        transform(make(mean_value=[1, 2]), image())
    with pytest.raises(DataError, match="3 mean_values for 1 channels"):
        transform(make(mean_value=[1, 2, 3]), image(channels=1))
    mean = str(tmp_path / "mean.binaryproto")
    write_mean(mean, np.zeros((3, 8, 9), np.float32))
    with pytest.raises(DataError, match=r"mean\.binaryproto has shape 3 × 8 × 9, but the image 3 × 10 × 12"):
        transform(make(mean_file=mean), image())
    with pytest.raises(DataError, match="mean_file or mean_value, not both"):
        make(mean_file=mean, mean_value=[1])
    with pytest.raises(DataError, match="force_color or force_gray, not both"):
        make(force_color=True, force_gray=True)
    with pytest.raises(MissingFileError, match="nowhere"):
        make(mean_file=str(tmp_path / "nowhere"))
    with pytest.raises(
        DataError, match=r"has 3 × 10 × 12 values after the transformation, but the first record of the batch 3 × 4 × 4"
    ):
        make()(image(), (), np.empty((3, 4, 4), np.float32))


def test_forcing_channels_of_raw_records_is_warned_of_once(caplog):
    transformer = Transformer(caffe_pb2.TransformationParameter(force_color=True), TEST)
    with caplog.at_level(logging.WARNING):
        transformer.warn_raw("db")
        transformer.warn_raw("db")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert transformer.color is True
