#!/usr/bin/env python
"""Times the pycaffe interface against the same net called as a torch module, and the building of a net.

Writes benchmarks/face.md.

Usage: python benchmarks/bench_face.py

Everything runs on one thread, and the CPU time of the process is measured. The two sides of a line take turns, and the ratio
is the median of their ratios, so that other load affects both alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import pycaffe_compat as caffe
from pycaffe_compat.pycaffe import layers as L
from pycaffe_compat.pycaffe import params as P

ROOT = Path(__file__).parents[1]
GOALS = {"LeNet forward": 2.0, "VGG-16 forward": 1.05, "VGG-16 build": 1.5}


def lenet() -> str:
    """Caffe's LeNet, for one digit."""
    fill = {"weight_filler": {"type": "xavier"}}
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 28, 28]})
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, **fill)
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.conv2 = L.Convolution(n.pool1, kernel_size=5, num_output=50, **fill)
    n.pool2 = L.Pooling(n.conv2, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.ip1 = L.InnerProduct(n.pool2, num_output=500, **fill)
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.ip2 = L.InnerProduct(n.relu1, num_output=10, **fill)
    n.prob = L.Softmax(n.ip2)
    return str(n.to_proto())


def vgg16() -> str:
    """VGG-16 for deployment as its authors published it, for one picture: no fillers, as weights follow."""
    n = caffe.NetSpec()
    top = n.data = L.Input(shape={"dim": [1, 3, 224, 224]})
    for stage, (depth, channels) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for i in range(1, depth + 1):
            top = n[f"conv{stage}_{i}"] = L.Convolution(top, num_output=channels, pad=1, kernel_size=3)
            top = n[f"relu{stage}_{i}"] = L.ReLU(top, in_place=True)
        top = n[f"pool{stage}"] = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    for name in ("6", "7"):
        top = n[f"fc{name}"] = L.InnerProduct(top, num_output=4096)
        top = n[f"relu{name}"] = L.ReLU(top, in_place=True)
        top = n[f"drop{name}"] = L.Dropout(top, in_place=True, dropout_ratio=0.5)
    n.fc8 = L.InnerProduct(top, num_output=1000)
    n.prob = L.Softmax(n.fc8)
    return str(n.to_proto())


def compare(
    ours: Callable[[], Any], theirs: Callable[[], Any], turns: int, times: int = 1
) -> tuple[float, float, float]:
    """Return the median seconds of both, and the median of the ratios of ``turns`` pairs of ``times`` calls."""

    def seconds(call: Callable[[], Any]) -> float:
        start = time.process_time()
        for _ in range(times):
            call()
        return (time.process_time() - start) / times

    ours(), theirs()
    pairs = []
    for turn in range(turns):
        first, second = (ours, theirs) if turn % 2 else (theirs, ours)
        a, b = seconds(first), seconds(second)
        pairs.append((a, b) if turn % 2 else (b, a))
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(a / b for a, b in pairs),
    )


def forward(path: str, turns: int, times: int) -> tuple[float, float, float]:
    """``net.forward()`` against ``module(data=x)``: the same net, the same parameters."""
    net = caffe.Net(path, caffe.TEST)
    random = np.random.default_rng(0)
    for blobs in net.params.values():
        weight = blobs[0].data
        weight[...] = random.standard_normal(weight.shape, np.float32) * np.sqrt(2 / np.prod(weight.shape[1:]))
    for name in net.inputs:
        net.blobs[name].reshape(1, *net.blobs[name].shape[1:])
    net.reshape()
    first = net.blobs[net.inputs[0]]
    first.data[...] = random.standard_normal(first.shape, np.float32)
    given = {name: torch.from_numpy(net.blobs[name].data.copy()) for name in net.inputs}
    module = net.module

    @torch.no_grad()
    def call() -> Any:
        return module(given)

    np.testing.assert_allclose(net.forward()[net.outputs[0]], call()[net.outputs[0]].numpy(), rtol=1e-4, atol=1e-6)
    return compare(net.forward, call, turns, times)


def build(path: str, turns: int) -> tuple[float, float, float]:
    """``caffe.Net(path, TEST)`` against allocating and filling tensors of its parameters' shapes."""
    shapes = [b.data.shape for blobs in caffe.Net(path, caffe.TEST).params.values() for b in blobs]
    return compare(
        lambda: caffe.Net(path, caffe.TEST), lambda: [torch.empty(shape).fill_(0) for shape in shapes], turns
    )


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    """Measure, print and write the table."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        small, vgg = os.path.join(folder, "lenet.prototxt"), os.path.join(folder, "vgg16.prototxt")
        Path(small).write_text(lenet())
        Path(vgg).write_text(vgg16())
        rows = [
            ("LeNet forward", "batch 1", "module(data=x)", forward(small, 101, 20)),
            ("VGG-16 forward", "batch 1", "module(data=x)", forward(vgg, 21, 1)),
            ("VGG-16 build", "no weights", "allocating and filling its parameters", build(vgg, 11)),
        ]
    lines = [
        "# The cost of the pycaffe interface",
        "",
        "`python benchmarks/bench_face.py`: median CPU times, and the median of the ratios of turns taken one after the other.",
        f"{processor()}, 1 thread, PyTorch {torch.__version__}, numpy {np.__version__}.",
        "",
        "| | | pycaffe, CPU ms | against | CPU ms | ratio | goal |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {what} | {size} | {ours * 1e3:.2f} | {against} | {theirs * 1e3:.2f} | {ratio:.2f} | ≤ {GOALS[what]:g} |"
        for what, size, against, (ours, theirs, ratio) in rows
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    (ROOT / "benchmarks" / "face.md").write_text(text)


if __name__ == "__main__":
    main()
