"""Times whole training steps: ours against the plain PyTorch module of the same net.

    python benchmarks/bench_training.py [--device cuda] [--batch N …] [--rounds N] [--out FOLDER]

The net is the paper's SWWAE-all on VGG-16 with random pictures: forward, backward, SGD with momentum and weight decay. Ours
is the solver, with its net from ``prototxt/swwae_all_train_val.prototxt``; plain is ``plain_swwae.py`` with ``torch.optim.SGD``.
Every contender has a process of its own, as a user's would be, and they take turns: a few steps each, ``--rounds`` times,
while the others wait. Medians. Contenders on the CPU: plain and ours, each as installed, and plain with PyTorch's own switch for
huge pages (``THP_MEM_ALLOC_ENABLE=1``); on a GPU plain in float32, and plain in mixed precision through ``torch.compile``.

The floor is the arithmetic of the net at the rate of a large matrix product, measured in the same run. Writes
``training_DEVICE.csv``, ``.md`` and ``.png``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from plain_swwae import PlainSWWAE, plain_optimizer
from torch import Tensor

from pycaffe_compat.proto import caffe_pb2, filter_net, read_net, read_solver
from pycaffe_compat.solver import GraphRunner, Solver
from pycaffe_compat.summary import describe

ROOT = Path(__file__).resolve().parents[1]
PROTOTXT = ROOT / "prototxt"
SIDE = 224
RATE = 1e-9  # the weights are random and so are the pictures: a larger one diverges, and this is about time
WARM_UP, TURN = 2, 3  # steps before the first turn, and in each turn


@dataclass(frozen=True)
class Contender:
    """Who trains, and how."""

    name: str
    ours: bool
    precision: str = "float32"
    options: str = ""  # of GraphRunner, or "compile" for the plain module
    environment: str = ""
    net: str = "swwae_all"  # of prototxt/


CPU = (
    Contender("plain", False),
    Contender("plain, huge pages", False, environment="THP_MEM_ALLOC_ENABLE=1"),
    Contender("ours", True),
    Contender("ours, channels_last", True, options="channels_last"),
    Contender("ours, not recycling", True, environment="PYCAFFE_COMPAT_RECYCLE=0"),
    Contender("plain, AMP", False, "bfloat16"),
    Contender("ours, AMP", True, "bfloat16", "channels_last"),
    Contender("ours, AMP, not recycling", True, "bfloat16", "channels_last", "PYCAFFE_COMPAT_RECYCLE=0"),
    Contender("ours, step 2: encoder fixed", True, net="decoder/swwae_all"),
)
CUDA = (
    Contender("plain", False),
    Contender("plain, AMP and compile", False, "bfloat16", "compile"),
    Contender("ours", True),
    Contender("ours, AMP", True, "bfloat16", "channels_last"),
    Contender("ours, AMP and CUDA graph", True, "bfloat16", "channels_last cuda_graph"),
)


@dataclass
class Row:
    """One contender at one batch size: medians of a step in milliseconds; ``system`` is the time inside the system."""

    contender: str
    precision: str
    batch: int
    forward: float
    backward: float
    update: float
    step: float
    system: float
    page_faults: int
    peak_megabytes: float
    images_per_second: float
    of_matrix_rate: float
    plain_over_this: float


# One contender's process: reads the number of steps from standard input, answers with their times.


def serve(contender: Contender, batch: int, device: torch.device) -> None:
    torch.manual_seed(1)
    data = torch.randn(batch, 3, SIDE, SIDE, device=device) * 60
    label = torch.arange(batch, device=device, dtype=torch.float32)
    step = _ours(contender, data, label) if contender.ours else _plain(contender, data, label)
    for _ in range(WARM_UP):
        step()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps([_timed(step, device) for _ in range(int(line))]), flush=True)


def _timed(step: Any, device: torch.device) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF)
    parts = step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    peak = torch.cuda.max_memory_allocated() >> 10 if device.type == "cuda" else after.ru_maxrss
    return {
        **{name: 1000 * parts[name] for name in ("forward", "backward", "update")},
        "system": 1000 * (after.ru_stime - before.ru_stime),
        "page_faults": after.ru_minflt - before.ru_minflt,
        "peak_megabytes": peak / 1024,
    }


def train_param(batch: int, name: str = "swwae_all") -> Any:
    """The train net with an ``Input`` in the place of its data layer."""
    net = read_net(PROTOTXT / f"{name}_train_val.prototxt")
    net.state.phase = caffe_pb2.TRAIN
    net = filter_net(net, net.state)
    layer = next(layer for layer in net.layer if layer.type == "Data")
    given = caffe_pb2.LayerParameter(name="data", type="Input", top=layer.top)
    for dim in ([batch, 3, SIDE, SIDE], [batch])[: len(layer.top)]:
        given.input_param.shape.add(dim=dim)
    layer.CopyFrom(given)
    return net


def _ours(contender: Contender, data: Tensor, label: Tensor) -> Any:
    class Fixed(GraphRunner):
        def batch(self) -> dict[str, Tensor]:
            return {name: {"data": data, "label": label}[name] for name in self.net.inputs}

    def runner(net: Any) -> GraphRunner:
        options: dict[str, Any] = dict.fromkeys(contender.options.split(), True)
        return Fixed(net, amp=None if contender.precision == "float32" else contender.precision, **options)

    param = read_solver(PROTOTXT / "swwae_all_solver.prototxt")
    for name in ("net", "test_iter", "test_interval", "snapshot", "display", "iter_size", "average_loss"):
        param.ClearField(name)
    param.net_param.CopyFrom(train_param(len(data), contender.net))
    param.base_lr = RATE
    solver = Solver(param, device=data.device, runner=runner)
    solver.runner.parts = type(solver.runner.parts)(data.device, synchronize=True)

    def step() -> dict[str, float]:
        solver.runner.parts.reset()
        solver.step(1)
        return solver.runner.parts.seconds

    return step


def _plain(contender: Contender, data: Tensor, label: Tensor) -> Any:
    net = PlainSWWAE().to(data.device)
    optimizer = plain_optimizer(net, RATE)
    forward = torch.compile(net) if "compile" in contender.options else net
    mixed = contender.precision != "float32"

    def now() -> float:
        if data.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def step() -> dict[str, float]:
        optimizer.zero_grad()
        times = [now()]
        with torch.autocast(data.device.type, torch.bfloat16) if mixed else nullcontext():
            objective = forward(data, label)
        times.append(now())
        objective.backward()
        times.append(now())
        optimizer.step()
        objective.item()
        times.append(now())
        return {name: b - a for name, a, b in zip(("forward", "backward", "update"), times, times[1:], strict=False)}

    return step


# The referee.


class Player:
    """The process of a contender."""

    def __init__(self, contender: Contender, batch: int, device: str) -> None:
        self.contender = contender
        environment = {
            **os.environ,
            "GLOG_minloglevel": "2",
            **dict([contender.environment.split("=")] if contender.environment else []),
        }
        command = [sys.executable, __file__, "--serve", contender.name, "--device", device, "--batch", str(batch)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.samples: list[dict[str, float]] = []
        self._read()  # "ready"

    def turn(self, steps: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        self.samples += json.loads(self._read())

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.contender.name}: ended with status {self.process.wait()}")
        return line

    def close(self) -> None:
        self.process.communicate()


def matrix_rate(dtype: torch.dtype, device: torch.device, size: int = 4096) -> float:
    """FLOP a second of a product of square matrices: the best of ten."""
    size = size if device.type == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in "ab")
    best = float("inf")
    for _ in range(10):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def flops() -> float:
    """Of a training step with one picture: forward, and twice that backward, but for the gradient of the pictures."""
    forward = [row.flops or 0 for row in describe(train_param(1), "TRAIN")]
    return 3 * sum(forward) - next(n for n in forward if n)


def measure(
    batch: int, contenders: tuple[Contender, ...], device: str, rounds: int, rates: dict[str, float]
) -> list[Row]:
    """Let the contenders take turns; return a row each."""
    players = []
    for contender in contenders:
        try:
            players.append(Player(contender, batch, device))
        except RuntimeError as error:
            print(f"left out: {error}", file=sys.stderr)
    for number in range(rounds):
        for player in players:
            player.turn(TURN)
        for kind in rates:  # the best of all rounds: what else the machine does can only lower it
            rates[kind] = max(rates[kind], matrix_rate(getattr(torch, kind), torch.device(device)))
        print(f"batch {batch}: round {number + 1} of {rounds}", file=sys.stderr)
    for player in players:
        player.close()
    rows: list[Row] = []
    for player in players:
        middle = {name: statistics.median(s[name] for s in player.samples) for name in player.samples[0]}
        parts = [middle[name] for name in ("forward", "backward", "update")]
        step = statistics.median(s["forward"] + s["backward"] + s["update"] for s in player.samples)
        contender = player.contender
        plain = rows[0].step if rows else step
        rows.append(
            Row(
                contender.name, contender.precision, batch, *(round(p, 1) for p in parts), round(step, 1),
                round(middle["system"], 1), int(middle["page_faults"]), round(middle["peak_megabytes"]),
                round(1000 * batch / step, 2), round(batch * flops() / (step / 1000) / rates[contender.precision], 3),
                round(plain / step, 2),
            )
        )  # fmt: skip
    return rows


def machine(device: torch.device) -> str:
    """What the figures were measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    try:
        with open("/proc/cpuinfo") as file:
            name = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    setting = pages.read_text().strip() if pages.exists() else "none"
    return f"{name}, {torch.get_num_threads()} threads, transparent huge pages: {setting}"


