"""Runs a command-line tool inside this process: as users do, without the seconds that a new process takes."""

from __future__ import annotations

import logging
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
Tool = Callable[..., tuple[int, str]]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Tool]:
    """``tool("train_net", "--solver", path)`` returns the exit code and what was written to both streams."""
    logger = logging.getLogger("pycaffe_compat")
    handlers, propagate, level = list(logger.handlers), logger.propagate, logger.level

    def run(name: str, *arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(TOOLS / f"{name}.py"), run_name="__main__")
        return int(done.value.code or 0), "".join(capsys.readouterr())

    yield run
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def checked(tool: Tool) -> Callable[..., str]:
    """``checked("train_net", …, ok=True)`` asserts that the tool succeeds (or fails) and returns what was written."""

    def run(name: str, *arguments: object, ok: bool = True) -> str:
        code, text = tool(name, *arguments)
        assert (code == 0) == ok, text
        return text

    return run
