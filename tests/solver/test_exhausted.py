"""A training that the memory or the disk does not suffice for: one error, and the earlier snapshots are sound."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import warm_start
from small_solver import RULES, make, write_files

from pycaffe_compat import extension
from pycaffe_compat.errors import CaffeError, OutOfMemoryError
from pycaffe_compat.memory import is_exhausted
from pycaffe_compat.solver import Hook
from pycaffe_compat.solver.resume import flaw, newest_sound

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    """A limit of the system on this process, ``resource.RLIMIT_…``, while the block lasts."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_without_memory_no_snapshot_is_passed_over(tmp_path: Path) -> None:
    """A sound one that cannot be read now is not a damaged one: going on without it would lose it."""
    done = warm_start.run(Path(__file__).with_name("little_memory.py"), tmp_path, timeout=100)
    assert done.returncode == 0, done.stderr
    state, said = str(tmp_path / "small_iter_1.solverstate"), json.loads(done.stdout)
    assert said.pop("newest") == state
    assert said.pop("look") == f"there is not enough memory to read the snapshot {state}"
    starts = {"build": "building the nets: ", "restore": f"restoring {state}: ", "snapshot": "iteration 1, snapshot: "}
    assert said.keys() == starts.keys()
    for name, text in said.items():
        assert text.startswith(starts[name]) and "Reduce batch_size" in text, text
        assert state in text and "no sound snapshot" not in text, text
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("layout", "ending"), [("BINARYPROTO", ""), ("HDF5", ".h5")])
def test_a_snapshot_that_cannot_be_written_names_the_newest(layout: str, ending: str, tmp_path: Path) -> None:
    solver = make(tmp_path, f"{RULES['Adam']} snapshot_format: {layout}")
    solver.step(1)
    with limited(resource.RLIMIT_FSIZE, 4000), pytest.raises(CaffeError, match="There is no sound snapshot"):
        solver.snapshot()
    solver.snapshot()
    solver.step(1)
    newest = tmp_path / f"small_iter_1.solverstate{ending}"
    with limited(resource.RLIMIT_FSIZE, 4000), pytest.raises(CaffeError) as caught:
        solver.snapshot()
    said = str(caught.value)
    assert said.startswith(
        f"cannot write {tmp_path}/small_iter_2.caffemodel{ending}: File too large. The newest snapshot"
    )
    assert f"{newest}, is sound" in said and not flaw(newest)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_step_without_memory_says_what_to_reduce(tmp_path: Path) -> None:
    class Greedy(Hook):
        def after_backward(self, solver: object) -> None:
            if solver.iter == 3:  # type: ignore[attr-defined]
                torch.empty(1 << 50)

    solver = make(tmp_path, "snapshot: 2 iter_size: 3", hooks=[Greedy()])
    with pytest.raises(OutOfMemoryError) as caught:
        solver.step(9)
    said = str(caught.value)
    assert said.startswith("iteration 3: not enough memory on this machine or container (")
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
        done = warm_start.run(ROOT / "tools" / "train_net.py", "--cpu", "--resume", "--solver", path)
        errors = [line for line in done.stderr.splitlines() if line.startswith("train_net: ")]
        assert done.returncode == 1 and len(errors) == 1 and "Traceback" not in done.stderr
        assert "No space left on device" in errors[0] and str(disk) in errors[0]
        solver = make(disk, RULES["Adam"])
        assert f"The newest snapshot, {newest_sound(solver.param)}, is sound" in errors[0]
        states = sorted(disk.glob("*.solverstate"))
        assert states and all(not flaw(each) for each in states) and newest_sound(solver.param) in map(str, states)
        assert not [each for each in disk.iterdir() if each.name.startswith(".")]
        solver.restore(newest_sound(solver.param))
    finally:
        subprocess.run(["umount", disk], check=True)


WIDE = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
  dummy_data_param { shape { dim: BATCH dim: 3 dim: 64 dim: 64 } shape { dim: BATCH } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 64 kernel_size: 3 pad: 1 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }"""
IN_GROUP = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
from pycaffe_compat.solver import Solver, init_log
init_log(stream=sys.stdout)
Solver(sys.argv[2])
print("next")
Solver(sys.argv[3])"""
FOUND = re.compile(r"^\d+:memory:(/.*)$", re.MULTILINE)


@pytest.fixture
def little_group() -> Iterator[Path]:
    """A control group of version 1 with 600 MB, and one in it."""
    try:
        own = FOUND.search(Path("/proc/self/cgroup").read_text())
        group = Path("/sys/fs/cgroup/memory" + (own[1] if own else "")) / f"pycaffe_compat_{os.getpid()}"
        inner = group / "inner"
        inner.mkdir(parents=True)
        (group / "memory.limit_in_bytes").write_text(str(600 << 20))
    except OSError as error:
        pytest.skip(f"no control groups of version 1 can be made here: {error}")
    yield inner
    inner.rmdir()
    group.rmdir()


def test_a_pass_that_a_container_has_no_memory_for_is_told_before(little_group: Path, tmp_path: Path) -> None:
    """Once it is too late, the system kills the process, and nobody can say why."""
    paths = []
    for batch in (64, 600):  # 200 MB, 1.9 GB
        folder = tmp_path / str(batch)
        folder.mkdir()
        paths.append(write_files(folder))
        (folder / "net.prototxt").write_text(WIDE.replace("BATCH", str(batch)))
    done = warm_start.run("-c", IN_GROUP, little_group / "cgroup.procs", *paths, timeout=100)
    small, large = done.stdout.split("next\n")
    assert "without a word" not in small
    assert re.search(r"about 1\.\d+ GB of memory, of which [3-6]\d\d MB are left: the system may end", large), large
    assert "Reduce " in large and "iter_size" in large


GROWING = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
from pycaffe_compat.errors import OutOfMemoryError
from pycaffe_compat.solver import Solver
small, *large = sys.argv[2:]
solver = Solver(small)
solver.step(2)
solver.snapshot()
solver.step(2)
for path in large:
    try:
        Solver(path).step(2)
    except OutOfMemoryError as error:
        print(error)"""


@pytest.mark.skipif(extension.load() is not None, reason="the compiled library watches the limit")
def test_a_container_with_too_little_memory_ends_a_training_in_an_error(little_group: Path, tmp_path: Path) -> None:
    """The system would kill it. Earlier steps have memory kept that is marked free, used again, and given back."""
    (little_group.parent / "memory.limit_in_bytes").write_text(str(300 << 20))
    paths = []
    for batch in (40, 100, 120, 500):  # the first takes 125 MB, each of the others more than there is
        folder = tmp_path / str(batch)
        folder.mkdir()
        paths.append(write_files(folder, f'snapshot_prefix: "{tmp_path}/wide"'))
        (folder / "net.prototxt").write_text(WIDE.replace("BATCH", str(batch)))
    done = warm_start.run("-c", GROWING, little_group / "cgroup.procs", *paths, timeout=100)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert len(said) == 3
    for line in said:
        assert re.search(r"^iteration 0: .*\d+ MB are wanted for a tensor, and \d+ MB are left in /.* \(300 MB\)", line)
        assert "iter_size" in line and f"The newest snapshot, {tmp_path}/wide_iter_2.solverstate, is sound" in line