def write(rows: list[Row], rates: dict[str, float], device: torch.device, folder: Path) -> None:
    """Write the table, as CSV and as a page, and the plot."""
    name = f"training_{device.type}"
    with open(folder / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in fields(Row))
        writer.writerows(asdict(row).values() for row in rows)
    lines = [
        "# Training steps\n",
        f"`python benchmarks/bench_training.py`: SWWAE-all on VGG-16, {machine(device)}, PyTorch {torch.__version__}.",
        f"A picture takes {flops() / 1e9:.0f} GFLOP. Matrix products run at "
        + " and ".join(f"{rate / 1e9:,.0f} GFLOP/s in {kind}" for kind, rate in rates.items())
        + ", so the floor is "
        + " and ".join(f"{1000 * flops() / rate:,.0f} ms" for rate in rates.values())
        + " a picture. Medians of a step, in milliseconds; *system* is the part of it inside the system.\n",
        "| batch | who | forward | backward | update | step | system | page faults | peak MB | images/s | of matrix rate "
        "| plain / this |",
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for r in rows:
        lines.append(
            f"| {r.batch} | {r.contender} | {r.forward:,.0f} | {r.backward:,.0f} | {r.update:,.0f} | {r.step:,.0f} | "
            f"{r.system:,.0f} | {r.page_faults:,} | {r.peak_megabytes:,.0f} | {r.images_per_second:.2f} | "
            f"{r.of_matrix_rate:.0%} | {r.plain_over_this:.2f} |"
        )
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n")
    draw(rows, rates, folder / f"{name}.png")


def draw(rows: list[Row], rates: dict[str, float], path: Path) -> None:
    """A bar a contender: the parts of a step by picture, and the floor."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    batches = sorted({row.batch for row in rows})
    figure, axes = pyplot.subplots(1, len(batches), figsize=(6 * len(batches), 4), squeeze=False, layout="constrained")
    for axis, batch in zip(axes[0], batches, strict=True):
        shown = [row for row in rows if row.batch == batch][::-1]
        left = [0.0] * len(shown)
        for part, colour in (("forward", "#4c78a8"), ("backward", "#f58518"), ("update", "#54a24b")):
            widths = [getattr(row, part) / batch for row in shown]
            axis.barh([row.contender for row in shown], widths, left=left, label=part, color=colour)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for kind, style in (("float32", "-"), ("bfloat16", "--")):
            axis.axvline(1000 * flops() / rates[kind], color="black", linestyle=style, label=f"floor, {kind}")
        axis.set_title(f"batch {batch}")
        axis.set_xlabel("milliseconds a picture")
    axes[0][-1].legend(loc="lower right", fontsize="small")
    figure.savefig(path, dpi=110)


def targets(rows: list[Row], device: str) -> list[str]:
    """How the targets were met, a line each."""
    found = {(row.contender, row.batch): row for row in rows}
    lines = []

    def check(what: str, contender: str, batch: int, value: Any, wanted: float, most: bool = False) -> None:
        row = found.get((contender, batch))
        if row is None:
            return
        have = value(row)
        well = have <= wanted if most else have >= wanted
        sign = "at most" if most else "at least"
        lines.append(
            f"{'pass' if well else 'MISS'}  batch {batch}, {contender}: {what} {have:.2f}, wanted {sign} {wanted}"
        )

    for batch in sorted({row.batch for row in rows}):
        plain = found.get(("plain", batch))
        if plain is None:
            continue
        if device == "cuda":
            ours = "ours, AMP and CUDA graph"
            compiled = found.get(("plain, AMP and compile", batch))
            check("speed over plain float32", ours, batch, lambda r: r.plain_over_this, 3)
            if compiled is not None:
                check("speed over plain AMP and compile", ours, batch, lambda r, c=compiled: c.step / r.step, 1.25)
            check("share of the bfloat16 matrix rate", ours, batch, lambda r: r.of_matrix_rate, 0.45)
            check("memory over plain's", ours, batch, lambda r, p=plain: r.peak_megabytes / p.peak_megabytes, 0.6, True)
            continue
        huge = found.get(("plain, huge pages", batch))
        check("speed over plain", "ours", batch, lambda r: r.plain_over_this, 5 if batch == 1 else 3)
        check("share of the float32 matrix rate", "ours", batch, lambda r: r.of_matrix_rate, 0.95)
        if huge is not None:
            check("speed over plain with huge pages", "ours", batch, lambda r, h=huge: h.step / r.step, 1)
        check("memory over plain's", "ours", batch, lambda r, p=plain: r.peak_megabytes / p.peak_megabytes, 1, True)
        if batch > 1:
            check("speed over plain", "ours, AMP", batch, lambda r: r.plain_over_this, 5)
            check("share of the bfloat16 matrix rate", "ours, AMP", batch, lambda r: r.of_matrix_rate, 0.85)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, nargs="+", metavar="N", help="default: 1 and 4 on the CPU, 64 on a GPU")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help=f"turns of {TURN} steps each (default: 5)")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="contenders; the first one is what others are held against"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("build/benchmarks"),
        metavar="FOLDER",
        help="of the results (default: %(default)s)",
    )
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = torch.device(args.device)
    contenders = CUDA if args.device == "cuda" else CPU
    if args.serve:
        serve(next(c for c in contenders if c.name == args.serve), args.batch[0], device)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    if args.only:
        contenders = tuple(c for c in contenders if c.name in args.only)
    rates = {kind: matrix_rate(getattr(torch, kind), device) for kind in ("float32", "bfloat16")}
    rows: list[Row] = []
    for batch in args.batch or ([64] if args.device == "cuda" else [1, 4]):
        rows += measure(batch, contenders, args.device, args.rounds, rates)
        write(rows, rates, device, args.out)
    print((args.out / f"training_{device.type}.md").read_text())
    print("\n".join(targets(rows, device.type)))


if __name__ == "__main__":
    main()
