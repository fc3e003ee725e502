"""An installation without the compiled library: plain PyTorch serves, with derivatives in Python."""

import subprocess
import sys
from pathlib import Path

import pytest

OPERATORS = Path(__file__).with_name("test_operators.py")
RUN = """
import sys
sys.modules["pycaffe_compat._C"] = None
from pycaffe_compat import ops
assert ops.backend_info()["cpu"]["backend"] == "torch"
assert ops.backend_info()["cpu"]["reason"].startswith("extension: not built")
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def run(*arguments):
    done = subprocess.run([sys.executable, "-c", RUN, *arguments], capture_output=True, text=True)
    if done.returncode:
        pytest.fail(done.stdout[-3000:] + done.stderr[-3000:])
    return done.stdout


def test_every_operator_is_as_with_it():
    """All but the transforms of torch.func, which need compiled derivatives, errors of a trace, which comes before them, and
    tight windows, which are no special case of it."""
    chosen = "not under_torch_func and not errors_while_compiling and not tight"
    out = run(str(OPERATORS), "-q", "-p", "no:cacheprovider", "-k", chosen)
    assert "skipped" not in out
