"""How much memory is left: what is too large is refused with an error, before the system ends the process for it."""

from __future__ import annotations

import os

from .groups import control_groups, counts, numbers

SMALL = 1 << 28  # bytes that are asked for without looking
_NO_LIMIT = 1 << 60  # bytes; version 1 has no word for it, but a number
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}


def available() -> int | None:
    """The bytes that this process can still take; None where the system does not say."""
    found = [n for n in (_system(), _container()) if n is not None]
    return min(found) if found else None


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


def _container() -> int | None:
    """What the control groups of a container leave: the least of their limits less what they hold and cannot drop."""
    left = []
    for version, folder in control_groups("memory"):
        limit, used, droppable = _FILES[version]
        most, now = numbers(folder / limit), numbers(folder / used)
        if most and now and most[0] < _NO_LIMIT:
            left.append(max(most[0] - now[0] + counts(folder / "memory.stat").get(droppable, 0), 0))
    return min(left, default=None)
