"""How much memory is left: what is too large is refused with an error, before the system ends the process for it."""

from __future__ import annotations

import os

from . import containers
from .recycling import state

SMALL = 1 << 28  # bytes that are asked for without looking


def available() -> int | None:
    """The bytes that this process can still take; None where the system does not say.

    What is kept for large tensors counts: the system takes it where it is wanted.
    """
    found = [n for n in (_system(), containers.left()) if n is not None]
    kept = state()
    return min(found) + (kept.kept if kept else 0) if found else None


def lacking(size: int) -> str:
    """Return ``""`` where ``size`` more bytes can be had; otherwise what is needed and what there is, in words."""
    if size <= SMALL:
        return ""
    have = available()
    return f"{_words(size)} of memory, of which {_words(have)} are left" if have is not None and size > have else ""


def _words(size: int) -> str:
    for power, unit in ((12, "TB"), (9, "GB"), (6, "MB")):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"


def _system() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in file}
        return (kilobytes["MemAvailable"] + kilobytes.get("SwapFree", 0)) * 1024
    except (OSError, ValueError, KeyError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
