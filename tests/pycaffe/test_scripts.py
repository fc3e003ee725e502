"""Programs that say ``import caffe``, run as users run them: the scripts in tests/pycaffe/scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_caffes_own_tests_and_notebooks() -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-m", "pycaffe_compat", "-m", "unittest", "discover", "-p", "*s.py"],
        cwd=Path(__file__).parent / "scripts",
        env={**os.environ, "PYTHONPATH": path, "PYCAFFE_COMPAT_PYTHON_LAYERS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 33 tests" in done.stderr
