"""Times what bench_pooling.py does not: calls on tensors so small that the call is all, and windows of other nets.

    python benchmarks/bench_windows.py [--rounds N]

On one thread of the CPU, tensors in the caches. Ours and PyTorch's take turns; medians. Writes ``windows.md``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bench_pooling import LAYOUTS, Timer, cpu_name, gradient
from torch import Tensor

from pycaffe_compat import ops

WINDOWS = (  # where from, mode, batch, channels, side, kernel, stride, pad
    ("GoogLeNet inception", "MAX", 8, 192, 28, 3, 1, 1),
    ("GoogLeNet last", "AVE", 16, 1024, 7, 7, 1, 0),
    ("GoogLeNet loss1", "AVE", 8, 512, 14, 5, 3, 0),
    ("ResNet first", "MAX", 4, 64, 112, 3, 2, 0),
    ("CIFAR-10 full", "MAX", 32, 32, 32, 3, 2, 0),
    ("CIFAR-10 full", "AVE", 32, 32, 16, 3, 2, 0),
    ("LeNet first", "MAX", 64, 20, 24, 2, 2, 0),
    ("NIN last", "AVE", 32, 100, 8, 8, 1, 0),
)


def ours(x: Tensor, mode: str, kernel: int, stride: int, pad: int) -> Tensor:
    return ops.max_pool_switch(x, kernel, stride, pad)[0] if mode == "MAX" else ops.pool_average(x, kernel, stride, pad)


def theirs(x: Tensor, mode: str, kernel: int, stride: int, pad: int) -> Tensor:
    if mode == "MAX":
        return F.max_pool2d(x, kernel, stride, pad, ceil_mode=True, return_indices=True)[0]
    return F.avg_pool2d(x, kernel, stride, pad, ceil_mode=True)


def calls(timer: Timer) -> list[str]:
    """ReLU and pooling of 4x8x8 numbers: the ways to call them."""
    x = torch.randn(1, 4, 8, 8, requires_grad=True)
    window = ((2, 2), (2, 2), (0, 0))
    ways: dict[str, Callable[[], Tensor]] = {
        "`ops.max_pool_switch`": lambda: ops.max_pool_switch(x, 2, 2, relu=True)[0],
        "`torch.ops.pycaffe_compat`": lambda: torch.ops.pycaffe_compat.max_pool_switch(x, *window, (4, 4), True)[0],
        "PyTorch's ReLU and pooling": lambda: F.max_pool2d(F.relu(x), 2, 2),
    }

    def both(way: Callable[[], Tensor]) -> Callable[[int], Any]:
        return lambda _: torch.autograd.grad(way().sum(), x)

    forward = timer({name: (lambda _, way=way: way()) for name, way in ways.items()}, 200)
    whole = timer({name: both(way) for name, way in ways.items()}, 200)
    return [
        f"| {name} | {statistics.median(forward[name]) * 1e3:.0f} | {statistics.median(whole[name]) * 1e3:.0f} |"
        for name in ways
    ]


def windows(timer: Timer) -> list[str]:
    lines = []
    for name, mode, batch, channels, side, *window in WINDOWS:
        for layout, form in LAYOUTS.items():
            x = torch.randn(batch, channels, side, side).contiguous(memory_format=form).requires_grad_()
            mine, other = ours(x, mode, *window), theirs(x, mode, *window)
            dy = torch.randn(mine.shape).contiguous(memory_format=form)
            row = [name, f"{mode} {window[0]}x{window[0]}/{window[1]} of {side}x{side}", layout]
            for pair in (
                {
                    "ours": lambda _, x=x, mode=mode, w=window: ours(x.detach(), mode, *w),
                    "torch": lambda _, x=x, mode=mode, w=window: theirs(x.detach(), mode, *w),
                },
                {
                    "ours": lambda _, y=mine, dy=dy, x=x: gradient(y, dy, x),
                    "torch": lambda _, y=other, dy=dy, x=x: gradient(y, dy, x),
                },
            ):
                times = {who: statistics.median(taken) for who, taken in timer(pair, 4).items()}
                row += [f"{t / x.numel() * 1e6:.2f}" for t in times.values()] + [
                    f"{times['torch'] / times['ours']:.1f}"
                ]
            lines.append("| " + " | ".join(row) + " |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="turns that each takes (default 10)")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    timer = Timer(torch.device("cpu"), arguments.rounds, 5)
    text = [
        "# Small calls and other windows on the CPU",
        "",
        f"`python benchmarks/bench_windows.py`: {cpu_name()}, 1 thread, PyTorch {torch.__version__}, float32, medians.",
        "",
        "| ReLU and 2x2/2 pooling of 4x8x8 | forward, µs | forward and backward, µs |",
        "| --- | ---: | ---: |",
        *calls(timer),
        "",
        "Nanoseconds a place of x, and how many times PyTorch's speed:",
        "",
        "| net | window | layout | forward | PyTorch | × | backward | PyTorch | × |",
        "| --- | --- | --- | " + "---: | " * 6,
        *windows(timer),
        "",
    ]
    (Path(__file__).parent / "windows.md").write_text("\n".join(text), encoding="utf-8")


if __name__ == "__main__":
    main()
