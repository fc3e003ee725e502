"""Runs an experiment's script inside this process: as users do, without the seconds that a new process takes."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import warm_start

EXPERIMENTS = str(Path(__file__).parents[2] / "experiments")
Experiment = Callable[..., tuple[int, str, str]]


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Experiment]:
    """``experiment(script, "--smoke")`` returns the exit status and what was written to either stream.

    The tools that the script starts are forks of the process that all tests share.
    """
    warm_start.run("-c", "")
    monkeypatch.setenv("PYTHONPATH", "")  # is put back, as what the script sets
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(script: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        monkeypatch.syspath_prepend(str(script.parent))
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(script), run_name="__main__")
        said = capsys.readouterr()
        if isinstance(done.value.code, str):
            return 1, said.out, said.err + done.value.code
        return done.value.code or 0, said.out, said.err

    yield run
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(EXPERIMENTS):
            del sys.modules[name]
