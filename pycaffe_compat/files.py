"""Names of files, and writing files so that a crash, a full disk or Ctrl-C never leaves half of one under its final name."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any, TextIO

from .errors import CaffeError

try:
    import fcntl
except ImportError:  # Windows: no locks, and so no way to tell a dead writer's file
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]
OPEN_ELSEWHERE = "another program has it open for writing; close it there"  # where HDF5 raises BlockingIOError
_MOST = 40  # characters of a file's name, the last ones, that its temporary name has
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # how a text in UTF-16 begins
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}(?P<suffix>\.[^.]*)?")


@contextlib.contextmanager
def atomic_path(path: PathLike) -> Iterator[str]:
    """Yield a temporary path beside ``path``; when the block ends well, sync it to disk and rename it to ``path``.

    Where the block raises, the temporary file is removed and whatever stood at ``path`` before is still there. The suffix of
    the temporary path is that of ``path``, for writers that look at it. A link is followed; a pipe or a device
    (``/dev/stdout``) gets what was written when the block has ended.

    Raises:
        CaffeError: the folder does not exist or cannot be written to, ``path`` is a folder or write-protected, or the disk
            is full.
    """
    final, stream = _target(path)
    try:
        handle, temporary = _temporary(final, stream)
    except OSError as error:
        raise _cannot_write(path, error) from error
    try:
        yield temporary
        if stream:
            with open(temporary, "rb") as source, open(final, "wb") as target:
                shutil.copyfileobj(source, target)
            os.unlink(temporary)
            return
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, final)
    except BaseException as error:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, CaffeError):
            raise CaffeError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error
        raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def staged_path(path: PathLike) -> Iterator[str]:
    """Yield a path of the same name in a hidden folder beside ``path``; when the block ends well, its files move beside ``path``.

    For results that are tried out before they take the place of what is there, and that consist of several files. Where the
    block raises, the folder is removed, and whatever stood at ``path`` before is still there. The error speaks of ``path``.

    Raises:
        CaffeError: as :func:`atomic_path`; ``path`` is a pipe or a device.
    """
    given = os.fspath(path)
    if _target(given)[1]:
        raise CaffeError(
            f"cannot write {given}: it is not a regular file, and the result is tested at that path before it is kept"
        )
    require_writable(given)
    folder, name = os.path.split(given)
    staging = tempfile.mkdtemp(prefix=f".{name[-_MOST:]}.", dir=folder or ".")
    staged = os.path.join(staging, name)
    try:
        yield staged
        for each in sorted(os.listdir(staging), key=lambda made: made == name):  # the file itself comes last
            with atomic_path(os.path.join(folder, each)) as temporary:
                shutil.move(os.path.join(staging, each), temporary)
    except CaffeError as error:
        raise type(error)(str(error).replace(staged, given)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def refuse_overwriting(output: PathLike, *inputs: PathLike) -> None:
    """Raise unless ``output`` is another file than each of ``inputs``, however they are spelled.

    Raises:
        CaffeError: it is one of them.
    """
    for each in inputs:
        if os.path.exists(output) and os.path.exists(each) and os.path.samefile(output, each):
            raise CaffeError(f"{os.fspath(output)} is {os.fspath(each)}, which is an input: name another output file")


def remove_strays(folder: PathLike, names: str) -> list[str]:
    """Remove the temporary files in ``folder`` whose writer was killed; return their paths.

    A writer that lives, in whichever process, holds a lock on its file, which ends with it; such a file stays. So does
    every file where the file system has no locks.

    Args:
        folder: where to look.
        names: a regular expression for the names of the files that were to be written. It sees the last 40 characters.
    """
    removed = []
    for name in sorted(os.listdir(folder)):
        match = _TEMPORARY.fullmatch(name)
        if match is None or not re.fullmatch(names, match["name"]):
            continue
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            handle = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
            try:
                if _lock(handle, wait=False):
                    os.unlink(path)
                    removed.append(path)
            finally:
                os.close(handle)
    return removed


def _lock(handle: int, wait: bool) -> bool:
    """Lock an open file for its writer; return whether that worked."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # somebody else has it, or there are no locks here
        return False
    return True


