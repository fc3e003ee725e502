import bisect
import os
import subprocess
import sys
import threading

import lmdb
import numpy as np
import pytest
import warm_start
from samples import GOLDENS, image, raw_database

from pycaffe_compat.data.database import Database, DatabaseWriter
from pycaffe_compat.data.datum import datum_to_array, parse_datum
from pycaffe_compat.errors import CaffeError, DataError, MissingFileError


@pytest.fixture
def path(tmp_path):
    return raw_database(tmp_path / "db", [image(i, 50, 60) for i in range(7)])


def labels(database, positions):
    return [parse_datum(database.read(position)[1]).label for position in positions]


def test_caffes_own_database_is_read_in_key_order():
    database = Database(GOLDENS / "raw_lmdb")
    keys = [key for key, _ in database]
    assert len(database) == 12
    assert keys == sorted(keys)
    assert keys[4] == b"00000004_im04.png"
    assert labels(database, range(4)) == [0, 7, 4, 1]


def test_what_else_has_the_database_open_does_not_matter(path):
    """The package lmdb opens a file once in a process; scripts keep theirs open, or open one that a net reads."""
    with lmdb.open(path, map_size=1 << 24) as writer:
        database = Database(path)
        assert labels(database, range(7)) == list(range(7))
        with writer.begin(write=True) as transaction:
            transaction.delete(next(iter(transaction.cursor()))[0])
        assert len(database) == 7 and len(Database(path)) == 7  # as long as one lives, all see what it sees
    with lmdb.open(path, readonly=True) as reader:
        assert reader.stat()["entries"] == 6
    del database
    assert labels(Database(path), range(6)) == list(range(1, 7))


@pytest.mark.parametrize("number, size", [(0, 0), (1, 10), (5, 3000), (700, 100), (90, 20000)])
def test_databases_of_all_depths_are_read_as_the_library_reads_them(tmp_path, number, size):
    draw = np.random.default_rng(number)
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 26) as written:
        with written.begin(write=True) as transaction:
            for key in draw.permutation(number):
                value = draw.bytes(int(draw.integers(size + 1)))
                transaction.put(b"%08d" % key + b"_" * int(draw.integers(60)), value)
        with written.begin(write=True) as transaction:
            for key in [key for key, _ in transaction.cursor()][3::7]:
                transaction.delete(key)
        with written.begin() as transaction:
            wanted = list(transaction.cursor())
    if not wanted:
        with pytest.raises(DataError, match="is empty"):
            Database(tmp_path / "db")
        return
    database = Database(tmp_path / "db")
    assert list(database) == wanted
    keys = [key for key, _ in wanted]
    for key in [b"%08d" % draw.integers(number + 1) for _ in range(20)] + [keys[0], keys[-1], b"", b"9"]:
        at = bisect.bisect_left(keys, key)
        found = database.find(key)
        assert (found and (found[0], bytes(found[1]))) == (wanted[at] if at < len(keys) else None)
    assert database.read(0)[0] == keys[0]


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_database_is_read_or_refused(path, seed):
    draw = np.random.default_rng(seed)
    with open(os.path.join(path, "data.mdb"), "r+b") as file:
        pages = os.path.getsize(file.name) // 4096
        for page in draw.integers(0, pages, 4):
            file.seek(int(page) * 4096 + int(draw.integers(0, 64)))
            file.write(draw.bytes(4))
    try:
        assert all(isinstance(key, bytes) for key, _ in Database(path))
    except DataError as error:
        assert path in str(error)


def test_any_position_can_be_read_and_the_end_leads_to_the_beginning(path):
    database = Database(path)
    order = [0, 5, 6, 7, 2, 13, 14, 1000, 3, 3]
    assert labels(database, order) == [position % 7 for position in order]


def test_two_readers_and_threads_share_a_path(path):
    one, two = Database(path), Database(os.path.join(path, "..", "db"))
    del one
    assert labels(two, range(7)) == list(range(7))
    wrong = []

    def work(start):
        for position in range(start, start + 300):
            record = parse_datum(two.read(position)[1])
            if record.label != position % 7 or not (datum_to_array(record) == image(position % 7, 50, 60)).all():
                wrong.append(position)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_reads_on(path):
    database = Database(path)
    assert labels(database, [2]) == [2]
    read, write = os.pipe()
    if not os.fork():
        os.write(write, bytes(labels(database, [3, 1])))
        os._exit(0)
    os.wait()
    assert os.read(read, 9) == bytes([3, 1])
    assert labels(database, [3]) == [3]


