#!/usr/bin/env python
"""Exported VGG-16 and MobileNet v2 in onnxruntime, beside PyTorch's own export of the same nets; writes benchmarks/export.md.

Usage: python benchmarks/bench_export.py      (needs onnx, onnxruntime and onnxscript)

The nets have random weights. Ours come from prototxts with BatchNorm and Scale layers, folded; the others are plain PyTorch
modules, written by ``torch.onnx.export``. One thread, CPU time, the two take turns in one process; a ratio is the median of
those of all turns. How long exporting takes is the wall time, and memory the peak above what the net itself has.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from bench_face import compare, processor, vgg16
from torch import Tensor, nn

import pycaffe_compat as caffe
from pycaffe_compat.export import compare_onnx, to_onnx
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.pycaffe import layers as L
from pycaffe_compat.pycaffe import params as P

ROOT = Path(__file__).parents[1]
TURNS = 15
STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
# MobileNet v2 (Sandler et al. 2018, table 2): expansion, channels, blocks, stride of the first
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def plain_vgg16() -> nn.Module:
    """VGG-16 as a module of PyTorch."""
    parts: list[nn.Module] = []
    channels = 3
    for depth, width in STAGES:
        for _ in range(depth):
            parts += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        parts.append(nn.MaxPool2d(2, 2))
    parts += [nn.Flatten(), nn.Linear(25088, 4096), nn.ReLU(inplace=True), nn.Linear(4096, 4096), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts, nn.Linear(4096, 1000), nn.Softmax(1))


class Block(nn.Module):
    """An inverted residual of MobileNet v2."""

    def __init__(self, inputs: int, expansion: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.adds = stride == 1 and inputs == outputs
        wide = inputs * expansion
        parts = _unit(inputs, wide, 1) if expansion > 1 else []
        parts += [*_unit(wide, wide, 3, stride, wide), nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.body = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.adds else self.body(x)


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True)]


def plain_mobilenet() -> nn.Module:
    """MobileNet v2 as a module of PyTorch."""
    parts: list[nn.Module] = _unit(3, 32, 3, 2)
    channels = 32
    for expansion, width, count, stride in BLOCKS:
        for i in range(count):
            parts.append(Block(channels, expansion, width, stride if i == 0 else 1))
            channels = width
    parts += [*_unit(channels, 1280, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1280, 1000), nn.Softmax(1)]
    return nn.Sequential(*parts)


def mobilenet() -> str:
    """MobileNet v2 as Caffe's users write it: BatchNorm, Scale and ReLU6 after each convolution."""
    n = caffe.NetSpec()
    top = n.data = L.Input(shape={"dim": [1, 3, 224, 224]})

    def unit(name: str, top: Any, width: int, kernel: int, stride: int = 1, group: int = 1, relu: bool = True) -> Any:
        top = n[name] = L.Convolution(
            top, num_output=width, kernel_size=kernel, stride=stride, pad=kernel // 2, group=group, bias_term=False
        )
        top = n[f"{name}/bn"] = L.BatchNorm(top, in_place=True)
        top = n[f"{name}/scale"] = L.Scale(top, in_place=True, bias_term=True)
        if relu:
            top = n[f"{name}/relu"] = L.ReLU6(top, in_place=True)
        return top

    top = unit("conv1", top, 32, 3, 2)
    channels = 32
    for stage, (expansion, width, count, stride) in enumerate(BLOCKS, 2):
        for i in range(count):
            name, source, wide = f"conv{stage}_{i + 1}", top, channels * expansion
            if expansion > 1:
                top = unit(f"{name}/expand", top, wide, 1)
            top = unit(f"{name}/dwise", top, wide, 3, stride if i == 0 else 1, wide)
            top = unit(f"{name}/linear", top, width, 1, relu=False)
            if channels == width:
                top = n[f"{name}/sum"] = L.Eltwise(source, top)
            channels = width
    top = unit("conv9", top, 1280, 1)
    n.pool = L.Pooling(top, pool=P.Pooling.AVE, global_pooling=True)
    n.fc = L.InnerProduct(n.pool, num_output=1000)
    n.prob = L.Softmax(n.fc)
    return str(n.to_proto())


def session(path: Path) -> Callable[[], Any]:
    """A call that runs a model on one picture, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    run = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    data = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype("f4")
    name = run.get_inputs()[0].name
    return lambda: run.run(None, {name: data})


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def net_of(prototxt: str) -> Net:
    """The net, its weights as PyTorch's modules would have them."""
    torch.manual_seed(0)
    net = Net(parse_text(prototxt, caffe_pb2.NetParameter()), "TEST")
    with torch.no_grad():
        for layer in net.layers.values():
            for i, spec in enumerate(layer.blob_specs):
                blob = layer.blob(i)
                if spec.name in ("weight", "running_var", "scale_factor"):
                    blob.normal_(0, (2 / blob[0].numel()) ** 0.5) if blob.dim() > 1 else blob.fill_(1)
    return net


def row(name: str, prototxt: str, plain: nn.Module, folder: Path) -> str:
    """Export both, time both."""
    net = net_of(prototxt)
    weights = sum(blob.numel() for blob in net.state_dict().values()) * 4 / 2**20
    before, start = peak(), time.perf_counter()
    found = to_onnx(net, folder / "ours.onnx", fold=True)
    exported, during = time.perf_counter() - start, peak()
    worst = max(each.relative for each in compare_onnx(net, found, folder / "ours.onnx"))
    checked = time.perf_counter() - start
    example = torch.zeros(1, 3, 224, 224)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(plain.eval(), (example,), folder / "plain.onnx", dynamo=True, verbose=False)
    ours, theirs, ratio = compare(session(folder / "ours.onnx"), session(folder / "plain.onnx"), TURNS)
    return (
        f"| {name} | {1000 * ours:.0f} | {1000 * theirs:.0f} | {ratio:.2f} | {exported:.1f} s | {checked:.1f} s | {worst:.1g} | "
        f"{weights:.0f} MB | {during - before:.0f} MB |"
    )


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row("MobileNet v2", mobilenet(), plain_mobilenet(), Path(folder)),
            row("VGG-16", vgg16(), plain_vgg16(), Path(folder)),
        ]
    versions = f"{processor()}, onnxruntime {onnxruntime.__version__}, PyTorch {torch.__version__}"
    columns = (
        "net",
        "ours, ms",
        "theirs, ms",
        "ours / theirs",
        "exported in",
        "and checked in",
        "difference",
        "weights",
        "memory",
    )
    lines = [
        "# Exported nets",
        "",
        f"`python benchmarks/bench_export.py`: one picture of 224×224, one thread, CPU time, {TURNS} turns. {versions}."
        " Theirs is the plain PyTorch module of the same net, written by `torch.onnx.export`. Goals: a ratio of at most 1; "
        "VGG-16 exported and checked in under 60 s, in less than 3 times its weights of memory (the peak above the net's own).",
        "",
        f"| {' | '.join(columns)} |",
        f"| --- {'| ---: ' * (len(columns) - 1)}|",
        *rows,
    ]
    text = "\n".join(lines) + "\n"
    (ROOT / "benchmarks" / "export.md").write_text(text)
    print(text)


if __name__ == "__main__":
    sys.exit(main())
