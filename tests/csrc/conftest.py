"""Builds the device code as plain C++ once, and makes the helpers beside the tests importable."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "ops")]

from on_cpu import Library, compiler  # noqa: E402


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The kernels and launch.cu, run on the CPU."""
    if shutil.which(compiler()) is None:
        pytest.skip(f"no C++ compiler ({compiler()}) to build the device code with")
    return Library(tmp_path_factory.mktemp("on_cpu"))
