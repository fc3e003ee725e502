import os

import h5py
import numpy as np
import pytest

from pycaffe_compat.data.batches import Shard
from pycaffe_compat.data.hdf5 import Hdf5Reader
from pycaffe_compat.errors import DataError, MissingFileError, ParseError, SolverError
from pycaffe_compat.proto import read_weights
from pycaffe_compat.solver.snapshot import open_state


def write(path, rows, first=0, **changes):
    """A file with the datasets data (rows × 2 × 3) and label (rows); every row holds its number."""
    numbers = np.arange(first, first + rows)
    datasets = {
        "data": np.broadcast_to(numbers[:, None, None], (rows, 2, 3)).astype(np.float64),
        "label": numbers,
        **changes,
    }
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            if values is not None:
                file[name] = values
    return str(path)


@pytest.fixture
def source(tmp_path):
    files = [write(tmp_path / f"{i}.h5", rows, first) for i, (rows, first) in enumerate([(5, 0), (2, 5), (4, 7)])]
    (tmp_path / "files.txt").write_text("\n".join(files) + "\n")
    return str(tmp_path / "files.txt")


def epochs(reader, count, shard=None):
    arrays = [reader.begin(shard or Shard(3), i * reader.batch_size)[0] for i in range(count)]
    return np.concatenate([data for data, _ in arrays]), np.concatenate([label for _, label in arrays])


def test_rows_come_in_order_over_files_and_round_again(source):
    reader = Hdf5Reader(source, ["data", "label"], 4)
    assert reader.shapes() == [(4, 2, 3), (4,)]
    data, label = epochs(reader, 6)
    assert data.dtype == label.dtype == np.float32
    np.testing.assert_array_equal(label, np.arange(24) % 11)
    np.testing.assert_array_equal(data[:, 1, 2], label)


def test_shuffling_mixes_files_and_rows_anew_in_every_epoch(source):
    reader = Hdf5Reader(source, ["data", "label"], 11, shuffle=True)
    data, label = epochs(reader, 3)
    np.testing.assert_array_equal(data[:, 0, 0], label)
    orders = [tuple(epoch) for epoch in label.reshape(3, 11)]
    assert len(set(orders)) == 3
    file_of = np.repeat([0, 1, 2], [5, 2, 4])
    for order in orders:
        assert sorted(order) == list(range(11))
        files = file_of[np.array(order, int)]
        assert (np.diff(files) != 0).sum() == 2, "the rows of a file stay together"
    again = Hdf5Reader(source, ["data", "label"], 11, shuffle=True)
    np.testing.assert_array_equal(again.begin(Shard(3), 22)[0][1], orders[2])
    assert tuple(again.begin(Shard(4), 22)[0][1]) != orders[2]


def test_shares_of_two_processes_make_up_the_whole(source):
    reader = Hdf5Reader(source, ["label"], 3)
    rows = [reader.begin(Shard(0, rank, 2), 0)[0][0] for rank in (0, 1)]
    np.testing.assert_array_equal(rows, [[0, 2, 4], [1, 3, 5]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.arange(4)}, 'different numbers of rows: "data" 3, "label" 4'),
        (
            {"label": None, "labels": np.arange(3)},
            r'has no dataset "label" \(did you mean labels\?\); it holds: data, labels',
        ),
        ({"label": np.array([b"a", b"b", b"c"])}, 'dataset "label" of .* expected floats or integers'),
        ({"label": 3.0}, "expected at least one row"),
        ({"data": np.zeros((3, 2, 4))}, r"rows of shape \(2, 4\) in .*bad.h5, but \(2, 3\) in .*good.h5"),
    ],
)
def test_files_that_do_not_fit_are_errors(tmp_path, changes, message):
    names = [write(tmp_path / "good.h5", 3), write(tmp_path / "bad.h5", 3, **changes)]
    (tmp_path / "files.txt").write_text("\n".join(names))
    with pytest.raises(DataError, match=message):
        Hdf5Reader(str(tmp_path / "files.txt"), ["data", "label"], 2)


def test_lists_that_cannot_be(tmp_path):
    with pytest.raises(MissingFileError, match="list of HDF5 files not found"):
        Hdf5Reader(str(tmp_path / "none.txt"), ["data"], 2)
    (tmp_path / "files.txt").write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        Hdf5Reader(str(tmp_path / "files.txt"), ["data"], 2)
    (tmp_path / "files.txt").write_text(str(tmp_path / "gone.h5"))
    with pytest.raises(MissingFileError, match=r"HDF5 file not found: .*gone\.h5"):
        Hdf5Reader(str(tmp_path / "files.txt"), ["data"], 2)
    with pytest.raises(DataError, match=r"the file is HDF5 data: .* Expected a text file that lists HDF5 files"):
        Hdf5Reader(write(tmp_path / "direct.h5", 3), ["data"], 2)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_of_windows_are_read(tmp_path, encoding):
    (tmp_path / "files.txt").write_text(write(tmp_path / "a.h5", 3), encoding=encoding)
    assert Hdf5Reader(str(tmp_path / "files.txt"), ["data"], 2).shapes()[0][0] == 2


def test_damaged_files_are_errors(tmp_path):
    write(tmp_path / "cut.h5", 50)
    os.truncate(tmp_path / "cut.h5", 900)
    (tmp_path / "files.txt").write_text(str(tmp_path / "cut.h5"))
    with pytest.raises(DataError, match=r"cut\.h5 is not an HDF5 file"):
        Hdf5Reader(str(tmp_path / "files.txt"), ["data"], 2)


def test_declared_sizes_beyond_the_file_get_no_memory(tmp_path):
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("data", (10**9, 1000), np.float32, chunks=(1000, 1000))
    (tmp_path / "files.txt").write_text(str(tmp_path / "huge.h5"))
    with pytest.raises(DataError, match="it is damaged"):
        Hdf5Reader(str(tmp_path / "files.txt"), ["data"], 2)


def test_a_file_that_another_program_writes_is_said_to_be_open_there(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "files.txt").write_text(write(tmp_path / "a.h5", 3))
    with open(tmp_path / "a.h5", "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as the HDF5 library does
        for read, error in (
            (lambda: Hdf5Reader(str(tmp_path / "files.txt"), ["data"], 1), DataError),
            (lambda: read_weights(str(tmp_path / "a.h5")), ParseError),
            (lambda: open_state(str(tmp_path / "a.h5")).__enter__(), SolverError),
        ):
            with pytest.raises(error, match=r"a\.h5:? cannot be read: another program has it open for writing"):
                read()
