"""Trainings that are killed at random moments and go on with ``--resume``, until one ends: ``killed_runs.py SOLVER SEED KILLS``.

A run is a fork of this process, which has imported the package already. It is killed a random time, up to 10 ms, after a
random record of its log, whatever the load of the machine: while the net is built, while a snapshot is looked for, while one
is written.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from pycaffe_compat.commands import train_net

RECORDS, SECONDS = 20, 0.01


def start(arguments: list[str]) -> tuple[int, TextIO]:
    """Train in a fork; return its number and its log."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(theirs, 2)
        status = 1
        try:
            status = train_net.main(arguments)
        finally:
            os._exit(status)
    os.close(theirs)
    return child, open(ours)


def first_records(log: TextIO, number: int) -> Iterator[str]:
    """The lines of a log up to its record ``number``; a record such as the solver's fields has several lines."""
    for line in log:
        number -= re.match(r"[IWE]\d{4} ", line) is not None
        yield line
        if not number:
            return


def run(solver: str, seed: int, kills: int) -> int:
    """Kill ``kills`` runs, then let one end; return how many had not ended by themselves."""
    draw, arguments, killed = random.Random(seed), ["--solver", solver, "--resume"], 0
    for _ in range(kills):
        child, said = start(arguments)
        with said:
            sys.stderr.writelines(first_records(said, draw.randint(1, RECORDS)))
            time.sleep(SECONDS * draw.random())
            os.kill(child, signal.SIGKILL)
            sys.stderr.write(said.read())
        killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    child, said = start(arguments)
    with said:
        sys.stderr.write(said.read())
    if os.waitpid(child, 0)[1]:
        sys.exit("the last run failed")
    return killed


if __name__ == "__main__":
    print(run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
