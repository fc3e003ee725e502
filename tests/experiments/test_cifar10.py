"""The experiment on CIFAR-10 at its smallest: every step by the project's own commands, killed once on the way."""

import csv
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import warm_start

from pycaffe_compat.data.cifar10 import Pictures, write_database
from pycaffe_compat.errors import DataError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "experiments/cifar10/run.py"
OPTIONS = ("--data", "data", "--work", "work", "--results", "results", "--docs", "docs")


@pytest.fixture
def report(monkeypatch):
    """The module that judges, as the script imports it."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import report

    yield report
    for name in ("report", "config", "table", "results_page", "results_table", "run_tools"):
        sys.modules.pop(name, None)


@pytest.fixture
def folder(tmp_path):
    """A folder with ``data/``: a few pictures of noise."""
    random = np.random.RandomState(0)
    for part, count in (("train", 60), ("test", 20)):
        images = random.randint(0, 256, (count, 3, 32, 32)).astype(np.uint8)
        (tmp_path / "data").mkdir(exist_ok=True)
        write_database(Pictures(images, np.arange(count) % 10), str(tmp_path / f"data/{part}_lmdb"))
    return tmp_path


def run(folder, *arguments):
    return warm_start.run(SCRIPT, *OPTIONS, *arguments, cwd=folder)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_killed_and_begun_again_it_has_every_row_once(folder, experiment, monkeypatch):
    first = warm_start.start(SCRIPT, *OPTIONS, "--smoke", cwd=folder, merged=True, session=True)
    deadline = time.monotonic() + 120
    while not (folder / "results/errors.csv").exists():
        assert first.returncode is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(first.pid, 9)
    first.wait()
    with open(folder / "results/errors.csv", "a") as file:
        file.write("small,1,basel")  # what a kill can leave

    monkeypatch.chdir(folder)
    status, *said = experiment(SCRIPT, *OPTIONS, "--smoke")
    assert status == 0, said
    found = rows(folder / "results/errors.csv")
    keys = [(row["seed"], row["variant"], row["data"], row["mode"]) for row in found]
    assert len(keys) == len(set(keys)) == 8 * 3
    assert {row["images"] for row in found} == {"20"}
    assert [(row["kind"], row["depth"]) for row in rows(folder / "results/reconstruction.csv")] == [
        (kind, depth) for kind in ("sae", "swwae") for depth in ("2", "3")
    ]
    page = (folder / "docs/results.md").read_text()
    assert "| SWWAE-layerwise | 1 |" in page and "Not finished" not in page
    assert (folder / "docs/figures/cifar10_quality.png").stat().st_size > 1000
    # The baseline and every variant are trained on the same batches for as long as each other.
    base = folder / "work/small_seed1"
    solvers = [path.read_text() for path in sorted(base.glob("*/step4_*/solver.prototxt"))]
    fields = [
        [line for line in text.splitlines() if line.startswith(("base_lr", "max_iter", "random_seed"))]
        for text in solvers
    ]
    assert len(solvers) == 7 and all(each == fields[0] for each in fields)

    again = run(folder, "--smoke", "--status")
    assert "left" not in again.stdout and "small, seed 1: done" in again.stdout
    other = run(folder)
    assert other.returncode == 1 and "of another configuration: stages, hidden" in other.stderr


def test_without_data_it_says_how_to_get_it(tmp_path):
    done = warm_start.run(SCRIPT, *OPTIONS, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("cifar10: no data/train_lmdb: python tools/get_cifar10.py")


def test_judgements_follow_the_interval_of_paired_differences(report):
    # Of Student's t with 4 degrees of freedom the quantile of 97.5 % is 2.776.
    mean, half = report.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3 and half == pytest.approx(2.776 * np.sqrt(2.5 / 5), rel=1e-3)
    assert report.judge([1.0, 2.0, 3.0, 4.0, 5.0], 1) == "holds"
    assert report.judge([1.0, 2.0, 3.0, 4.0, 5.0], -1) == "does not hold"
    assert report.judge([-1.0, 2.0, 0.5, -0.5, 1.0], 1) == "inconclusive"
    assert report.judge([4.0], 1) == "inconclusive"


def test_pairs_are_of_one_seed(report):
    errors = {
        ("small", seed, name, "test", "crop"): error
        for seed, name, error in ((1, "a", 10.0), (1, "b", 12.0), (2, "a", 30.0), (2, "b", 33.0), (3, "a", 50.0))
    }
    assert report.paired(errors, "small", ["b"], ["a"], "test", "crop") == [2.0, 3.0]


def test_a_table_of_other_columns_is_refused(report, tmp_path):
    from results_table import Table

    (tmp_path / "errors.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="the columns are not a, c"):
        Table(tmp_path / "errors.csv", {"a": int, "c": int}).rows()
    (tmp_path / "errors.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(DataError, match=r"errors\.csv:3: a row of another number of columns"):
        Table(tmp_path / "errors.csv", {"a": int, "b": int}).rows()
    (tmp_path / "errors.csv").write_text("a,b\n1,2x\n")
    with pytest.raises(DataError, match=r'errors\.csv:2: b is "2x", not a whole number'):
        Table(tmp_path / "errors.csv", {"a": int, "b": int}).rows()


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_torn_configuration_is_one_error(folder, text):
    (folder / "results").mkdir()
    (folder / "results/config.json").write_text(text)
    done = warm_start.run(SCRIPT, *OPTIONS, "--smoke", cwd=folder)
    assert done.returncode == 1 and "not the configuration of this experiment" in done.stderr.splitlines()[0]
    assert len(done.stderr.splitlines()) == 1
