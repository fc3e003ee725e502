"""Times switch pooling and unpooling against PyTorch's own operators and against the time that a copy of their bytes takes.

    python benchmarks/bench_pooling.py [--device cuda] [--quick] [--limit SECONDS] [--out FOLDER]

The five poolings of VGG-16 (2x2, stride 2) and the three of AlexNet (3x3, stride 2). Each operator runs over several sets of
tensors that together exceed the caches; ours, PyTorch's and a copy take turns, so that whatever else the machine does hits
all of them; medians, with the spread of the middle half. On a GPU the turns are CUDA graphs, so that only kernels count; on
the CPU a call during which the system took a processor away does not count, unless hardly any was left alone.
Writes ``pooling_DEVICE.csv`` and ``pooling_DEVICE.md`` after each shape, so that what was measured survives a kill, and at last
``pooling_DEVICE.png``; prints how the targets were met.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import gc
import itertools
import os
import re
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pycaffe_compat import ops

VGG = [
    ("VGG pool1", 64, 224, 2),
    ("VGG pool2", 128, 112, 2),
    ("VGG pool3", 256, 56, 2),
    ("VGG pool4", 512, 28, 2),
    ("VGG pool5", 512, 14, 2),
]
ALEXNET = [("AlexNet pool1", 96, 55, 3), ("AlexNet pool2", 256, 27, 3), ("AlexNet pool5", 256, 13, 3)]
COMPILED = ("VGG pool1", "AlexNet pool1")
OPERATORS = (
    "pool", "pool backward", "unpool", "unpool backward", "unpool normalized", "unpool normalized backward", "unpool fixed",
    "pool average",
)  # fmt: skip
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}

Run = Callable[[int], object]  # of the number of a set of tensors; the result is kept until the set comes again


@dataclass
class Row:
    """One operator on one shape. Times in milliseconds, medians; ``spread`` is the middle half over the median."""

    shape: str
    layout: str
    dtype: str
    operator: str
    megabytes: float
    floor: float
    ours: float
    spread: float
    of_copy: float
    torch: float | None
    torch_over_ours: float | None
    compiled: float | None
    compiled_over_ours: float | None
    kept: float
    torch_kept: float | None


@dataclass
class Operator:
    name: str
    count: int  # bytes that must move at least
    ours: Run
    torch: Run | None
    compiled: Run | None
    kept: int  # bytes that the backward needs and no one else keeps
    torch_kept: int | None


class Sample(NamedTuple):
    """A time in milliseconds, and how often the system took a processor away meanwhile."""

    time: float
    interruptions: int


class Timer:
    """Takes turns among functions: so many rounds, and on a busy machine more of them, for so many seconds at most."""

    def __init__(self, device: torch.device, rounds: int, patience: float) -> None:
        self.device, self.rounds, self.patience = device, rounds, patience

    def __call__(self, runs: dict[str, Run], sets: int) -> dict[str, list[float]]:
        """Return the times of each of ``runs``, which all go over the same number of sets of tensors."""
        make = self._graph if self.device.type == "cuda" else self._turn
        turns = {}
        for name, run in runs.items():
            try:
                turns[name] = make(run, sets)
            except RuntimeError as error:
                if name in ("ours", "copy"):
                    raise
                print(f"{name} is left out: {error}", file=sys.stderr)
        samples: dict[str, list[Sample]] = {name: [] for name in turns}
        deadline = time.perf_counter() + self.patience
        for done in itertools.count(1):
            for name, turn in turns.items():
                samples[name] += turn()
            fewest = min(sum(not s.interruptions for s in taken) for taken in samples.values())
            if done >= self.rounds and (fewest >= self.rounds or time.perf_counter() > deadline):
                return {name: self._undisturbed(taken) for name, taken in samples.items()}

    def _undisturbed(self, samples: list[Sample]) -> list[float]:
        alone = [s.time for s in samples if not s.interruptions]
        return alone if len(alone) >= min(5, self.rounds) else [s.time for s in samples]

    def _turn(self, run: Run, sets: int) -> Callable[[], list[Sample]]:
        kept: list[object] = [None] * sets

        def turn() -> list[Sample]:
            samples = []
            for i in range(sets):
                kept[i] = None
                before, start = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw, time.perf_counter()
                kept[i] = run(i)
                elapsed = (time.perf_counter() - start) * 1e3
                samples.append(Sample(elapsed, resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before))
            return samples

        turn()
        return turn

    def _graph(self, run: Run, sets: int) -> Callable[[], list[Sample]]:
        # On the stream on which the forwards ran that backwards belong to: those would leave any other.
        stream = torch.cuda.current_stream()
        for _ in range(2):
            for i in range(sets):
                run(i)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        repeats = max(1, 16 // sets)
        kept: collections.deque[object] = collections.deque(maxlen=sets)
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(repeats):
                for i in range(sets):
                    kept.append(run(i))

        def turn(kept: collections.deque[object] = kept) -> list[Sample]:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            graph.replay()
            end.record()
            end.synchronize()
            return [Sample(start.elapsed_time(end) / (sets * repeats), 0)]

        turn()
        return turn


def gradient(output: Tensor, of: Tensor, with_respect_to: Tensor) -> Tensor:
    return torch.autograd.grad(output, with_respect_to, of, retain_graph=True)[0]


def torch_pool(x: Tensor, kernel: int) -> tuple[Tensor, Tensor]:
    return F.max_pool2d(F.relu(x), kernel, 2, ceil_mode=True, return_indices=True)


def torch_unpool(y: Tensor, index: Tensor, kernel: int, size: list[int]) -> Tensor:
    return F.max_unpool2d(y, index, kernel, 2, output_size=size)


def supported(name: str, run: Run) -> bool:
    """Whether PyTorch can do this here, as it cannot for some types; what it says is printed."""
    try:
        run(0)
    except RuntimeError as error:
        print(f"{name} is left out: {str(error).splitlines()[0]}", file=sys.stderr)
        return False
    return True


def held(run: Run, passed_on: int, computed: int) -> int:
    """The bytes that a result keeps for its backward beyond those it passes on: measured on a GPU, else as computed."""
    requested = "requested_bytes.all.current"  # not what the allocator rounds it up to
    if not torch.cuda.is_initialized() or requested not in torch.cuda.memory_stats():
        return computed
    before = torch.cuda.memory_stats()[requested]
    result = run(0)
    after = torch.cuda.memory_stats()[requested]
    del result
    return after - before - passed_on


def operators(
    channels: int,
    side: int,
    kernel: int,
    batch: int,
    dtype: torch.dtype,
    layout: torch.memory_format,
    device: torch.device,
    sets: int,
    compiling: bool,
) -> list[Operator]:
    """The operators of one pooling and of its unpooling, forward and backward, each on its own tensors."""
    window = (kernel, 2)

    def tensors(*shape: int) -> list[Tensor]:
        return [torch.randn(*shape, device=device).to(dtype).contiguous(memory_format=layout) for _ in range(sets)]

    x = [t.requires_grad_() for t in tensors(batch, channels, side, side)]
    size = list(x[0].shape[2:])
    pooled = [ops.max_pool_switch(t, *window, relu=True) for t in x]
    y = [p[0].detach().requires_grad_() for p in pooled]
    switch = [p[1] for p in pooled]
    unpooled = [ops.unpool_switch(y[i], switch[i], *window, output_size=size) for i in range(sets)]
    theirs = [torch_pool(t, kernel) for t in x]
    index = [t[1] for t in theirs]
    dx, dy = tensors(*x[0].shape), tensors(*y[0].shape)
    bx, by, bs = x[0].nbytes, y[0].nbytes, switch[0].nbytes

    def freed(run: Run) -> Run:
        def without_graph(i: int) -> object:
            with torch.no_grad():
                return run(i)

        return without_graph

    compiled_pool = torch.compile(torch_pool, dynamic=False) if compiling else None
    compiled_unpool = torch.compile(torch_unpool, dynamic=False) if compiling else None
    result = [
        Operator(
            "pool", bx + by + bs,
            freed(lambda i: ops.max_pool_switch(x[i], *window, relu=True)),
            freed(lambda i: torch_pool(x[i], kernel)),
            freed(lambda i: compiled_pool(x[i], kernel)) if compiled_pool else None,
            held(lambda i: ops.max_pool_switch(x[i], *window, relu=True), by, bs),
            held(lambda i: torch_pool(x[i], kernel), by, index[0].nbytes + bx),
        ),
        Operator(
            "pool backward", bx + 2 * by + bs,
            lambda i: gradient(pooled[i][0], dy[i], x[i]),
            lambda i: gradient(theirs[i][0], dy[i], x[i]),
            None, 0, 0,
        ),
        Operator(
            "unpool", bx + by + bs,
            freed(lambda i: ops.unpool_switch(y[i], switch[i], *window, output_size=size)),
            freed(lambda i: torch_unpool(y[i], index[i], kernel, size)),
            freed(lambda i: compiled_unpool(y[i], index[i], kernel, size)) if compiled_unpool else None,
            0, 0,
        ),
    ]  # fmt: skip
    backward: Run | None = None
    if supported("torch: unpool backward", result[2].torch or result[2].ours):
        torch_unpooled = [torch_unpool(y[i], index[i], kernel, size) for i in range(sets)]
        backward = lambda i: gradient(torch_unpooled[i], dx[i], y[i])  # noqa: E731
    result.append(
        Operator("unpool backward", bx + by + bs, lambda i: gradient(unpooled[i], dx[i], y[i]), backward, None, 0, 0)
    )
    if kernel > 2:
        normalized = [ops.unpool_switch_normalized(y[i], switch[i], *window, output_size=size) for i in range(sets)]
        result += [
            Operator(
                "unpool normalized", bx + by + bs,
                freed(lambda i: ops.unpool_switch_normalized(y[i], switch[i], *window, output_size=size)), None, None, 0, None,
            ),
            Operator(
                "unpool normalized backward", bx + by + bs, lambda i: gradient(normalized[i], dx[i], y[i]), None, None, 0, None
            ),
        ]  # fmt: skip
    result += [
        Operator(
            "unpool fixed", bx + by,
            freed(lambda i: ops.unpool_fixed(y[i], *window, output_size=size)), None, None, 0, None,
        ),
        Operator(
            "pool average", bx + by,
            freed(lambda i: ops.pool_average(x[i], *window)),
            freed(lambda i: F.avg_pool2d(x[i], kernel, 2, ceil_mode=True)), None, 0, 0,
        ),
    ]  # fmt: skip
    return result


def combinations(arguments: argparse.Namespace) -> Iterator[tuple[str, int, int, int, str, str]]:
    """Shape, layout and type of all measurements, those first that matter most."""
    shapes = [s for s in VGG + ALEXNET if s[0] in COMPILED or not arguments.quick]
    for dtype_name in arguments.types.split(","):
        for shape in shapes:
            for layout_name in LAYOUTS:
                yield *shape, layout_name, dtype_name


@dataclass
class Results:
    """Rows, the rates of the copies beside them, and what failed."""

    rows: list[Row] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def measure(arguments: argparse.Namespace, device: torch.device, results: Results) -> Iterator[None]:
    """Add to ``results``; stop to let the caller save them after each shape, layout and type."""
    timer = Timer(device, arguments.rounds, arguments.patience)
    batch, start = arguments.batch, time.perf_counter()
    most_sets = 64 if device.type == "cuda" else 16
    for name, channels, side, kernel, layout_name, dtype_name in combinations(arguments):
        spent = time.perf_counter() - start
        if spent > arguments.limit:
            print(f"stopped after {spent:.0f} seconds before {name}, {layout_name}, {dtype_name}", file=sys.stderr)
            return
        layout, dtype = LAYOUTS[layout_name], TYPES[dtype_name]
        size = batch * channels * side * side * dtype.itemsize
        sets = min(most_sets, max(2, -(-(arguments.rotate << 20) // size)))
        compiling = arguments.compile == "all" or (
            arguments.compile == "some" and name in COMPILED and dtype_name != "float16" and spent < arguments.limit / 2
        )
        torch.compiler.reset()
        # A GPU copies small tensors slower than large ones; the floor is its best.
        copied = max(size, 256 << 20) if device.type == "cuda" else size
        pairs = [torch.randn(2, copied // 4, device=device) for _ in range(min(sets, 4))]

        def copying(i: int, pairs: list[Tensor] = pairs) -> Tensor:
            pair = pairs[i % len(pairs)]
            return pair[1].copy_(pair[0])

        for o in operators(channels, side, kernel, batch, dtype, layout, device, sets, compiling):
            runs = {"ours": o.ours, "torch": o.torch, "compiled": o.compiled, "copy": copying}
            try:
                times = timer(
                    {
                        k: run
                        for k, run in runs.items()
                        if run and (k in ("ours", "copy") or supported(f"{k}: {o.name}", run))
                    },
                    sets,
                )
            except RuntimeError as error:
                results.failed.append(f"{name}, {layout_name}, {dtype_name}, {o.name}: {error}")
                print(results.failed[-1], file=sys.stderr)
                continue
            median = {k: statistics.median(t) for k, t in times.items()}
            results.rates.append(2 * copied / (median["copy"] * 1e-3))
            ours, floor = sorted(times["ours"]), o.count / results.rates[-1] * 1e3
            spread = (ours[len(ours) * 3 // 4] - ours[len(ours) // 4]) / median["ours"]
            ratio = {k: t / median["ours"] for k, t in median.items()}
            results.rows.append(Row(
                name, layout_name, dtype_name, o.name, o.count / 1e6, floor, median["ours"], spread,
                floor / median["ours"], median.get("torch"), ratio.get("torch"), median.get("compiled"),
                ratio.get("compiled"), o.kept / 1e6, None if o.torch_kept is None else o.torch_kept / 1e6,
            ))  # fmt: skip
            print(line(results.rows[-1]), flush=True)
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        yield


COLUMNS = (
    "shape",
    "layout",
    "type",
    "operator",
    "MB",
    "floor ms",
    "ours ms",
    "spread",
    "floor/ours",
    "torch ms",
    "torch/ours",
    "compiled ms",
    "compiled/ours",
    "MB kept",
    "torch's",
)


def line(row: Row) -> str:
    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    cells = (
        row.shape, row.layout, row.dtype, row.operator, number(row.megabytes, ".1f"), number(row.floor, ".3f"),
        number(row.ours, ".3f"), number(row.spread, ".0%"), number(row.of_copy, ".0%"), number(row.torch, ".3f"),
        number(row.torch_over_ours, ".1f"), number(row.compiled, ".3f"), number(row.compiled_over_ours, ".1f"),
        number(row.kept or None, ".1f"), number(row.torch_kept or None, ".1f"),
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def cpu_name() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for text in file:
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return "CPU"


class Target(NamedTuple):
    """What rows are to reach: a number of each that is at least so much."""

    what: str
    least: float
    rows: Callable[[Row], bool]
    number: Callable[[Row], float | None]


def shape_of(row: Row) -> tuple[int, int, int]:
    """Channels, side and window of a row."""
    return next(s[1:] for s in VGG + ALEXNET if s[0] == row.shape)


def targets(on_gpu: bool, batch: int) -> list[Target]:
    def of_copy(row: Row) -> float:
        return row.of_copy

    def of_torch(row: Row) -> float | None:
        return row.torch_over_ours

    def of_indices(row: Row) -> float | None:
        """PyTorch's indices over all that ours keeps: what PyTorch keeps, less the result of its ReLU."""
        channels, side, _ = shape_of(row)
        rectified = batch * channels * side * side * TYPES[row.dtype].itemsize / 1e6
        return round((row.torch_kept - rectified) / row.kept, 3) if row.torch_kept and row.kept else None

    def operator(name: str) -> Callable[[Row], bool]:
        if on_gpu:
            return lambda row: row.operator == name
        return lambda row: row.operator == name and row.shape == "VGG pool1" and row.dtype == "float32"

    def windows(side: int, name: str) -> Callable[[Row], bool]:
        types = ("float32", "bfloat16")
        return lambda row: shape_of(row)[2] == side and row.operator == name and row.dtype in types

    if on_gpu:
        return [
            *(
                Target(f"{side}x{side} {name}: of a copy's speed", least, windows(side, name), of_copy)
                for side, least in ((2, 0.9), (3, 0.75))
                for name in OPERATORS
                if side > 2 or "normalized" not in name
            ),
            Target("pool: times PyTorch's speed", 2.5, operator("pool"), of_torch),
            Target("unpool: times PyTorch's speed", 2, operator("unpool"), of_torch),
            Target("pool: PyTorch's indices over what is kept", 8, operator("pool"), of_indices),
        ]
    return [
        *(
            Target(f"{name}: times PyTorch's speed", least, operator(name), of_torch)
            for name, least in (("pool", 8), ("pool backward", 5), ("unpool", 5), ("unpool backward", 5))
        ),
        *(
            Target(f"{name}: of a copy's speed", 0.6, operator(name), of_copy)
            for name in ("pool", "pool backward", "unpool", "unpool backward")
        ),
    ]


