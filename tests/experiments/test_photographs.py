"""The experiment with photographs, at its smallest: every step by the project's own commands, then the page."""

import csv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe_compat.net import Net
from pycaffe_compat.swwae import vgg
from pycaffe_compat.swwae.blocks import lmdb_layers
from pycaffe_compat.swwae.prototxt import net_text

ROOT = Path(__file__).parents[2]


@pytest.fixture
def inputs(tmp_path):
    """An archive of twenty pictures, and a classification net with weights."""
    random = np.random.RandomState(0)
    with zipfile.ZipFile(tmp_path / "photographs.zip", "w") as archive:
        for number in range(20):
            picture = cv2.resize(random.randint(0, 255, (6, 8, 3)).astype(np.uint8), (200, 150))
            archive.writestr(f"all/{number:02}.JPEG", cv2.imencode(".jpg", picture)[1].tobytes())
    data = lmdb_layers("a", "b", (2, 2), crop_size=32, mean_value=[100, 110, 120], scale=1 / 64)
    param = vgg(inputs=data, stages=((1, 4),), hidden=(), classes=3, filler={"type": "msra"})
    (tmp_path / "net.prototxt").write_text(net_text(param, "A small net."))
    deploy = vgg(stages=((1, 4),), hidden=(), classes=3, filler={"type": "msra"})
    del deploy.layer[-3:]
    Net(deploy, "TEST").save(tmp_path / "net.caffemodel")
    return tmp_path


def test_from_an_archive_to_the_page(inputs, experiment, monkeypatch):
    monkeypatch.chdir(inputs)
    script = ROOT / "experiments/photographs/run.py"
    command = [script, "--photographs", "photographs.zip", "--encoder", "net.prototxt", "net.caffemodel"]
    where = ["--work", "work", "--results", "results.csv", "--docs", "docs", "--iterations", "2", "--jobs", "2"]
    status, said, errors = experiment(*command, *where)
    assert status == 0, said + errors
    assert "18 photographs to train on, 2 held out" in said
    with open(inputs / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["encoder"], row["title"], row["label"], row["pictures"]) for row in rows] == [
        (encoder, f"{kind}-first", "pool1", "2") for encoder in ("trained", "random") for kind in ("SAE", "SWWAE")
    ]
    held_out = sorted(path.name for path in (inputs / "work/held_out").iterdir())
    assert held_out == ["00.JPEG", "10.JPEG"] and not (inputs / "work/train/00.JPEG").exists()
    page = (inputs / "docs/results.md").read_text()
    assert f"{float(rows[1]['psnr_mean']):.2f} | {float(rows[1]['ssim_mean']):.3f}" in page
    for name in ("trained", "random", "quality"):
        assert cv2.imread(str(inputs / f"docs/figures/photographs_{name}.png")) is not None
    (inputs / "docs/results.md").write_text("# Mine\n\n" + page.partition("\n\n")[2] + "\nAfter.\n")
    status, _, errors = experiment(*command, *where, "--draw")
    assert status == 0, errors
    text = (inputs / "docs/results.md").read_text()
    assert text.startswith("# Mine\n") and text.endswith("After.\n") and text.count("## Photographs") == 1
