"""CIFAR-10: the binary archive and the file of JPEGs become LMDBs; other files are refused."""

import io
import tarfile

import cv2
import numpy as np
import pytest

from pycaffe_compat.commands.get_cifar10 import main
from pycaffe_compat.data.cifar10 import Pictures, check_archive, read_archive, read_npz, write_database
from pycaffe_compat.data.database import Database
from pycaffe_compat.data.datum import datum_to_array, parse_datum
from pycaffe_compat.errors import DataError, MissingFileError


def write_archive(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def records(count, first):
    table = np.random.RandomState(first).randint(0, 256, (count, 3073), np.uint8)
    table[:, 0] = (first + np.arange(count)) % 10
    return table


def write_npz(path, counts=(20, 10)):
    arrays = {}
    for part, count in zip(("train", "test"), counts, strict=True):
        images = [np.full((32, 32, 3), (number % 256, 90, 200), np.uint8) for number in range(count)]
        files = [cv2.imencode(".jpg", image)[1] for image in images]
        arrays[f"{part}_jpeg"] = np.concatenate(files)
        arrays[f"{part}_offset"] = np.cumsum([0, *map(len, files)])
        arrays[f"{part}_label"] = (np.arange(count) % 10).astype(np.uint8)
    np.savez(path, **arrays)


def test_the_archive_is_read_in_order_as_bgr(tmp_path):
    tables = {f"data_batch_{number}.bin": records(4, number) for number in range(1, 6)} | {
        "test_batch.bin": records(3, 9)
    }
    write_archive(tmp_path / "a.tar.gz", {name: table.tobytes() for name, table in tables.items()})
    parts = read_archive(str(tmp_path / "a.tar.gz"))
    assert parts["train"].images.shape == (20, 3, 32, 32) and parts["test"].images.shape == (3, 3, 32, 32)
    third = tables["data_batch_1.bin"][2]
    np.testing.assert_array_equal(parts["train"].images[2, 2].ravel(), third[1:1025])  # red is the last of BGR
    assert parts["train"].labels[2] == third[0]


def test_an_archive_that_is_another(tmp_path, capsys):
    path = tmp_path / "a.tar.gz"
    write_archive(path, {"data_batch_1.bin": records(1, 0).tobytes()})
    with pytest.raises(DataError, match="is not the official archive of CIFAR-10: its MD5 is"):
        check_archive(str(path))
    assert main(["--archive", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "not the official archive" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"has no data_batch_2.bin"):
        read_archive(str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a readable archive"):
        read_archive(str(path))
    with pytest.raises(MissingFileError):
        check_archive(str(tmp_path / "none"))


def test_jpegs_become_databases_once(tmp_path, capsys):
    write_npz(tmp_path / "a.npz")
    arguments = ["--npz", str(tmp_path / "a.npz"), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    train = Database(tmp_path / "out/train_lmdb")
    assert len(train) == 20 and len(Database(tmp_path / "out/test_lmdb")) == 10
    key, value = train.read(7)
    record = parse_datum(value)
    assert key == b"00000007_00007.png" and record.label == 7
    assert abs(datum_to_array(record)[:, 5, 5].astype(int) - [7, 90, 200]).max() < 12
    assert main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_files_that_are_no_jpegs(tmp_path):
    np.savez(tmp_path / "a.npz", train_jpeg=np.zeros(3, np.uint8))
    with pytest.raises(DataError, match=r"a.npz: not a file of JPEGs"):
        read_npz(str(tmp_path / "a.npz"))
    (tmp_path / "b.npz").write_bytes(b"text")
    with pytest.raises(DataError, match=r"b.npz: not a file of JPEGs"):
        read_npz(str(tmp_path / "b.npz"))


def test_a_database_has_the_order_it_is_told(tmp_path):
    pictures = Pictures(np.zeros((5, 3, 32, 32), np.uint8), np.arange(5))
    write_database(pictures, str(tmp_path / "db"), np.array([3, 0]))
    database = Database(tmp_path / "db")
    assert [parse_datum(database.read(i)[1]).label for i in range(2)] == [3, 0] and len(database) == 2
