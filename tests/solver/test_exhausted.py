"""A training that the memory or the disk does not suffice for: one error, and the earlier snapshots are sound."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_solver import RULES, make, write_files

from pycaffe_compat.errors import CaffeError, OutOfMemoryError
from pycaffe_compat.solver import Hook
from pycaffe_compat.solver.exhausted import is_exhausted
from pycaffe_compat.solver.resume import flaw, newest_sound

ROOT = Path(__file__).parents[2]


def test_a_step_without_memory_says_what_to_reduce(tmp_path: Path) -> None:
    class Greedy(Hook):
        def after_backward(self, solver: object) -> None:
            if solver.iter == 3:  # type: ignore[attr-defined]
                torch.empty(1 << 50)

    solver = make(tmp_path, "snapshot: 2 iter_size: 3", hooks=[Greedy()])
    with pytest.raises(OutOfMemoryError) as caught:
        solver.step(9)
    said = str(caught.value)
    assert said.startswith("iteration 3: the memory of this machine or container does not suffice (")
    assert 'Reduce batch_size of the data layer "data" (now 5) and raise iter_size (now 3)' in said and "--amp" in said
    assert f"The newest snapshot, {tmp_path}/small_iter_2.solverstate, is sound" in said and "\n" not in said
    assert not flaw(tmp_path / "small_iter_2.solverstate")
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, MemoryError)


@pytest.mark.parametrize(
    ("size", "why"),
    [(0, "batch_size is 0"), (-1, "batch_size takes an integer from 0"), (2_000_000_000, "TB of memory, of which")],
)
def test_a_batch_that_cannot_be(size: int, why: str, tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match=f'layer "data".*{why}'):
        make(tmp_path, "", batch=size)


def test_other_errors_stay(tmp_path: Path) -> None:
    class Failing(Hook):
        def after_backward(self, solver: object) -> None:
            raise RuntimeError("of another kind")

    with pytest.raises(RuntimeError, match=r"^of another kind$"):
        make(tmp_path, hooks=[Failing()]).step(1)
    assert is_exhausted(MemoryError()) and is_exhausted(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_exhausted(ValueError("out of memory"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_leaves_the_earlier_snapshots(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", disk], capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        path = write_files(disk, f"{RULES['Adam']} snapshot: 2 max_iter: 100")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--cpu", "--resume", "--solver", str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        errors = [line for line in done.stderr.splitlines() if line.startswith("train_net: ")]
        assert done.returncode == 1 and len(errors) == 1 and "Traceback" not in done.stderr
        assert "No space left on device" in errors[0] and str(disk) in errors[0]
        solver = make(disk, RULES["Adam"])
        states = sorted(disk.glob("*.solverstate"))
        assert states and all(not flaw(each) for each in states) and newest_sound(solver.param) in map(str, states)
        assert not [each for each in disk.iterdir() if each.name.startswith(".")]
        solver.restore(newest_sound(solver.param))
    finally:
        subprocess.run(["umount", disk], check=True)
