"""LMDB databases: records under keys, read in key order and written in transactions."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator

try:
    import lmdb
except ImportError:  # everything but databases works without it
    lmdb = None  # type: ignore[assignment]

from ..errors import CaffeError, DataError, MissingFileError, require_file
from ..proto.kinds import kind_of
from .lmdb_file import Cursor, DataFile, FormatError

CREATE = "Make it with: caffe-convert-imageset ROOTFOLDER/ LISTFILE {path}"
LEVELDB = (
    "LevelDB is not supported. Make {path} again from its images as an LMDB (caffe-convert-imageset), or copy its records "
    "into an LMDB with the plyvel and lmdb packages; then set backend: LMDB"
)
_files: weakref.WeakValueDictionary[tuple[int, int], DataFile | _ByLibrary] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def _require_lmdb() -> None:
    if lmdb is None:
        raise DataError("reading or writing an LMDB needs the package lmdb, which is not installed: pip install lmdb")


class _ByLibrary:
    """A file of a newer format than :class:`DataFile` reads, which the package ``lmdb`` may know."""

    def __init__(self, path: str) -> None:
        _require_lmdb()
        try:
            self.handle = lmdb.open(path, readonly=True, lock=False, max_dbs=0)
        except lmdb.Error as error:
            raise DataError(f"{path} is not an LMDB: {error}") from error
        self.entries: int = self.handle.stat()["entries"]

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            self.handle.close()


class _LibraryCursor:
    """The library's cursor as a :class:`Cursor`."""

    def __init__(self, file: _ByLibrary) -> None:
        self._cursor = file.handle.begin(buffers=True).cursor()
        self.first, self.next = self._cursor.first, self._cursor.next
        self.seek = self._cursor.set_range

    def record(self) -> tuple[bytes, memoryview]:
        return bytes(self._cursor.key()), self._cursor.value()


def _open(path: str) -> DataFile | _ByLibrary:
    file = os.path.join(path, "data.mdb")
    if not os.path.getsize(file):
        raise DataError(f"{path} is not an LMDB: its data.mdb is empty")
    try:
        return DataFile(file, path)
    except OSError as error:
        if isinstance(error, CaffeError):
            raise
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    except FormatError as error:
        if lmdb is None or not error.newer:
            raise
        return _ByLibrary(path)


def _shared(path: str) -> DataFile | _ByLibrary:
    """The open database at ``path``, which all of its readers share."""
    status = os.stat(os.path.join(path, "data.mdb"))
    key = (status.st_dev, status.st_ino)
    with _opening:
        file = _files.get(key)
        if file is None:
            file = _files[key] = _open(path)
        return file


class Database:
    """The records of an LMDB, in key order.

    Any position can be read. Going forward is fast; going back starts over at the first key, because LMDB has no index by
    position. Any key is found fast. Safe to use from several threads and after a fork. The values are views into the mapped
    file: they are valid as long as this object lives.

    Args:
        path: the folder that holds ``data.mdb``.
        create: how such a database is made, for messages; ``{path}`` stands for the path.

    Raises:
        MissingFileError: nothing is there; the message says how to make it.
        DataError: it is empty, truncated, not an LMDB, or a LevelDB.
    """

    def __init__(self, path: str | os.PathLike[str], create: str = CREATE) -> None:
        self.path = os.fspath(path)
        how = create.format(path=self.path)
        require_file(self.path, "database", how)
        if not os.path.isdir(self.path):
            kind = kind_of(self.path)
            what = f"a file ({kind.what})" if kind else "a file"
            raise DataError(f"{self.path} is {what}, but an LMDB is a folder that holds data.mdb")
        if os.path.exists(os.path.join(self.path, "CURRENT")):
            raise DataError(LEVELDB.format(path=self.path))
        if not os.path.exists(os.path.join(self.path, "data.mdb")):
            raise MissingFileError(f"no database in {self.path}: the folder holds no data.mdb. {how}")
        self._file = _shared(self.path)
        self._begin()
        if not len(self):
            raise DataError(f"database {self.path} is empty: it has no records. {how}")

    def _begin(self) -> None:
        """Create the lock and the cursor, which a forked process cannot share with its parent."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._cursor = Cursor(self._file) if isinstance(self._file, DataFile) else _LibraryCursor(self._file)
        self._at = -1

    def __len__(self) -> int:
        return self._file.entries

    def read(self, position: int) -> tuple[bytes, memoryview]:
        """Return key and value of the record at ``position``, in key order and modulo the number of records.

        The value is a view into the mapped file: do not touch it after this object is gone.

        Raises:
            DataError: the database is damaged.
        """
        if self._pid != os.getpid():
            self._begin()
        position %= len(self)
        with self._lock:
            try:
                if self._at < 0 or position < self._at:
                    self._cursor.first()
                    self._at = 0
                while self._at < position:
                    if not self._cursor.next():
                        raise DataError(
                            f"database {self.path} ends after record {self._at} of {len(self)}; it is damaged"
                        )
                    self._at += 1
                return self._cursor.record()
            except BaseException:
                self._at = -1
                raise

    def find(self, key: bytes) -> tuple[bytes, memoryview] | None:
        """Return key and value of the first record whose key is not before ``key``; None behind the last one.

        It takes as long anywhere in the database. The value is as that of :meth:`read`.
        """
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            self._at = -1  # the position is not known
            return self._cursor.record() if self._cursor.seek(key) else None

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over copies of keys and values."""
        for position in range(len(self)):
            key, value = self.read(position)
            yield key, bytes(value)


