"""Reading logs in the forms that Caffe's logger had over the years."""

import csv
import math
from pathlib import Path

import pytest
from log_text import LOG

from pycaffe_compat.commands.logs import read_log
from pycaffe_compat.commands.parse_log import parse_log
from pycaffe_compat.commands.plot_training_log import CHARTS, plot_training_log
from pycaffe_compat.errors import CaffeError, DataError, MissingFileError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "train.log"
    path.write_text(LOG)
    return path


def test_rows(log: Path) -> None:
    read = read_log(log)
    assert [(row["NumIters"], row["Seconds"], row["LearningRate"], row["loss"]) for row in read.train] == [
        (0, 2.000001, 0.01, 2.5),
        (100, 60.000001, 0.01, 0.4),  # as with Caffe's parser: the rate of this iteration is logged after it
        (200, 63.000001, 0.001, math.inf),
    ]
    assert [(row["NumIters"], row["Seconds"], row["LearningRate"], row["accuracy"]) for row in read.test] == [
        (0, 1.5, 0.01, 0.125),
        (200, 62, 0.001, 0.75),
    ]
    assert math.isnan(read.test[1]["loss"])
    assert [(row["NumIters"], row["LearningRate"], row["loss"]) for row in read.losses] == [
        (0, 0.01, 2.5),
        (100, 0.001, 0.5),
        (200, 0.001, 0.25),
    ]


def test_tables_are_those_that_caffes_parser_writes(log: Path, tmp_path: Path) -> None:
    assert parse_log(str(log), str(tmp_path)) == [f"{log}.train", f"{log}.test"]
    assert (tmp_path / "train.log.train").read_bytes() == (
        b"NumIters,Seconds,LearningRate,loss\r\n"
        b"0.0,2.000001,0.01,2.5\r\n100.0,60.000001,0.01,0.4\r\n200.0,63.000001,0.001,inf\r\n"
    )
    assert (tmp_path / "train.log.test").read_bytes() == (
        b"NumIters,Seconds,LearningRate,accuracy,loss\r\n0.0,1.5,0.01,0.125,2.31\r\n200.0,62.0,0.001,0.75,nan\r\n"
    )
    parse_log(str(log), str(tmp_path / "new" / "tables"), "\t")
    with open(tmp_path / "new" / "tables" / "train.log.test", newline="") as file:
        assert next(csv.reader(file, delimiter="\t"))[3] == "accuracy"


@pytest.mark.parametrize(
    ("encoding", "before"),
    [("utf-16", ""), ("utf-8", "2016-12-31T23:59:00Z "), ("utf-8", "web_1  |"), ("utf-8", "[0]")],
)
def test_logs_that_other_programs_wrote_down(log: Path, tmp_path: Path, encoding: str, before: str) -> None:
    collected = tmp_path / "collected.log"
    collected.write_text("".join(before + line for line in LOG.splitlines(keepends=True)), encoding=encoding)
    assert read_log(collected).losses == read_log(log).losses and len(read_log(collected).test) == 2


def test_a_log_of_the_first_caffes(tmp_path: Path) -> None:
    path = tmp_path / "old.log"
    path.write_text(
        "I0301 10:00:00.000000 77 solver.cpp:26] Solving LeNet\n"
        "I0301 10:00:01.000000 77 solver.cpp:44] Iteration 0, Testing net\n"
        "I0301 10:00:02.000000 77 solver.cpp:111] Test score #0: 0.125\n"
        "I0301 10:00:02.000000 77 solver.cpp:111] Test score #1: 2.5\n"
        "I0301 10:00:03.000000 77 solver.cpp:207] Iteration 100, lr = 0.01\n"
        "I0301 10:00:03.000000 77 solver.cpp:65] Iteration 100, loss = 0.25\n"
    )
    parse_log(str(path), str(tmp_path))
    assert (tmp_path / "old.log.train").read_text() == "NumIters,Seconds,LearningRate,loss\n100.0,3.0,0.01,0.25\n"
    table = (tmp_path / "old.log.test").read_text()
    assert table == "NumIters,Seconds,LearningRate,score #0,score #1\n0.0,2.0,0.01,0.125,2.5\n"


