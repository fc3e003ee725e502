"""Times training steps of small nets with one thread and with one a core: from which size on do threads pay?

    python benchmarks/bench_threads.py

Nets like LeNet, of growing size, on the CPU; the two take turns in one process; medians. Writes ``threads.md``.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("GLOG_minloglevel", "2")

import torch

from pycaffe_compat.proto import caffe_pb2
from pycaffe_compat.pycaffe import NetSpec
from pycaffe_compat.pycaffe import layers as L
from pycaffe_compat.pycaffe import params as P
from pycaffe_compat.solver import Solver, init_log
from pycaffe_compat.summary import describe

CONFIGURATIONS = (  # batch, channels of the two convolutions, hidden units
    (4, 4, 8, 32),
    (16, 8, 16, 64),
    (64, 4, 8, 32),
    (64, 8, 16, 128),
    (64, 20, 50, 500),
    (256, 20, 50, 500),
)
TURNS, STEPS = 9, 10


def net(batch: int, first: int, second: int, hidden: int) -> caffe_pb2.NetParameter:
    """LeNet with other numbers of channels, on random digits."""
    fill = {"weight_filler": {"type": "xavier"}}
    pooling = {"kernel_size": 2, "stride": 2, "pool": P.Pooling.MAX}
    n = NetSpec()
    shapes = [{"dim": [batch, 1, 28, 28]}, {"dim": [batch]}]
    n.data, n.label = L.DummyData(
        shape=shapes, data_filler=[{"type": "gaussian"}, {"type": "constant", "value": 1}], ntop=2
    )
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=first, **fill)
    n.pool1 = L.Pooling(n.conv1, **pooling)
    n.conv2 = L.Convolution(n.pool1, kernel_size=5, num_output=second, **fill)
    n.pool2 = L.Pooling(n.conv2, **pooling)
    n.ip1 = L.InnerProduct(n.pool2, num_output=hidden, **fill)
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.relu1, num_output=10, **fill)
    n.loss = L.SoftmaxWithLoss(n.ip2, n.label)
    return n.to_proto()


def main() -> None:
    init_log()
    cores = torch.get_num_threads()
    lines = [
        "# Threads and small nets\n",
        f"`python benchmarks/bench_threads.py`: steps of nets like LeNet, PyTorch {torch.__version__}, ms, medians.\n",
        f"| batch, channels, hidden | MFLOP forward | 1 thread | {cores} threads | ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for configuration in CONFIGURATIONS:
        param = caffe_pb2.SolverParameter(base_lr=1e-3, lr_policy="fixed", momentum=0.9, snapshot_after_train=False)
        param.net_param.CopyFrom(net(*configuration))
        flops = sum(row.flops or 0 for row in describe(param.net_param, "TRAIN"))
        solver = Solver(param, device="cpu")
        solver.step(STEPS)
        times: dict[int, list[float]] = {1: [], cores: []}
        for _ in range(TURNS):
            for threads, found in times.items():
                torch.set_num_threads(threads)
                solver.step(2)
                start = time.perf_counter()
                solver.step(STEPS)
                found.append(1000 * (time.perf_counter() - start) / STEPS)
        solver.close()
        one, all_cores = (statistics.median(found) for found in times.values())
        lines.append(f"| {configuration} | {flops / 1e6:.1f} | {one:.2f} | {all_cores:.2f} | {one / all_cores:.2f} |")
    text = "\n".join(lines) + "\n"
    Path(__file__).with_name("threads.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
