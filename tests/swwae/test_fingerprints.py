"""The paper's nets at full size, as this package writes them, against what the authors' Caffe computed."""

import json
from pathlib import Path
from typing import Any

import pytest
import warm_start

from pycaffe_compat.swwae.prototxt import format_readable
from pycaffe_compat.swwae.release import paper_tree

GOLDENS = Path(__file__).parents[1] / "goldens"
FINGERPRINTS = GOLDENS / "nets/paper_nets.json"


@pytest.fixture(scope="module")
def nets() -> dict[str, Any]:
    """The paper's nets, by path."""
    return paper_tree()


@pytest.mark.parametrize("name", json.loads(FINGERPRINTS.read_text()))
def test_every_blob_and_gradient_is_caffes(name, nets, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(format_readable(nets[name]))
    options = ["--module", "pycaffe_compat", "--root", tmp_path, "--check", FINGERPRINTS]
    done = warm_start.run(GOLDENS / "netstat.py", *options)
    assert f"{name} ok" in done.stdout, done.stdout + done.stderr