def test_several_test_nets_outputs_of_several_values_and_four_digit_years(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    lines = []
    for iteration in (0, 10):
        for net in (0, 1):
            lines += [f"solver.cpp:330] Iteration {iteration}, Testing net (#{net})"]
            lines += [f"solver.cpp:397]     Test net output #{i}: per_class = {net + i / 8}" for i in range(3)]
    path.write_text("".join(f"I20240229 10:00:{i:02}.5 7 {line}\n" for i, line in enumerate(lines)))
    assert read_log(path).test == [
        {
            "NumIters": iteration,
            "Seconds": seconds,
            "TestNet": net,
            "per_class": net,
            "per_class[1]": net + 0.125,
            "per_class[2]": net + 0.25,
            "LearningRate": pytest.approx(math.nan, nan_ok=True),
        }
        for iteration, net, seconds in ((0, 0, 1), (0, 1, 5), (10, 0, 9), (10, 1, 13))
    ]


def test_a_file_that_is_not_a_log(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    with pytest.raises(MissingFileError, match=r"log not found: .*x\.log"):
        read_log(path)
    path.write_bytes(b"\xff\x00 Iteration 5, loss = 2\nI9999 99:99:99.0 1 x] Iteration 3\n")
    with pytest.raises(DataError, match=r"is not the log of a training run"):
        read_log(path)
    path.write_text("I0102 10:00:00.5 7 x.cpp:1] Iteration 0, Testing net (#0)\n")
    with pytest.raises(DataError, match=r"no outputs of a train or test net"):
        parse_log(str(path), str(tmp_path))
    path.write_text(LOG)
    with pytest.raises(CaffeError, match=r"cannot write .*x\.log/x\.log\.train"):
        parse_log(str(path), str(path))
    with pytest.raises(DataError, match=r"one character"):
        parse_log(str(path), str(tmp_path), "::")


def drawn(picture: Path) -> str:
    """The words in an SVG picture, where matplotlib leaves them in comments."""
    return "|".join(line for line in picture.read_text().splitlines() if line.strip().startswith("<!--"))


@pytest.mark.parametrize("number", range(8))
def test_all_charts(number: int, log: Path, tmp_path: Path) -> None:
    picture = tmp_path / "chart.svg"
    other = tmp_path / "other.log"
    other.write_text(LOG)
    plot_training_log(number, str(picture), [str(log), str(other)])
    words = drawn(picture)
    chart = CHARTS[number]
    column = ("accuracy", "accuracy", "loss", "loss", "LearningRate", "LearningRate", "loss", "loss")[number]
    assert f"<!-- {chart.title} -->" in words
    assert f"<!-- {'Seconds' if number % 2 else 'NumIters'} -->" in words
    assert f"<!-- train.log {column} -->" in words
    assert f"<!-- other.log {column} -->" in words


def test_a_line_of_one_point_is_seen(tmp_path: Path) -> None:
    log, picture = tmp_path / "once.log", tmp_path / "chart.svg"
    log.write_text(LOG[: LOG.index("Iteration 200, Testing net")])
    plot_training_log(0, str(picture), [str(log)])
    assert 'xlink:href="#m' in picture.read_text().split('id="line2d_')[-1].split("legend")[0], "no marker"


def test_a_chart_of_a_named_output(log: Path, tmp_path: Path) -> None:
    plot_training_log(6, str(tmp_path / "a.svg"), [str(log)], output="loss")
    assert "<!-- train.log loss -->" in drawn(tmp_path / "a.svg")
    with pytest.raises(DataError, match=r'no test output "acuracy" \(did you mean accuracy\?\)'):
        plot_training_log(0, str(tmp_path / "b.png"), [str(log)], output="acuracy")
    with pytest.raises(CaffeError, match=r"b\.doc: the file name's ending must be one of"):
        plot_training_log(0, str(tmp_path / "b.doc"), [str(log)])
    log.write_text("\n".join(line for line in LOG.splitlines() if "Test net" not in line))
    with pytest.raises(DataError, match=r"nothing for the chart Test accuracy vs\. Iters"):
        plot_training_log(0, str(tmp_path / "b.png"), [str(log)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.svg", "train.log"]
