"""Times training steps of small nets with and without memory that is recycled.

    python benchmarks/bench_recycling.py [--rounds N] [--threads N] [NET ...]

The nets are those of ``bench_layout.py``. Each setting has a process of its own, as a user's would be; they take turns. The
setting without is ``PYCAFFE_COMPAT_RECYCLE=0``. Writes a table of ``huge_pages.md`` to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench_layout import NETS, write
from bench_pooling import cpu_name

from pycaffe_compat.solver import Solver

WARM_UP = 3


def serve(net: str, threads: int) -> None:
    """Train the net for a turn at each line of standard input, and print what a step of it took."""
    torch.set_num_threads(threads)
    make, image, label, batches, steps = NETS[net]
    with tempfile.TemporaryDirectory() as folder:
        solver = Solver(write(Path(folder), make(), image, label, batches[0]))
        for _ in range(WARM_UP):
            solver.step(steps)
        print("ready", flush=True)
        for _ in sys.stdin:
            before, cpu = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
            solver.step(steps)
            cpu = time.process_time() - cpu
            after = resource.getrusage(resource.RUSAGE_SELF)
            faults = (after.ru_minflt - before.ru_minflt) / steps
            print(json.dumps([1e3 * cpu / steps, faults, after.ru_maxrss * 1024 / 1e6]), flush=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", help=f"which nets (default: all of {', '.join(NETS)})")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each setting (default 9)")
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    parser.add_argument("--serve", metavar="NET", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.threads)
        return
    print(f"{cpu_name()}, threads: {args.threads}, PyTorch {torch.__version__}\n")
    print(
        "| net | batch | not recycling, ms | faults | peak MB | recycling, ms | faults | peak MB | medians, not / recycling |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in args.nets or NETS:
        command = [sys.executable, __file__, "--serve", name, "--threads", str(args.threads)]
        players = [
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYCAFFE_COMPAT_RECYCLE": switch},
            )
            for switch in ("0", "1")
        ]
        found: list[list[list[float]]] = [[], []]
        for player in players:
            assert player.stdout is not None
            player.stdout.readline()
        for _ in range(args.rounds):
            for player, rows in zip(players, found, strict=True):
                assert player.stdin is not None and player.stdout is not None
                print(file=player.stdin, flush=True)
                rows.append(json.loads(player.stdout.readline()))
        for player in players:
            player.communicate()
        cells, middles = [], []
        for rows in found:
            cpu, faults, peaks = zip(*rows, strict=True)
            cells.append(f"{min(cpu):.1f} | {statistics.median(faults):,.0f} | {max(peaks):,.0f}")
            middles.append(statistics.median(cpu))
        print(f"| {name} | {NETS[name][3][0]} | {' | '.join(cells)} | {middles[0] / middles[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
