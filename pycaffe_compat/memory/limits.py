"""How much memory is left: what is too large is refused with an error, before the system ends the process for it."""

from __future__ import annotations

import os

SMALL = 1 << 28  # bytes that are asked for without looking
_CGROUP = "/sys/fs/cgroup"


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
    """What the control group (version 2) of a container leaves: its limit less what it holds and cannot drop."""
    try:
        with open(f"{_CGROUP}/memory.max", encoding="ascii") as file:
            most = int(file.read())  # "max", no limit, is no number
        with open(f"{_CGROUP}/memory.current", encoding="ascii") as file:
            used = int(file.read())
        with open(f"{_CGROUP}/memory.stat", encoding="ascii") as file:
            counts = {name: int(number) for name, number in (line.split() for line in file)}
    except (OSError, ValueError):
        return None
    return max(most - used + counts.get("inactive_file", 0), 0)
