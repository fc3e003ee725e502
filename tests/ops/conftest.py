"""Makes the reference beside the tests importable, and runs a test on every backend that this machine has."""

import sys
from pathlib import Path

import pytest

from pycaffe_compat.ops import backends

sys.path.insert(0, str(Path(__file__).parent))

CPU_BACKENDS = [name for name in backends.PREFERENCE["cpu"] if backends.unavailable(name, "cpu") is None]


@pytest.fixture(params=CPU_BACKENDS)
def backend(request):
    """The name of a backend that serves the CPU; operators use it while the test runs."""
    with backends.use_backend(request.param):
        yield request.param
