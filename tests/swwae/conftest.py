"""A small run on real files, made once for all tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from swwae.small_run import make_small_run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    make_small_run(folder)
    return folder


@pytest.fixture
def small(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small net, its weights, its data and two solvers, which is also the current one."""
    shutil.copytree(prepared, tmp_path / "small")
    monkeypatch.chdir(tmp_path / "small")
    return tmp_path / "small"
