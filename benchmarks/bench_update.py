"""Time an optimizer's step: the compiled update against the ``torch._foreach`` functions, in turns in one process.

    python benchmarks/bench_update.py [--device cuda] [--runs 15] [--out benchmarks/update.md]

The floor is the bytes that one pass has to move, at the rate at which ``a.add_(b)`` moves its own in the same process:
in place, so nothing is read that does not count. All memory is touched before anything is timed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pycaffe_compat.ops import use_backend
from pycaffe_compat.solver import SGD, Adam, CaffeOptimizer


def vgg16() -> list[tuple[int, ...]]:
    """The shapes of VGG-16's parameters."""
    channels = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    shapes: list[tuple[int, ...]] = []
    for before, after in itertools.pairwise(channels):
        shapes += [(after, before, 3, 3), (after,)]
    for before, after in ((25088, 4096), (4096, 4096), (4096, 1000)):
        shapes += [(after, before), (after,)]
    return shapes


def resnet50() -> list[tuple[int, ...]]:
    """The shapes of ResNet-50's parameters, BatchNorm's scale and shift among them."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    inputs = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            for conv in ((width, inputs, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)):
                shapes += [conv, (conv[0],), (conv[0],)]
            if block == 0:
                shapes += [(4 * width, inputs, 1, 1), (4 * width,), (4 * width,)]
            inputs = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


NETS = {"VGG-16": vgg16, "ResNet-50": resnet50}
# Rule, bytes a parameter that one pass moves with and without the update in the gradients.
RULES: dict[str, tuple[Callable[..., CaffeOptimizer], int, int]] = {"SGD": (SGD, 24, 20), "Adam": (Adam, 32, 28)}


def seconds(run: Callable[[], object]) -> float:
    """How long one call takes."""
    start = _now()
    run()
    return _now() - start


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def add_rate(runs: int, device: str) -> float:
    """Bytes read and written a second by in-place sums of 256 MB."""
    a, b = torch.ones(64 << 20, device=device), torch.ones(64 << 20, device=device)
    a.add_(b)
    return 3 * a.nbytes / statistics.median(seconds(lambda: a.add_(b)) for _ in range(runs))


def rows(threads: int, runs: int, device: str) -> list[str]:
    """The lines of the table for a number of threads."""
    torch.set_num_threads(threads)
    rate = add_rate(runs, device)
    print(f"{threads} threads: in-place sums move {rate / 1e9:.1f} GB/s")
    lines = []
    for net, shapes in NETS.items():
        params = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in shapes()]
        for p in params:
            p.grad = torch.full_like(p, 1e-3)
        count = sum(p.numel() for p in params)
        for name, (rule, kept, unkept) in RULES.items():
            optimizer = rule(params, 1e-4, momentum=0.9, weight_decay=5e-4)
            times: dict[str, list[float]] = {"foreach": [], "fused": [], "unkept": []}
            for turn in range(runs + 1):
                for way, found in times.items():
                    optimizer.keep_update = way != "unkept"
                    with use_backend("torch" if way == "foreach" else "extension"):
                        took = seconds(optimizer.step)
                    if turn:
                        found.append(took)
            foreach, fused, without = (1e3 * statistics.median(found) for found in times.values())
            floors = [1e3 * count * each / rate for each in (kept, unkept)]
            lines.append(
                f"| {net}, {len(params)} tensors, {count / 1e6:.1f} M | {name} | {threads} | {foreach:.1f} | {fused:.1f} "
                f"({floors[0]:.1f}) | {without:.1f} ({floors[1]:.1f}) | {foreach / fused:.1f} | {foreach / without:.1f} |"
            )
            print(lines[-1], flush=True)
    lines.append(f"| in-place sum: {rate / 1e9:.1f} GB/s | | {threads} | | | | | |")
    return lines


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="timed steps of each kind (default 15)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, nargs="+", help="default: 1 and 2 on the CPU, 1 on a GPU")
    parser.add_argument("--out", type=Path, help="where the table goes")
    args = parser.parse_args()
    head = (
        "| parameters | rule | threads | foreach, ms | one pass (floor), ms | without keeping the update (floor), ms "
        "| ratio | ratio |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n"
    )
    threads = args.threads or ([1] if args.device == "cuda" else [1, 2])
    table = head + "\n".join(line for n in threads for line in rows(n, args.runs, args.device)) + "\n"
    if args.device == "cuda":
        table = f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n\n{table}"
    if args.out:
        args.out.write_text(table)


if __name__ == "__main__":
    main()
