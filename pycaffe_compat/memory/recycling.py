"""Where large CPU tensors live: in huge pages that are used again.

Every training step makes and frees the same large tensors. The C library gives such memory back to the system and takes it
again, in pages of 4 KB, each cleared by the system first. On many virtual machines that takes longer than the arithmetic.
:func:`recycle` turns that off for the whole process: large tensors get huge pages where the system has them
(``/sys/kernel/mm/transparent_hugepage/enabled`` is ``madvise`` or ``always``), and what is freed is kept for the next one.
In use and kept together stay within an eighth, or 64 MB, of the most that was ever in use, so the peak grows little.

Solvers and training commands on the CPU turn it on. Importing the package changes nothing. ``PYCAFFE_COMPAT_RECYCLE=0``
keeps it off.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from dataclasses import dataclass

import torch

from .. import extension
from ..errors import CaffeError
from .containers import watched

VARIABLE = "PYCAFFE_COMPAT_RECYCLE"
_HUGE_PAGE = 2 << 20
_MADV_HUGEPAGE = 14
_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_ARENA_MAX = -4, -1, -8


@dataclass(frozen=True)
class State:
    """What the allocator holds.

    Attributes:
        in_use, kept, most_in_use: bytes of large tensors; of freed ones, kept for the next; the most of the first at once.
        reused, mapped, returned: how many blocks were used again, taken from the system, and given back to it.
    """

    in_use: int
    kept: int
    most_in_use: int
    reused: int
    mapped: int
    returned: int


_how = "off"


def recycle(on: bool = True) -> str:
    """Turn the recycling of large CPU tensors on or off, for this process; return what is on now, in words.

    Turned on twice is on once. Tensors that exist stay where they are. Turning it off gives the kept memory back. While it
    is on, a large tensor that this machine or a control group of this process has no room for is an error of PyTorch
    (``RuntimeError``: not enough memory), where the system would end the process once it is written.

    Raises:
        CaffeError: ``PYCAFFE_COMPAT_RECYCLE`` is neither 0 nor 1.
    """
    global _how
    wanted = os.environ.get(VARIABLE, "1")
    if wanted not in ("0", "1"):
        raise CaffeError(f'{VARIABLE} is "{wanted}"; valid: 1, or 0 to leave memory to the C library')
    if wanted == "0":
        _how = f"off ({VARIABLE}=0)"
    elif extension.load() is None:
        is_on = torch.ops.pycaffe_compat.recycle_memory(on)
        if is_on and hasattr(torch.ops.pycaffe_compat, "watch_memory"):  # a library that was built before lacks it
            torch.ops.pycaffe_compat.watch_memory(watched())
        _how = f"on ({_pages()})" if is_on else "off" if not on else "off (only on Linux, with PyTorch's own allocator)"
    elif on:
        _how = _keep_heap()
    return _how


def recycling() -> str:
    """Say whether large CPU tensors are recycled, and in which pages: ``"on (huge pages)"``, ``"off"``."""
    return _how


def release() -> int:
    """Give the memory that is kept back to the system; return the number of bytes."""
    return torch.ops.pycaffe_compat.release_memory() if extension.load() is None else 0


def state() -> State | None:
    """What the allocator holds; None without the compiled library."""
    return State(*torch.ops.pycaffe_compat.memory_state()) if extension.load() is None else None


def _pages() -> str:
    """Which pages the system gives to those that ask for huge ones."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled", encoding="ascii") as file:
            huge = "[never]" not in file.read()
    except OSError:
        huge = False
    return "huge pages" if huge else "small pages: this system has no transparent huge pages"


@functools.cache
def _keep_heap() -> str:
    """Without the compiled library: let the C library take large memory from its heap, keep it, and have it in huge pages.

    glibc's own switches, which hold for the rest of the process. The heap is grown to half of the memory that is there
    (addresses, not memory: pages come when they are written) so that one advice covers it.
    """
    if platform.libc_ver()[0] != "glibc":
        return "off (the compiled library is not built, and the C library is not glibc)"
    library = ctypes.CDLL(None)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    library.free.argtypes = (ctypes.c_void_p,)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_ARENA_MAX, 1)):
        library.mallopt(option, value)
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    address = library.malloc(size)
    if address:
        first = -(-address // _HUGE_PAGE) * _HUGE_PAGE
        library.madvise(first, (address + size - first) // _HUGE_PAGE * _HUGE_PAGE, _MADV_HUGEPAGE)
        library.free(address)
    return f"on (the C library's heap, {_pages()})"
