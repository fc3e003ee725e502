"""How much memory is left: the least of what the system and a container say."""

from __future__ import annotations

from pathlib import Path

import pytest

from pycaffe_compat.memory import available, containers, groups, lacking

MB = 1 << 20


def container(folder: Path, most: str, used: int, droppable: int) -> None:
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file 7\nfile {droppable}\nshmem 0\n")


def test_a_container_with_less_than_the_system_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "ROOT", str(tmp_path))
    system = available()  # nothing there: no container
    assert system is not None and system > 400 * MB
    container(tmp_path, str(400 * MB), 100 * MB, 50 * MB)
    assert available() == 350 * MB
    assert lacking(351 * MB) == "368 MB of memory, of which 367 MB are left"
    assert lacking(349 * MB) == ""
    container(tmp_path, str(100 * MB), 200 * MB, 0)
    assert available() == 0


@pytest.mark.parametrize("most", ["max", str(1 << 62)])
def test_a_container_without_a_limit_leaves_the_systems(
    most: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "ROOT", str(tmp_path))
    container(tmp_path, most, 0, 0)
    have = available()
    assert have is not None and have < 1 << 60


def test_a_parents_limit_of_version_1_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, parent = tmp_path / "memory/pods/mine", tmp_path / "memory/pods"
    own.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("5:cpu,cpuacct:/other\n4:memory:/pods/mine\n0::/\n")
    monkeypatch.setattr(groups, "ROOT", str(tmp_path))
    monkeypatch.setattr(groups, "OWN", str(tmp_path / "cgroup"))
    for folder, most in ((own, 9223372036854771712), (parent, 300 * MB)):
        (folder / "memory.limit_in_bytes").write_text(f"{most}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{200 * MB}\n")
        (folder / "memory.stat").write_text(f"cache 1\ntotal_cache {50 * MB}\ntotal_shmem {10 * MB}\n")
    assert available() == 140 * MB
    (tmp_path / "cgroup").write_text("4:memory:/of/the/host\n")  # as a container sees it
    (tmp_path / "memory/memory.limit_in_bytes").write_text(f"{90 * MB}\n")
    (tmp_path / "memory/memory.usage_in_bytes").write_text(f"{20 * MB}\n")
    assert available() == 70 * MB


def test_a_parents_limit_of_version_2_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, parent = tmp_path / "user.slice/job.scope", tmp_path / "user.slice"
    own.mkdir(parents=True)
    (tmp_path / "cgroup").write_text("0::/user.slice/job.scope\n")
    monkeypatch.setattr(groups, "ROOT", str(tmp_path))
    monkeypatch.setattr(groups, "OWN", str(tmp_path / "cgroup"))
    container(own, "max", 100 * MB, 0)
    container(parent, str(300 * MB), 200 * MB, 50 * MB)
    assert available() == 150 * MB
    container(own, str(120 * MB), 100 * MB, 0)
    assert available() == 20 * MB


SWAP, NO_SWAP = "MemTotal: 8 kB\nSwapTotal: 4194304 kB\n", "MemTotal: 8 kB\nSwapTotal: 0 kB\n"


@pytest.mark.parametrize(
    ("swap", "own", "parent", "watched"),
    (
        (NO_SWAP, "max", "max", True),
        (SWAP, "max", "max", False),
        (SWAP, "0", "max", True),
        (SWAP, "max", "0", True),  # a parent's limit on swap holds for its children
        (SWAP, str(50 * MB), "max", False),
        (SWAP, None, None, False),  # no such file: swap is not counted
    ),
)
def test_a_group_of_version_2_that_cannot_swap_is_watched(
    swap: str, own: str | None, parent: str | None, watched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text(swap)
    (tmp_path / "cgroup").write_text("0::/pod/mine\n")
    root = tmp_path / "groups"
    folder = root / "pod/mine"
    folder.mkdir(parents=True)
    monkeypatch.setattr(groups, "ROOT", str(root))
    monkeypatch.setattr(groups, "OWN", str(tmp_path / "cgroup"))
    monkeypatch.setattr(containers, "MEMINFO", str(tmp_path / "meminfo"))
    container(folder, str(400 * MB), 100 * MB, 0)
    for where, most in ((folder, own), (folder.parent, parent)):
        if most is not None:
            (where / "memory.swap.max").write_text(f"{most}\n")
    files = [str(folder / name) for name in ("memory.max", "memory.current", "memory.stat")]
    assert containers.watched() == ([*files, "file", "shmem"] if watched else [])


@pytest.mark.parametrize(("together", "watched"), ((400 * MB, True), (800 * MB, False), (None, False)))
def test_a_group_of_version_1_that_cannot_swap_is_watched(
    together: int | None, watched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text(SWAP)
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(groups, "ROOT", str(tmp_path))
    monkeypatch.setattr(groups, "OWN", str(tmp_path / "none"))
    monkeypatch.setattr(containers, "MEMINFO", str(tmp_path / "meminfo"))
    (folder / "memory.limit_in_bytes").write_text(f"{400 * MB}\n")
    if together is not None:
        (folder / "memory.memsw.limit_in_bytes").write_text(f"{together}\n")
    assert bool(containers.watched()) == watched
