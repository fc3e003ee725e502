"""Writing files so that a crash, a full disk or Ctrl-C never leaves half of one under its final name."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from .errors import CaffeError


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield a temporary path beside ``path``; when the block ends well, sync it to disk and rename it to ``path``.

    Where the block raises, the temporary file is removed and whatever stood at ``path`` before is still there. The suffix of
    the temporary path is that of ``path``, for writers that look at it.

    Raises:
        CaffeError: the folder does not exist or cannot be written to, or the disk is full.
    """
    final = os.path.abspath(os.fspath(path))
    folder, name = os.path.split(final)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=os.path.splitext(name)[1], dir=folder)
    except OSError as error:
        raise CaffeError(f"cannot write {os.fspath(path)}: {error.strerror} (folder {folder})") from error
    os.close(handle)
    try:
        yield temporary
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
