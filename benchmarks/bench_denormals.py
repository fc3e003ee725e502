"""Iterations a second from the weights of a snapshot, with denormal numbers and with 0 in their place, in turns.

    python benchmarks/bench_denormals.py SOLVER.prototxt SNAPSHOT.caffemodel

Beside them, the same net from its fillers. Prediction, before the first run: what a trained net loses is the denormal numbers
alone, so that all three but the one that keeps them run alike.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

import torch

from pycaffe_compat.solver import Solver
from pycaffe_compat.solver.denormals import VARIABLE
from pycaffe_compat.tables import format_table

SMALLEST = torch.finfo(torch.float32).tiny


def share(solver: Solver) -> float:
    """How many of the weights are denormal."""
    weights = torch.cat([each.tensor.detach().flatten() for each in solver.net.learnable])
    return float(((weights.view(torch.int32) << 1 != 0) & (weights.abs() < SMALLEST)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("solver", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--iterations", type=int, default=100, help="in each turn (default: 100)")
    parser.add_argument("--turns", type=int, default=3, help="(default: 3)")
    args = parser.parse_args()
    runs = {
        "from the fillers, kept": (Solver(args.solver), "1"),
        "from the snapshot, kept": (Solver(args.solver, weights=str(args.weights)), "1"),
        "from the snapshot, taken as 0": (Solver(args.solver, weights=str(args.weights)), "0"),
    }
    speeds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(args.turns + 1):
        for name, (solver, kept) in runs.items():
            os.environ[VARIABLE] = kept
            began = time.perf_counter()
            solver.step(args.iterations)
            if turn:  # the first warms up
                speeds[name].append(args.iterations / (time.perf_counter() - began))
    rows = [
        [name, f"{100 * share(solver):.1f} %", f"{statistics.median(speeds[name]):.1f}"]
        for name, (solver, _) in runs.items()
    ]
    print(format_table(["weights", "denormal at the end", "iterations/s"], rows))


if __name__ == "__main__":
    main()