def verdicts(rows: list[Row], on_gpu: bool, batch: int) -> list[str]:
    """A table of the targets: how many rows reach each, and the row that is farthest from it."""
    table = ["| target | at least | worst | where | reached | |", "| --- | ---: | ---: | --- | ---: | --- |"]
    for target in targets(on_gpu, batch):
        numbers = [(n, row) for row in rows if target.rows(row) and (n := target.number(row)) is not None]
        if not numbers:
            table.append(f"| {target.what} | {target.least} | – | not measured | – | |")
            continue
        worst, row = min(numbers, key=lambda pair: pair[0])
        reached = sum(n >= target.least for n, _ in numbers)
        table.append(
            f"| {target.what} | {target.least} | {worst:.2f} | {row.shape}, {row.layout}, {row.dtype}, {row.operator} "
            f"| {reached} of {len(numbers)} | {'pass' if reached == len(numbers) else 'MISS'} |"
        )
    return table


def describe(arguments: argparse.Namespace, device: torch.device, rates: list[float]) -> str:
    info = ops.backend_info()[device.type]
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"{cpu_name()}, {torch.get_num_threads()} threads"
    low, middle, high = (f"{r / 1e9:,.1f}" for r in (min(rates), statistics.median(rates), max(rates)))
    return (
        f"{name}, PyTorch {torch.__version__}, backend {info['backend']} ({info['reason']}), batch {arguments.batch}. "
        f"A copy moves {middle} GB/s, bytes read and written ({low} to {high} over this run; each shape has its own floor)."
    )


