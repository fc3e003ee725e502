"""Times the CPU's paths through a tensor against each other: what the rule in ``csrc/cpu/dispatch.cpp`` follows from.

    python benchmarks/bench_dispatch.py [--rounds N] [--types float32,bfloat16] [--layouts NCHW,NHWC]

One thread; the paths take turns; minima. ``rule`` is the path that the rule takes; ``gather`` lays planes of NCHW side by side
as channels, which channels_last are, and gathers; ``windows`` goes window by window. Writes ``dispatch.md``.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from bench_pooling import LAYOUTS, TYPES, cpu_name
from torch import Tensor

from pycaffe_compat import ops

PATHS = {  # by layout
    "NCHW": {"rule": -1, "gather": 2, "windows": 3},
    "NHWC": {"rule": -1, "gather": 0, "windows": 3},
}
CHANNELS = {"NCHW": (32,), "NHWC": (32, 256)}  # in NCHW only the number of planes matters
WINDOWS = ((2, 2, 0), (3, 2, 0), (3, 1, 1))  # kernel, stride, pad
SIDES = {2: (8, 14, 24, 28, 56, 224), 3: (13, 27, 55, 112)}
PLACES = 1 << 19  # of x: in the caches; at the largest side 16 times as many too


def force_path() -> Callable[[int], None]:
    """The function of the extension that forces a path; -1 ends that."""
    spec = importlib.util.find_spec("pycaffe_compat._C")
    if spec is None or spec.origin is None:
        raise SystemExit("pycaffe_compat was built without its extension: there are no paths to time")
    return ctypes.CDLL(spec.origin).switch_pool_force_path


def operators(x: Tensor, kernel: int, stride: int, pad: int) -> dict[str, Callable[[], Tensor]]:
    """What is timed, by name."""
    window, size = (kernel, stride, pad), list(x.shape[2:])
    y, s = ops.max_pool_switch(x, *window, relu=True)
    run: dict[str, Callable[[], Tensor]] = {
        "max_pool_switch": lambda: ops.max_pool_switch(x, *window, relu=True)[0],
        "unpool_switch": lambda: ops.unpool_switch(y, s, *window, output_size=size),
        "unpool_switch, gate": lambda: ops.unpool_switch(y, s, *window, output_size=size, relu=True),
        "pool_switch": lambda: ops.pool_switch(x, s, *window),
        "pool_average": lambda: ops.pool_average(x, *window),
        "unpool_average": lambda: ops.unpool_average(y, *window, output_size=size),
    }
    if kernel > stride:
        run["normalized"] = lambda: ops.unpool_switch_normalized(y, s, *window, output_size=size)
        z = run["normalized"]().requires_grad_(False)
        v = y.clone().requires_grad_()
        normalized = ops.unpool_switch_normalized(v, s, *window, output_size=size)
        run["its backward"] = lambda: torch.autograd.grad(normalized, v, z, retain_graph=True)[0]
    return run


def minima(
    run: Callable[[], Tensor], force: Callable[[int], None], paths: dict[str, int], rounds: int
) -> dict[str, float]:
    """Seconds of a call by each path, taking turns."""
    least = dict.fromkeys(paths, float("inf"))
    for _ in range(rounds):
        for name, path in paths.items():
            force(path)
            run()
            start = time.perf_counter()
            run()
            least[name] = min(least[name], time.perf_counter() - start)
    force(-1)
    return least


def lines(arguments: argparse.Namespace) -> Iterator[str]:
    force = force_path()
    layouts, types = arguments.layouts.split(","), arguments.types.split(",")
    for layout, (kernel, stride, pad) in itertools.product(layouts, WINDOWS):
        for side, channels, dtype in itertools.product(SIDES[kernel], CHANNELS[layout], types):
            for places in (PLACES, 16 * PLACES) if side == SIDES[kernel][-1] else (PLACES,):
                batch = max(1, places // (channels * side * side))
                x = torch.randn(batch, channels, side, side).to(TYPES[dtype])
                x = x.contiguous(memory_format=LAYOUTS[layout])
                for name, run in operators(x, kernel, stride, pad).items():
                    took = minima(run, force, PATHS[layout], arguments.rounds)
                    cells = [layout, f"{kernel}x{kernel}/{stride}", f"{channels}x{side}x{side}"]
                    cells += [f"{x.numel() / 1e6:.1f}", dtype, name]
                    cells += [f"{t / x.numel() * 1e9:.2f}" for t in took.values()]
                    yield "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns that each takes (default 5)")
    parser.add_argument("--types", default=",".join(TYPES), help="of " + ", ".join(TYPES))
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="of " + ", ".join(LAYOUTS))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    text = [
        "# The CPU's paths",
        "",
        f"`python benchmarks/bench_dispatch.py`: {cpu_name()}, 1 thread, minima, nanoseconds a place of x.",
        "An operator that cannot go window by window takes the rule's path in that column.",
        "",
        "| layout | window | image | million places | type | operator | rule | gather | windows |",
        "| --- | --- | --- | ---: | --- | --- | ---: | ---: | ---: |",
    ]
    for line in lines(arguments):
        print(line, flush=True)
        text.append(line)
    (Path(__file__).parent / "dispatch.md").write_text("\n".join([*text, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
