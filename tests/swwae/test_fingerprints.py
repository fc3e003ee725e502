"""The paper's nets at full size, as this package writes them, against what the authors' Caffe computed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pycaffe_compat.swwae.prototxt import format_readable
from pycaffe_compat.swwae.release import paper_tree

GOLDENS = Path(__file__).parents[1] / "goldens"
FINGERPRINTS = GOLDENS / "nets/paper_nets.json"


@pytest.mark.parametrize("name", json.loads(FINGERPRINTS.read_text()))
def test_every_blob_and_gradient_is_caffes(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(format_readable(paper_tree()[name]))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(GOLDENS / "netstat.py"), "--module", "pycaffe_compat"]
    done = subprocess.run(
        [*command, "--root", str(tmp_path), "--check", str(FINGERPRINTS)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert f"{name} ok" in done.stdout, done.stdout + done.stderr
