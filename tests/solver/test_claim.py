"""Two trainings with one snapshot prefix: the second is refused, whatever becomes of the first."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
from small_solver import make

from pycaffe_compat.errors import SolverError
from pycaffe_compat.solver import Hook, claim


class Begun(Hook):
    """Says that the training runs, and keeps it from ending."""

    def __init__(self, pipe: int, forks: bool) -> None:
        self._pipe, self._forks = pipe, forks

    def before_training(self, solver: object) -> None:
        if self._forks and not os.fork():
            signal.pause()  # as a worker that outlives the training
        os.write(self._pipe, f"{os.getpid()} ".encode())
        signal.pause()


def train_in_fork(folder: Path, forks: bool = False) -> int:
    """A training in a process of its own, which has begun when this returns."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        try:
            make(folder, hooks=[Begun(theirs, forks)]).solve()
        finally:
            os._exit(1)
    os.close(theirs)
    assert os.read(ours, 20)
    os.close(ours)
    return child


def test_a_second_training_is_refused_and_trains_nothing(tmp_path: Path) -> None:
    child = train_in_fork(tmp_path)
    try:
        second = make(tmp_path)
        with pytest.raises(SolverError) as caught:
            second.solve()
        assert str(caught.value).startswith(
            f"snapshot_prefix: {tmp_path}/small: another training writes its snapshots there (process {child} on "
        )
        assert second.iter == 0 and not list(tmp_path.glob("*.caffemodel"))
        make(tmp_path, f'snapshot_prefix: "{tmp_path}/other"').solve()
        make(tmp_path, "snapshot_after_train: false max_iter: 1").solve()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    second.solve()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_snapshot_beside_a_training_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    child = train_in_fork(tmp_path)
    try:
        other = make(tmp_path, "snapshot: 1")
        with caplog.at_level("WARNING", "pycaffe_compat"):
            other.step(1)
        assert f"there, too (process {child} on " in caplog.text
        assert claim.holder(other.param.snapshot_prefix)  # looking has not ended it
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    caplog.clear()
    other.step(1)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_fork_that_outlives_a_killed_training_holds_nothing(tmp_path: Path) -> None:
    child = train_in_fork(tmp_path, forks=True)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        make(tmp_path, "max_iter: 1").solve()
    finally:
        os.killpg(child, signal.SIGKILL)


def test_where_nothing_can_be_locked_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".small.training").mkdir()
    with caplog.at_level("INFO", "pycaffe_compat"):
        make(tmp_path, "max_iter: 1").solve()
    assert "would go unnoticed: cannot lock " in caplog.text and (tmp_path / "small_iter_1.solverstate").exists()


def test_one_process_trains_a_prefix_once_at_a_time(tmp_path: Path) -> None:
    class Nested(Hook):
        def after_update(self, solver: object) -> None:
            if solver.iter == 1:  # type: ignore[attr-defined]
                with pytest.raises(SolverError, match=r"there \(this process\)"):
                    make(tmp_path).solve()

    make(tmp_path, hooks=[Nested()]).solve()
    make(tmp_path, "max_iter: 1").solve()


def test_a_disk_that_is_full_does_not_keep_a_training_from_its_prefix(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with claim.claimed(f"{tmp_path}/small"):
            assert claim.holds(f"{tmp_path}/small")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