def write(arguments: argparse.Namespace, device: torch.device, results: Results) -> Path:
    """Write the tables and return where the plot belongs."""
    rows = results.rows
    slug = (
        re.sub(r"[^a-z0-9]+", "_", torch.cuda.get_device_name().lower()).strip("_") if device.type == "cuda" else "cpu"
    )
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"pooling_{slug}.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    text = [
        f"# Pooling and unpooling on {'a GPU' if device.type == 'cuda' else 'the CPU'}",
        "",
        describe(arguments, device, results.rates),
        "",
    ]
    text += [*verdicts(rows, device.type == "cuda", arguments.batch), ""]
    text += [
        "| " + " | ".join(COLUMNS) + " |",
        "| --- " * 4 + "| ---: " * (len(COLUMNS) - 4) + "|",
        *map(line, rows),
        "",
    ]
    (folder / f"pooling_{slug}.md").write_text("\n".join(text), encoding="utf-8")
    return folder / f"pooling_{slug}.png"


def draw(path: Path, rows: list[Row], title: str) -> None:
    """One panel an operator: how much of a copy's speed each reaches."""
    try:
        import matplotlib
    except ImportError:
        print("matplotlib is not installed: no plot", file=sys.stderr)
        return
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [n for n in dict.fromkeys(row.operator for row in rows) if "normalized" not in n]
    figure, axes = plt.subplots(len(names), 1, figsize=(12, 2.4 * len(names)), squeeze=False, constrained_layout=True)
    for axis, name in zip(axes[:, 0], names, strict=True):
        chosen = [row for row in rows if row.operator == name]
        labels = ["\n".join((*row.shape.split(" pool"), row.layout, row.dtype.replace("float", "f"))) for row in chosen]
        series = {
            "ours": [row.of_copy for row in chosen],
            "PyTorch": [row.floor / row.torch if row.torch else 0 for row in chosen],
            "compiled": [row.floor / row.compiled if row.compiled else 0 for row in chosen],
        }
        for k, (label, values) in enumerate(series.items()):
            axis.bar([i + 0.27 * (k - 1) for i in range(len(chosen))], values, 0.27, label=label)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xticks(range(len(chosen)), labels, fontsize=5)
        axis.set_xlim(-0.7, len(chosen) - 0.3)
        axis.set_ylabel("of a copy's speed")
        axis.set_title(name, fontsize=9)
    axes[0, 0].legend(fontsize=8, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    figure.suptitle(title, fontsize=8, wrap=True)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, help="images (default 64 on a GPU, 8 on the CPU)")
    parser.add_argument(
        "--types",
        help=f"of {', '.join(TYPES)} (default float32,bfloat16,float16 on a GPU, float32,bfloat16 on the CPU)",
    )
    parser.add_argument("--rounds", type=int, help="turns that each takes (default 15; 7 with --quick)")
    parser.add_argument("--patience", type=float, default=10, help="seconds to wait for calls that nothing disturbs")
    parser.add_argument("--rotate", type=int, default=512, help="megabytes of input that the sets of tensors exceed")
    parser.add_argument(
        "--compile",
        choices=("none", "some", "all"),
        help="what torch.compile is timed on (default: some; none with --quick)",
    )
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds after which no shape is begun")
    parser.add_argument("--quick", action="store_true", help="the first pooling of each net only")
    parser.add_argument("--out", default="build/benchmarks", help="folder of the results (default: %(default)s)")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    arguments.batch = arguments.batch or (64 if on_gpu else 8)
    arguments.types = arguments.types or ("float32,bfloat16,float16" if on_gpu else "float32,bfloat16")
    arguments.rounds = arguments.rounds or (7 if arguments.quick else 15)
    arguments.compile = arguments.compile or ("none" if arguments.quick else "some")
    torch.manual_seed(0)
    os.makedirs(arguments.out, exist_ok=True)
    print("| " + " | ".join(COLUMNS) + " |")
    results = Results()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # a time limit: what there is is summed up and drawn
    try:
        with torch.cuda.stream(torch.cuda.Stream()) if on_gpu else contextlib.nullcontext():
            for _ in measure(arguments, device, results):
                if results.rows:
                    write(arguments, device, results)
    finally:
        if results.rows:
            path = write(arguments, device, results)
            print("", *results.failed, *verdicts(results.rows, on_gpu, arguments.batch), sep="\n", flush=True)
            draw(path, results.rows, describe(arguments, device, results.rates))
    if results.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
