"""Trainings that are killed, one or several processes, go on by themselves and end as if nothing had happened."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
from pathlib import Path

import pytest
import warm_start
from small_solver import RULES, write_files

from pycaffe_compat.solver.snapshot import open_state

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
KILLS = 10


def files(folder: Path, ending: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.endswith(ending)}


@pytest.mark.parametrize(("layout", "ending"), [("BINARYPROTO", ""), ("HDF5", ".h5")])
def test_kills_leave_no_trace(layout: str, ending: str, tmp_path: Path) -> None:
    options = f"{RULES['Adam']} snapshot_format: {layout} snapshot: 1 max_iter: 40 average_loss: 3 iter_size: 2"
    folders = [tmp_path / "through", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
        write_files(folder, options)
    for folder, kills in zip(folders, (0, KILLS), strict=True):
        done = warm_start.run(HERE / "killed_runs.py", folder / "solver.prototxt", "11", str(kills))
        assert done.returncode == 0, done.stderr
    assert int(done.stdout) == KILLS
    assert done.stderr.count("Restoring previous solver status") > KILLS // 3
    models = [files(tmp_path / name, f"_iter_40.caffemodel{ending}") for name in ("through", "killed")]
    assert len(models[0]) == 1 and models[0] == models[1]
    states = [(tmp_path / name / f"small_iter_40.solverstate{ending}") for name in ("through", "killed")]
    whole, resumed = (_state(path) for path in states)
    assert whole == resumed
    assert not [path for path in (tmp_path / "killed").iterdir() if path.name.startswith(".")]


def _state(path: Path) -> tuple[object, ...]:
    """What a state holds but for the path of its caffemodel."""
    with open_state(path) as state:
        history = [stored.read().tobytes() for stored in state.history]
        extra = {name: value for name, value in state.extra.items() if name != "model"}
        return state.iteration, state.current_step, history, extra


SOLVER = "type: 'Nesterov' momentum: 0.9 snapshot: 5 max_iter: 100 display: 1"
WORKER = [str(ROOT / "tools" / "train_net.py"), "--resume", "--cpu", "--solver"]


def kill_at(process: warm_start.Started, words: str, rank: int) -> str:
    """Kill a rank when ``words`` are logged for the first time; return all that is logged."""
    said, number = "", 0
    for line in process.stderr:
        if found := re.fullmatch(rf"rank {rank} is process (\d+)\n", line):
            number = int(found[1])
        if words in line and words not in said:
            os.kill(number, signal.SIGKILL)
        said += line
    return said


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The model of the uninterrupted run of two processes."""
    folder = tmp_path_factory.mktemp("through")
    for process in warm_start.start_ranks(*WORKER, write_files(folder, SOLVER)):
        said = process.communicate()[1]
        assert process.returncode == 0, said
    return files(folder, "_iter_100.caffemodel")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_stops_the_others_and_a_new_start_goes_on(
    rank: int, tmp_path: Path, through: dict[str, bytes]
) -> None:
    """Started without an agent that would end the others: they must notice by themselves."""
    command = [*WORKER, str(write_files(tmp_path, SOLVER))]
    processes = warm_start.start_ranks(*command)
    other = 1 - rank
    watchdog = threading.Timer(120, lambda: [each.kill() for each in processes])  # what hangs fails
    watchdog.start()
    for line in processes[0].stderr:
        if "Iteration 9," in line:
            break
    processes[rank].kill()
    said = processes[other].communicate(timeout=30)[1]
    processes[rank].communicate()
    watchdog.cancel()
    assert processes[other].returncode == 1
    message = (
        f"train_net: rank {rank} (process {processes[rank].pid} on {socket.gethostname()}) has ended, so rank {other}"
    )
    assert said.count(message) == 1 and "--resume" in said and "Traceback" not in said, said
    logs = [(process.communicate()[1], process.returncode) for process in warm_start.start_ranks(*command)]
    assert [status for _, status in logs] == [0, 0], logs
    assert "Restoring previous solver status" in logs[0][0]
    assert files(tmp_path, "_iter_100.caffemodel") == through


def test_the_elastic_restart_of_torchrun_goes_on(tmp_path: Path, through: dict[str, bytes]) -> None:
    """The restarted processes share the store of those that were killed."""
    options = ["--resume", "--cpu", "--solver", write_files(tmp_path, SOLVER)]
    process = warm_start.start(HERE / "elastic_run.py", *options)
    watchdog = threading.Timer(120, process.send_signal, [signal.SIGTERM])  # torchrun then ends its processes
    watchdog.start()
    said = kill_at(process, "Iteration 9,", 1)
    status = process.wait(60)
    watchdog.cancel()
    assert status == 0, said
    assert said.count("Restoring previous solver status") == 1, said
    assert said.count("has ended, so rank 0 stops too") <= 1, said  # torchrun may end rank 0 before it has noticed
    assert files(tmp_path, "_iter_100.caffemodel") == through


STUCK = """
import os, sys, time
from pycaffe_compat.solver import distributed, peers
peers.GRACE = 1
distributed.start(use_gpu=False)
time.sleep(1000 if distributed.rank() == 0 else 1)
os._exit(9)
"""


def test_a_process_that_does_not_notice_is_ended(tmp_path: Path) -> None:
    """As one that waits for the kernels of a GPU: here it sleeps."""
    (tmp_path / "stuck.py").write_text(STUCK)
    processes = warm_start.start_ranks(tmp_path / "stuck.py")
    said = processes[0].communicate(timeout=60)[1]
    assert said.count("rank 1 (process ") == 1 and "has ended, so rank 0 stops too" in said, said
    assert [each.wait() for each in processes] == [1, 9]