def test_a_missing_database_is_named_with_the_way_to_make_it(tmp_path):
    with pytest.raises(MissingFileError, match=r"database not found: .*nothing.*caffe-convert-imageset"):
        Database(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(MissingFileError, match=r"no data\.mdb.*caffe-convert-imageset"):
        Database(tmp_path / "folder")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is a file"):
        Database(tmp_path / "file")


def test_a_leveldb_is_told_apart(tmp_path):
    (tmp_path / "CURRENT").write_text("MANIFEST-000001\n")
    with pytest.raises(DataError, match="LevelDB is not supported"):
        Database(tmp_path)


def test_an_empty_database_is_an_error(tmp_path):
    lmdb.open(str(tmp_path / "db")).close()
    with pytest.raises(DataError, match="is empty"):
        Database(tmp_path / "db")


@pytest.mark.parametrize("size", [0, 100, 4096, 8192, 12288, 50000])
def test_truncated_databases_are_errors(path, size):
    os.truncate(os.path.join(path, "data.mdb"), size)
    with pytest.raises(DataError, match=r"truncated: .* bytes|is not an LMDB"):
        Database(path)


def test_a_name_is_needed():
    with pytest.raises(DataError, match="has no name"), DatabaseWriter(""):
        pass
    with pytest.raises(DataError, match="/ exists already"), DatabaseWriter("/"):
        pass
    with pytest.raises(MissingFileError, match="database not found: its path is empty"):
        Database("")


def test_an_empty_file_is_no_database(tmp_path):
    (tmp_path / "data.mdb").touch()
    with pytest.raises(DataError, match=r"data\.mdb is empty"):
        Database(tmp_path)


def test_garbage_is_no_database(tmp_path):
    (tmp_path / "data.mdb").write_bytes(np.random.default_rng(0).bytes(40000))
    with pytest.raises(DataError, match="is not an LMDB"):
        Database(tmp_path)


def test_a_database_made_anew_under_the_same_name_is_the_one_that_is_read(path):
    old = Database(path)
    os.rename(path, path + "_old")
    raw_database(path, [image(99)])
    assert len(Database(path)) == 1
    assert len(old) == 7
    assert labels(old, [6]) == [6]


def test_the_map_grows_with_the_records(tmp_path):
    values = [bytes([i]) * 70_000 for i in range(40)]
    with DatabaseWriter(tmp_path / "db", commit=7, map_size=1 << 16) as writer:
        for i, value in enumerate(values):
            writer.put(b"%04d" % i, value)
    assert [value for _, value in Database(tmp_path / "db")] == values


def test_a_database_is_never_overwritten(path):
    with pytest.raises(DataError, match="exists already"), DatabaseWriter(path):
        pass
    assert len(Database(path)) == 7


def test_an_interrupted_write_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), DatabaseWriter(tmp_path / "db", commit=1) as writer:
        writer.put(b"key", b"value")
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_keys_that_lmdb_does_not_take_are_errors(tmp_path):
    for key in (b"", b"k" * 512):
        with pytest.raises(DataError, match=f"has {len(key)} bytes"), DatabaseWriter(tmp_path / "db") as writer:
            writer.put(key, b"value")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with (
        pytest.raises(CaffeError, match=r"cannot write .*No such file.*mkdir -p .*/no$"),
        DatabaseWriter(tmp_path / "no" / "db"),
    ):
        pass


FULL_DISK = """
import resource, sys
from pycaffe_compat.data.database import DatabaseWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with DatabaseWriter(sys.argv[1]) as writer:
    for i in range(200):
        writer.put(b"%04d" % i, bytes(50_000))
"""


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    result = warm_start.run("-c", FULL_DISK, tmp_path / "db")
    assert result.returncode == 1
    assert "CaffeError: cannot write" in result.stderr
    assert "is the disk full?" in result.stderr
    assert not list(tmp_path.iterdir())


def test_without_the_package_lmdb_all_else_works(path):
    script = f"""
import sys
sys.modules["lmdb"] = None
import pycaffe_compat
from pycaffe_compat.data.database import Database, DatabaseWriter
for use in (lambda: Database({str(path)!r}), lambda: DatabaseWriter("new").__enter__()):
    try:
        use()
    except pycaffe_compat.CaffeError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.count("pip install lmdb") == 1  # only writing needs it


def test_a_database_that_cannot_be_begun_is_an_error_and_leaves_nothing(tmp_path):
    writer = DatabaseWriter(tmp_path / "db", map_size=1 << 60)  # more than addresses can be had for
    with pytest.raises(CaffeError, match=r"cannot write .*db: "), writer:
        pass
    assert not os.listdir(tmp_path)
