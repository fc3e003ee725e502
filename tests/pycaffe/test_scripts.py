"""Programs that say ``import caffe``, run as users run them: the scripts in tests/pycaffe/scripts."""

from __future__ import annotations

from pathlib import Path

import warm_start


def test_caffes_own_tests_and_notebooks() -> None:
    done = warm_start.run(
        *("-m", "pycaffe_compat", "-m", "unittest", "discover", "-p", "*s.py"),
        cwd=Path(__file__).parent / "scripts",
        env={"PYCAFFE_COMPAT_PYTHON_LAYERS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 33 tests" in done.stderr