def require_writable(path: PathLike) -> None:
    """Find out before long work whether :func:`atomic_path` will be able to write ``path``.

    Raises:
        CaffeError: as :func:`atomic_path`, except for a full disk.
    """
    final, stream = _target(path)
    try:
        handle, temporary = _temporary(final, stream)
        os.close(handle)
        os.unlink(temporary)
    except OSError as error:
        raise _cannot_write(path, error) from error


class Sink(io.RawIOBase):
    """A new binary file whose writes never fail: the first error is kept in :attr:`error`, and what comes after it dropped.

    For libraries that do not get over a write that fails: they find out late, in their own words, or crash.
    """

    def __init__(self, path: PathLike) -> None:
        self.error: OSError | None = None
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Write all of ``data``, or note why not."""
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self.error is None and done < len(view):
                done += self._file.write(view[done:]) or 0
        except OSError as error:
            self.error = error
        return len(view)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) or b""

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer) or 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        return self._file.truncate(size)

    def close(self) -> None:
        super().close()
        self._file.close()


@contextlib.contextmanager
def sink(path: PathLike) -> Iterator[Sink]:
    """Yield a :class:`Sink`; when the block ends, close it.

    Raises:
        OSError: the error that it kept: the disk is full, say.
    """
    file = Sink(path)
    try:
        yield file
    except Exception:
        if file.error is None:
            raise
    finally:
        file.close()
    if file.error is not None:
        raise file.error


def _target(path: PathLike) -> tuple[str, bool]:
    """Where ``path`` leads, and whether that is a pipe or a device: nothing that can be renamed to."""
    given = os.fspath(path)
    if not given:
        raise CaffeError("cannot write a file without a name: the path is empty")
    if os.path.isdir(given):
        raise CaffeError(f"cannot write {given}: it is a folder")
    if os.path.exists(given) and not os.access(given, os.W_OK):
        raise CaffeError(f"cannot write {given}: it is write-protected")
    if os.path.exists(given) and not os.path.isfile(given):
        return given, True
    return os.path.realpath(given), False


def _temporary(final: str, stream: bool) -> tuple[int, str]:
    """Make a temporary file for ``final``, locked while the handle is open; return the handle and the path."""
    folder, name = os.path.split(final)
    suffix = os.path.splitext(name)[1]
    while True:
        handle, path = tempfile.mkstemp(prefix=f".{name[-_MOST:]}.", suffix=suffix, dir=None if stream else folder)
        _lock(handle, wait=True)
        if os.path.exists(path):
            return handle, path
        os.close(handle)  # taken for a stray before it was locked


def _cannot_write(path: PathLike, error: OSError) -> CaffeError:
    folder = os.path.dirname(os.path.abspath(os.fspath(path)))
    return CaffeError(f"cannot write {os.fspath(path)}: {error.strerror} (folder {folder})")


def encoding_of(head: bytes) -> str:
    """The encoding of a text file that begins with ``head``: UTF-8 with or without a byte order mark, or UTF-16 with one.

    Editors on Windows write such marks, and PowerShell's ``>`` writes UTF-16.
    """
    return "utf-16" if head.startswith(UTF16) else "utf-8-sig"


def open_text(path: PathLike, newline: str | None = None) -> TextIO:
    """Open a user's text file for reading, in the encoding that it is in; bytes that are no text of it do not matter.

    In UTF-8 they stay as they are (``surrogateescape``), as names of files may have them. ``newline`` is that of ``open``.

    Raises:
        OSError: the file cannot be opened.
    """
    file = open(path, "rb")  # noqa: SIM115 - what is returned closes it
    encoding = encoding_of(file.peek(2)[:2])
    return io.TextIOWrapper(file, encoding, "replace" if encoding == "utf-16" else "surrogateescape", newline)


def sha256(path: PathLike) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def text_path(path: Any) -> Any:
    """``path`` as text where it is bytes, as names of files are in many old scripts; anything else as it is."""
    return os.fsdecode(path) if isinstance(path, bytes) else path
