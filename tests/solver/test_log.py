"""The log where it cannot be written."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest

from pycaffe_compat.solver.log import LogFile, init_log, log, log_to, logger

FULL = "/dev/full"
SAID = f"cannot write the log {FULL}: No space left on device; its lines are lost\n"

pytestmark = pytest.mark.skipif(not Path(FULL).exists(), reason="needs the device that is always full")


def test_a_full_disk_loses_lines_and_says_so_once(capsys: pytest.CaptureFixture[str]) -> None:
    full = io.TextIOWrapper(io.FileIO(FULL, "w"), write_through=True)
    with log_to(full):
        log("solver.cpp:218", "Iteration %d", 1)
        log("solver.cpp:218", "Iteration %d", 2)
    assert capsys.readouterr().err == SAID


def test_the_log_goes_on_beside_a_file_that_is_full(capsys: pytest.CaptureFixture[str]) -> None:
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        init_log()
        logger.addHandler(LogFile(FULL))
        log("solver.cpp:218", "Iteration %d", 1)
        log("solver.cpp:218", "Iteration %d", 2)
    finally:
        logger.handlers[:], level, logger.propagate = before
        logger.setLevel(level)
    shown = capsys.readouterr().err
    assert shown.count(SAID) == 1 and "Iteration 1\n" in shown and "Iteration 2\n" in shown


def test_another_error_of_a_line_is_not_taken_for_a_full_disk(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(logging.getLogger("pycaffe_compat"), "propagate", False)  # to pytest's handler, which raises
    with open(tmp_path / "log", "w") as file, log_to(file):
        log("solver.cpp:218", "Iteration %d", "not a number")
    assert "TypeError" in capsys.readouterr().err
