"""A small classification net on real files: pictures in LMDBs, a prototxt, trained weights, solver files."""

import os
import subprocess
from pathlib import Path

import cv2
import numpy as np
import warm_start

from pycaffe_compat.data.imageset import convert_imageset
from pycaffe_compat.net import Net
from pycaffe_compat.swwae import vgg
from pycaffe_compat.swwae.blocks import lmdb_layers
from pycaffe_compat.swwae.prototxt import net_text

ROOT = Path(__file__).parents[2]
SIZE = 16
SOLVER = """
{kind} base_lr: 0.01 lr_policy: "fixed" max_iter: {iterations} snapshot: 2 display: 1 test_iter: 2 test_interval: {iterations}
test_initialization: false solver_mode: CPU random_seed: 1
"""


def draw_picture(label: int, number: int, size: int = SIZE) -> np.ndarray:
    """A picture with a soft disc of a colour that the label says, (size, size, 3) uint8."""
    random = np.random.RandomState(number)
    y, x = np.mgrid[:size, :size] / size
    centre = random.uniform(0.3, 0.7, 2)
    disc = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 0.05)
    picture = np.full((size, size, 3), 60.0) + random.uniform(0, 20, (size, size, 3))
    picture[..., label] += 150 * disc
    return picture.clip(0, 255).astype(np.uint8)


def make_pictures(folder: Path, count: int, size: int = SIZE) -> None:
    """Write pictures and their list, ``FOLDER.txt``."""
    folder.mkdir(parents=True)
    lines = []
    for number in range(count):
        cv2.imwrite(str(folder / f"{number:03}.png"), draw_picture(number % 3, number, size))
        lines.append(f"{number:03}.png {number % 3}\n")
    folder.with_suffix(".txt").write_text("".join(lines))


def make_small_run(folder: Path, iterations: int = 4) -> None:
    """Write ``net.prototxt``, ``net.caffemodel``, ``finetune.prototxt``, ``decode.prototxt`` and two LMDBs into a folder."""
    for name, count in (("train", 24), ("test", 12)):
        make_pictures(folder / name, count)
        convert_imageset(f"{folder / name}/", str(folder / f"{name}.txt"), str(folder / f"{name}_lmdb"))
    data = lmdb_layers("train_lmdb", "test_lmdb", (6, 6), mirror=True, mean_value=[80, 80, 80], scale=1 / 128)
    net = vgg(inputs=data, stages=((1, 4), (2, 6)), hidden=(8,), classes=3, filler={"type": "msra"}, name="small")
    (folder / "net.prototxt").write_text(net_text(net, "A small net."))
    (folder / "finetune.prototxt").write_text(SOLVER.format(kind="momentum: 0.9", iterations=iterations))
    (folder / "decode.prototxt").write_text(SOLVER.format(kind='type: "Adam"', iterations=iterations))
    here = os.getcwd()
    os.chdir(folder)
    try:
        built = Net("net.prototxt", "TRAIN")
        built.save("net.caffemodel")
        built.close()
    finally:
        os.chdir(here)


def run_tool(folder: Path, tool: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a script of ``tools/`` in a folder."""
    return warm_start.run(ROOT / "tools" / f"{tool}.py", *arguments, cwd=folder)
