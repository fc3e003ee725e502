import numpy as np
import pytest
from samples import GOLDENS

from pycaffe_compat.data.mean import read_mean, write_mean
from pycaffe_compat.errors import CaffeError, DataError, MissingFileError
from pycaffe_compat.proto import array_to_blob, caffe_pb2, write_message


def test_caffes_mean_file_is_read_and_written_to_the_byte(tmp_path):
    mean = read_mean(GOLDENS / "mean.binaryproto")
    assert mean.shape == (3, 40, 48)
    assert mean.dtype == np.float32
    write_mean(tmp_path / "mean.binaryproto", mean)
    assert (tmp_path / "mean.binaryproto").read_bytes() == (GOLDENS / "mean.binaryproto").read_bytes()


def test_both_forms_of_dimensions_are_read(tmp_path):
    mean = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for blob in (array_to_blob(mean), array_to_blob(mean[None]), array_to_blob(mean.astype(np.float64))):
        write_message(tmp_path / "mean", blob)
        np.testing.assert_array_equal(read_mean(tmp_path / "mean"), mean)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (5,), (3, 0, 2)])
def test_a_mean_that_is_not_one_image_is_an_error(tmp_path, shape):
    write_message(tmp_path / "mean", array_to_blob(np.zeros(shape, np.float32)))
    with pytest.raises(DataError, match="expected one image"):
        read_mean(tmp_path / "mean")


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(MissingFileError, match="no_mean"):
        read_mean(tmp_path / "no_mean")
    (tmp_path / "cut").write_bytes((GOLDENS / "mean.binaryproto").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"mean file .*cut"):
        read_mean(tmp_path / "cut")
    write_message(tmp_path / "short", caffe_pb2.BlobProto(num=1, channels=3, height=4, width=4, data=[1.0]))
    with pytest.raises(DataError, match=r"mean file .*short"):
        read_mean(tmp_path / "short")
    with pytest.raises(CaffeError, match="cannot write"):
        write_mean(tmp_path / "no" / "mean", np.zeros((1, 1, 1), np.float32))
