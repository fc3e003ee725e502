"""Reads the logs of ``caffe train``, Caffe's and this package's: iterations, rates, losses and outputs of the nets."""

from __future__ import annotations

import datetime
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..errors import DataError, require_file
from ..files import encoding_of

Row = dict[str, float]
ITERS, SECONDS, RATE, TEST_NET = "NumIters", "Seconds", "LearningRate", "TestNet"

NUMBER = r"([-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|nan|inf))"
STAMP = re.compile(r"(?:^|[\s|\]])[IWEF](\d{4})?(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{1,6})\s")
ITERATION = re.compile(r"\bIteration (\d+)")
LEARNING_RATE = re.compile(rf"\blr = {NUMBER}")
LOSS = re.compile(rf"\bIteration \d+\b.*, loss = {NUMBER}")
TESTING = re.compile(r"Testing net \(#(\d+)\)")
OUTPUT = re.compile(rf"\b(Train|Test) net output #(\d+): (\S.*?) = {NUMBER}")
SCORE = re.compile(rf"\bTest (score #(\d+)): {NUMBER}")  # of the Caffe before July 2014


@dataclass
class TrainingLog:
    """The content of a log. A row is a dict: ``NumIters``, ``Seconds`` since the start, ``LearningRate``, outputs by name.

    Attributes:
        train: one row for each display of the train net's outputs.
        test: one row for each test of each test net, with its number as ``TestNet`` if there are several.
        losses: one row for each displayed iteration, with the rate and the ``loss`` averaged over ``average_loss``.
    """

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    losses: list[Row] = field(default_factory=list)


def read_log(path: str | os.PathLike[str]) -> TrainingLog:
    """Read a training log.

    As in Caffe's ``parse_log``, a row has the last learning rate logged before it (rows before the first rate have the
    first), and seconds count from the line ``Solving …``.

    Raises:
        MissingFileError: the file is missing.
        DataError: the file has no iterations, so it is not the log of a training run.
    """
    file = require_file(path, "log")
    log = TrainingLog()
    iteration: int | None = None
    start: datetime.datetime | None = None
    rate, net = math.nan, 0
    for now, line in _lines(file):
        if start is None or ("Solving " in line and iteration is None):
            start = now
        if match := ITERATION.search(line):
            iteration = int(match[1])
        if iteration is None:
            continue
        head = {ITERS: float(iteration), SECONDS: (now - start).total_seconds()}
        if match := LEARNING_RATE.search(line):
            rate = float(match[1])
            if log.losses and log.losses[-1][ITERS] == iteration:
                log.losses[-1][RATE] = rate
        if match := LOSS.search(line):
            log.losses.append({**head, RATE: rate, "loss": float(match[1])})
        if match := TESTING.search(line):
            net = int(match[1])
        if match := SCORE.search(line):
            if match[2] == "0" or not log.test:
                log.test.append({**head, RATE: rate, TEST_NET: float(net)})
            log.test[-1][match[1]] = float(match[3])
        if match := OUTPUT.search(line):
            rows = log.train if match[1] == "Train" else log.test
            if match[2] == "0" or not rows:
                rows.append({**head, RATE: rate, **({TEST_NET: float(net)} if rows is log.test else {})})
            rows[-1][_free(match[3], rows[-1])] = float(match[4])
    if iteration is None:
        raise DataError(f'{file} is not the log of a training run: it has no line with "Iteration N" in Caffe\'s form')
    _finish(log)
    return log


def _lines(file: str) -> Iterator[tuple[datetime.datetime, str]]:
    """Yield the lines that Caffe's logger wrote, with their time. Most lack a year; they get that of the file.

    Something else may stand before them: programs that collect logs add a time of their own.
    """
    year = time.localtime(os.path.getmtime(file)).tm_year
    last_month = 0
    with open(file, "rb") as head:
        encoding = encoding_of(head.read(2))
    with open(file, encoding=encoding, errors="replace") as lines:
        for line in lines:
            match = STAMP.search(line)
            if match is None:
                continue
            month, day, hour, minute, second = (int(part) for part in match.groups()[1:6])
            if month < last_month:
                year += 1
            last_month = month
            try:  # not datetime(year, month, day): 29 February may not exist in the year of the file
                micro = int(match[7].ljust(6, "0"))
                first = datetime.datetime(int(match[1] or year), month, 1, hour, minute, second, micro)
            except ValueError:
                continue
            yield first + datetime.timedelta(days=day - 1), line


def _free(name: str, row: Row) -> str:
    """Return the column of an output: its name, with a number for the second and later values of a blob."""
    column, number = name, 0
    while column in row:
        number += 1
        column = f"{name}[{number}]"
    return column


def _finish(log: TrainingLog) -> None:
    rates = [row[RATE] for row in log.losses if not math.isnan(row[RATE])]
    for row in (*log.train, *log.test, *log.losses):
        if math.isnan(row[RATE]) and rates:
            row[RATE] = rates[0]
    if not any(row[TEST_NET] for row in log.test):
        for row in log.test:
            del row[TEST_NET]
