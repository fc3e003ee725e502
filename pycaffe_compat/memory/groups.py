"""The control groups of this process, whose limits hold for it: those of a container, of either version, and their parents."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT, OWN = "/sys/fs/cgroup", "/proc/self/cgroup"


def control_groups(controller: str) -> Iterator[tuple[int, Path]]:
    """Yield the version (1 or 2) and the folder of each group that limits ``controller`` for this process.

    A limit of a parent holds too. Inside a container its own path may not be there; the root then is the container's.

    Args:
        controller: ``memory`` or ``cpu``.
    """
    try:
        with open(OWN, encoding="utf-8", errors="surrogateescape") as file:
            entries = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        entries = []
    paths = {1: "/", 2: "/"}
    for entry in entries:
        if len(entry) == 3 and (controller in entry[1].split(",") or not entry[1]):
            paths[1 if entry[1] else 2] = entry[2]
    for version, mounts in ((2, [ROOT, f"{ROOT}/unified"]), (1, [f"{ROOT}/{controller}"])):
        path = PurePosixPath(paths[version])
        for mount in mounts:
            for part in (path, *path.parents):
                folder = Path(mount, *part.parts[1:])
                if os.path.isdir(folder):
                    yield version, folder


def numbers(path: Path) -> list[int] | None:
    """The numbers in a file of a group; None where it is not there or says something else, such as ``max``."""
    try:
        return [int(word) for word in path.read_text("ascii").split()]
    except (OSError, ValueError):
        return None


def counts(path: Path) -> dict[str, int]:
    """The counters in a file of a group, by name."""
    try:
        return {name: int(number) for name, number in (line.split() for line in path.read_text("ascii").splitlines())}
    except (OSError, ValueError):
        return {}
