"""SIGINT and SIGHUP sent to a real training process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import warm_start
from small_solver import make, write_files

from pycaffe_compat.errors import SolverError
from pycaffe_compat.solver import Hook, Solver
from pycaffe_compat.solver.signals import Signals

ROOT = Path(__file__).parents[2]


def start(folder: Path, options: str, *arguments: str) -> warm_start.Started:
    return warm_start.start(ROOT / "tools" / "train_net.py", "--solver", write_files(folder, options), *arguments)


def wait_for(process: warm_start.Started, words: str) -> str:
    seen = ""
    for line in process.stderr:
        seen += line
        if words in line:
            return line
    raise AssertionError(f"the process ended without saying {words!r}:\n{seen}")


ENDLESS = "max_iter: 100000000 display: 1"


def test_hangup_saves_and_goes_on_and_interrupt_saves_and_stops(tmp_path: Path) -> None:
    process = start(tmp_path, ENDLESS)
    wait_for(process, "Iteration 1,")
    process.send_signal(signal.SIGHUP)
    first = wait_for(process, "Snapshotting solver state").split()[-1]
    wait_for(process, "lr =")
    process.send_signal(signal.SIGINT)
    last = wait_for(process, "Snapshotting solver state").split()[-1]
    wait_for(process, "Optimization stopped early.")
    assert process.wait(20) == 0
    assert Path(first).exists() and Path(last).exists() and first != last


def test_interrupt_during_a_test_stops_it(tmp_path: Path) -> None:
    process = start(tmp_path, f"{ENDLESS} test_interval: 1 test_iter: 100000000")
    wait_for(process, "Testing net")
    process.send_signal(signal.SIGINT)
    wait_for(process, "Test interrupted.")
    wait_for(process, "small_iter_0.solverstate")
    assert process.wait(20) == 0


def test_other_effects(tmp_path: Path) -> None:
    process = start(tmp_path, ENDLESS, "--sigint_effect", "snapshot", "--sighup_effect", "none")
    wait_for(process, "Iteration 1,")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGINT)
    wait_for(process, "Snapshotting solver state")
    wait_for(process, "lr =")
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert len(list(tmp_path.glob("*.solverstate"))) == 1


def test_second_interrupt_is_pythons_own() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_handlers_are_put_back_and_other_threads_left_alone(tmp_path: Path) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGHUP)]
    make(tmp_path, "max_iter: 1").solve()
    solver = make(tmp_path, "max_iter: 2")
    thread = threading.Thread(target=solver.solve)
    thread.start()
    thread.join()
    assert solver.iter == 2
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGHUP)] == before


@pytest.mark.parametrize("make_signals", [lambda: Signals("halt"), lambda: Signals("stop", "Stop")])
def test_unknown_effect(make_signals: Callable[[], Signals]) -> None:
    with pytest.raises(SolverError, match="valid: stop, snapshot, none"):
        make_signals()


def test_a_stop_comes_before_a_snapshot() -> None:
    with Signals() as signals:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGINT)
        assert signals.stopped_by == signal.SIGINT
        assert [signals.take() for _ in range(3)] == ["stop", "snapshot", None]


def test_sigterm_is_left_alone_unless_asked_for(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) == before
    with Signals(sigterm="stop") as signals:
        signal.raise_signal(signal.SIGTERM)
        assert (signals.take(), signals.stopped_by) == ("stop", signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_request_is_met_once(tmp_path: Path) -> None:
    class Ask(Hook):
        def before_iteration(self, solver: Solver) -> None:
            if solver.iter == 2:
                signal.raise_signal(signal.SIGHUP)

    make(tmp_path, "max_iter: 6 snapshot_after_train: false", hooks=[Ask()]).solve()
    assert [path.name for path in tmp_path.glob("*.solverstate")] == ["small_iter_3.solverstate"]
