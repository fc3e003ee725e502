"""What the limits of a container leave of the memory."""

from __future__ import annotations

from pathlib import Path

from .groups import control_groups, counts, numbers

MEMINFO = "/proc/meminfo"
_NO_LIMIT = 1 << 60  # bytes; version 1 has no word for it, but a number
# Of a group: its limit, what it uses, and in memory.stat its cached pages, and those among them that cannot be dropped. Not
# the inactive_file that others subtract: Linux counts there too what was marked free (MADV_FREE) and has been used again.
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache", "total_shmem"),
    2: ("memory.max", "memory.current", "file", "shmem"),
}


def left() -> int | None:
    """The least of the limits of this process's control groups, less what they hold and cannot drop; None without limits."""
    found = []
    for version, folder in control_groups("memory"):
        limit, used, cached, shared = _FILES[version]
        most, now = numbers(folder / limit), numbers(folder / used)
        if most and now and most[0] < _NO_LIMIT:
            stat = counts(folder / "memory.stat")
            found.append(max(most[0] - now[0] + stat.get(cached, 0) - stat.get(shared, 0), 0))
    return min(found, default=None)


def watched() -> list[str]:
    """What the compiled library watches: of each control group with a limit five words, three files and two counters.

    A group that may swap is left out: there the system swaps before it ends a process.
    """
    words: list[str] = []
    for version, folder in control_groups("memory"):
        limit, used, *counters = _FILES[version]
        most = numbers(folder / limit)
        if most and most[0] < _NO_LIMIT and not _may_swap(version, folder, most[0]):
            words += [str(folder / limit), str(folder / used), str(folder / "memory.stat"), *counters]
    return words


def _may_swap(version: int, folder: Path, limit: int) -> bool:
    """Whether the system may swap what a group of this limit uses: it has swap, and no limit forbids it.

    In version 2 a parent's limit on swap holds too. In version 1 there is a limit on memory and swap together.
    """
    try:
        with open(MEMINFO, encoding="ascii") as file:
            if not any(line.startswith("SwapTotal:") and int(line.split()[1]) for line in file):
                return False
    except (OSError, ValueError, IndexError):
        return False
    if version == 2:
        return all(numbers(each / "memory.swap.max") != [0] for each in (folder, *folder.parents))
    return numbers(folder / "memory.memsw.limit_in_bytes") != [limit]
