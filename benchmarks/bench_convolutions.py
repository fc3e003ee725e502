"""Times the convolutions of VGG-16 and its decoder alone, beside matrix products: how near the matrix rate a step can come.

    python benchmarks/bench_convolutions.py [--batch N] [--rounds N]

One thread, CPU time, the least of the rounds, in which all take turns. A product of a convolution's own size has as many rows as
the convolution has filters, as many columns as it has places (6,272 at most), and sums over as many numbers: what im2col
would hand to a matrix library. Writes the table to standard output.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from bench_pooling import cpu_name
from torch import Tensor

# Channels in and out, side, and how many the nets have. A decoder's convolution of stride 1 is one of the mirrored shape.
SHAPES = (
    (3, 64, 224, 1),
    (64, 64, 224, 2),
    (64, 128, 112, 1),
    (128, 128, 112, 2),
    (128, 64, 112, 1),
    (128, 256, 56, 1),
    (256, 256, 56, 4),
    (256, 128, 56, 1),
    (256, 512, 28, 1),
    (512, 512, 28, 4),
    (512, 256, 28, 1),
    (512, 512, 14, 6),
    (64, 3, 224, 1),
)
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
PASSES = {"forward": None, "data": (True, False, False), "weights": (False, True, True)}
COLUMNS = 6272
Key = tuple[object, ...]


def passes(
    inputs: int, outputs: int, side: int, batch: int, layout: torch.memory_format
) -> dict[str, Callable[[], object]]:
    """A convolution of 3 × 3 with bias: its forward pass, and both halves of its backward pass."""

    def random(*shape: int) -> Tensor:
        return torch.randn(shape).contiguous(memory_format=layout)

    x, weight, top = (
        random(batch, inputs, side, side),
        random(outputs, inputs, 3, 3),
        random(batch, outputs, side, side),
    )
    bias = torch.randn(outputs)
    backward = torch.ops.aten.convolution_backward
    made: dict[str, Callable[[], object]] = {}
    for name, wanted in PASSES.items():
        if wanted is None:
            made[name] = partial(torch.conv2d, x, weight, bias, 1, 1)
        else:
            made[name] = partial(
                backward, top, x, weight, [outputs], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, list(wanted)
            )
    return made


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    least: dict[Key, float] = {}

    def take(key: Key, run: Callable[[], object]) -> None:
        start = time.process_time()
        run()
        least[key] = min(least.get(key, float("inf")), time.process_time() - start)

    square = torch.randn(2048, 2048)
    for _ in range(args.rounds):
        for inputs, outputs, side, _ in SHAPES:
            take(("square",), partial(torch.mm, square, square))
            rows, columns = torch.randn(outputs, 9 * inputs), min(args.batch * side**2, COLUMNS)
            take((inputs, outputs, side), partial(torch.mm, rows, torch.randn(9 * inputs, columns)))
            for layout, kind in LAYOUTS.items():
                for name, run in passes(inputs, outputs, side, args.batch, kind).items():
                    take((inputs, outputs, side, layout, name), run)

    rate = 2 * 2048**3 / least["square",]
    print(f"{cpu_name()}, one thread, batch {args.batch}, PyTorch {torch.__version__}")
    print(f"A product of 2048² runs at {rate / 1e9:.0f} GFLOP/s.\n")
    heads = [f"{name}, {layout}" for layout in LAYOUTS for name in PASSES]
    print(f"| channels | side | how many | product of its size | {' | '.join(heads)} |")
    print("| --- " + "| ---: " * (3 + len(heads)) + "|")
    total = dict.fromkeys(("at the matrix rate", "as products of their sizes", *LAYOUTS), 0.0)
    for inputs, outputs, side, count in SHAPES:
        work = 18 * inputs * outputs
        own = work * min(args.batch * side**2, COLUMNS) / least[inputs, outputs, side]
        work *= args.batch * side**2
        done = len(PASSES) - (inputs == 3)  # nobody wants the gradient of the pictures
        total["at the matrix rate"] += count * done * work / rate
        total["as products of their sizes"] += count * done * work / own
        cells = []
        for layout in LAYOUTS:
            for name in PASSES:
                if inputs == 3 and name == "data":
                    cells.append("–")
                    continue
                seconds = least[inputs, outputs, side, layout, name]
                cells.append(f"{work / seconds / 1e9:.0f}")
                total[layout] += count * seconds
        print(f"| {inputs} → {outputs} | {side} | {count} | {own / 1e9:.0f} | {' | '.join(cells)} |")
    print("\n" + "; ".join(f"{name}: {1000 * seconds:,.0f} ms" for name, seconds in total.items()))


if __name__ == "__main__":
    main()