class DatabaseWriter:
    """Write a new LMDB; use it in a ``with`` statement.

    Records go to a temporary folder beside ``path``, which is renamed if the block succeeds and removed if it fails.

    Args:
        path: the folder to make; its parent must exist.
        commit: the number of records in a transaction.
        map_size: the initial size of the map in bytes; it grows as needed.

    Raises:
        CaffeError: ``path`` exists already, cannot be written, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str], commit: int = 1000, map_size: int = 1 << 26) -> None:
        self.path = os.fspath(path).rstrip("/") or os.fspath(path)
        self._commit = commit
        self._map_size = map_size
        self._pending: list[tuple[bytes, bytes]] = []
        self._bytes = 0

    def __enter__(self) -> DatabaseWriter:
        _require_lmdb()
        if not self.path:
            raise DataError("the database to write has no name: its path is empty")
        if os.path.lexists(self.path):
            raise DataError(f"database {self.path} exists already: remove it first, or choose another name")
        folder, name = os.path.split(os.path.abspath(self.path))
        try:
            self._temporary = tempfile.mkdtemp(prefix=f".{name}.", dir=folder)
        except OSError as error:
            hint = "" if os.path.isdir(folder) else f"; make it with: mkdir -p {os.path.dirname(self.path)}"
            raise CaffeError(f"cannot write {self.path}: {error.strerror} (folder {folder}){hint}") from error
        # No lock file, and one sync at the end: nobody else knows the folder, and after a crash it has no final name.
        try:
            self._environment = lmdb.open(self._temporary, map_size=self._map_size, lock=False, sync=False)
        except lmdb.Error as error:
            shutil.rmtree(self._temporary, ignore_errors=True)
            raise CaffeError(f"cannot write {self.path}: {error}; is the disk full?") from error
        return self

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; keys are 1 to 511 bytes long.

        Raises:
            DataError: the key is shorter or longer.
        """
        if not 0 < len(key) <= 511:
            raise DataError(
                f"key {key.decode(errors='backslashreplace')} has {len(key)} bytes; an LMDB key has 1 to 511"
            )
        self._pending.append((key, value))
        self._bytes += len(value)
        if len(self._pending) >= self._commit or self._bytes >= 1 << 27:
            self._flush()

    def _flush(self) -> None:
        while self._pending:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        transaction.put(key, value)
                self._pending = []
                self._bytes = 0
            except lmdb.MapFullError:
                self._map_size = 2 * max(self._map_size, self._bytes)
                self._environment.set_mapsize(self._map_size)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self._flush()
                self._environment.sync(True)
                self._environment.close()
                os.chmod(self._temporary, 0o777 & ~_umask())
                os.rename(self._temporary, self.path)
            elif isinstance(error, (lmdb.Error, OSError)) and not isinstance(error, CaffeError):
                raise error
        except (lmdb.Error, OSError) as failure:
            raise CaffeError(f"cannot write {self.path}: {failure}; is the disk full?") from failure
        finally:
            self._environment.close()
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(self._temporary)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
