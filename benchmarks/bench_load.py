#!/usr/bin/env python
"""How long loading a 553 MB caffemodel takes, and how much memory; writes benchmarks/load.md.

Usage: python benchmarks/bench_load.py [FOLDER]

A file with the shapes and the format of VGG_ILSVRC_16_layers.caffemodel (V1 layers, four dimensions a blob, random numbers)
is written to FOLDER (default: a temporary one). Loading it into an existing net is timed against
``cat FILE >/dev/null`` and a copy of as many numbers in memory. The three take turns, and the file is in the page cache for
all. Memory is measured in a separate process that builds the net with the weights: its peak above what it used before.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_face import processor, vgg16

import pycaffe_compat as caffe
from pycaffe_compat.proto import caffe_pb2, wire

ROOT = Path(__file__).parents[1]
TURNS = 9
MEMORY = """
import sys
import pycaffe_compat

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(field + ":"))

before = status("VmRSS")
net = pycaffe_compat.load(sys.argv[1], sys.argv[2])
print(before, status("VmHWM"), sum(p.numel() for p in net.parameters()) * 4 // 1024)
"""


def write_v1(path: str, net: caffe.Net) -> None:
    """Write the parameters of ``net`` as a V1 caffemodel: ``layers``, and ``num channels height width`` in every blob."""
    kinds = caffe_pb2.V1LayerParameter.LayerType
    types = {"Convolution": kinds.Value("CONVOLUTION"), "InnerProduct": kinds.Value("INNER_PRODUCT")}
    head = caffe_pb2.NetParameter(name="VGG_ILSVRC_16_layers").SerializeToString()
    with open(path, "wb") as file:
        file.write(head)
        for layer in net.layers:
            body = caffe_pb2.V1LayerParameter(name=layer.name)
            if layer.type in types:
                body.type = types[layer.type]
            parts: list[bytes | memoryview] = [body.SerializeToString()]
            for blob in layer.blobs:
                values = np.ascontiguousarray(blob.data)
                n, c, h, w = (1,) * (4 - values.ndim) + values.shape
                dims = caffe_pb2.BlobProto(num=n, channels=c, height=h, width=w).SerializeToString()
                numbers = wire.header(5, values.nbytes)
                parts += [
                    wire.header(6, len(dims) + len(numbers) + values.nbytes),
                    dims,
                    numbers,
                    values.data.cast("B"),
                ]
            file.write(wire.header(2, sum(map(len, parts))))
            file.writelines(parts)


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def turns(text: str, model: str) -> list[tuple[float, float, float]]:
    """Write the model, and return the seconds of loading, of ``cat`` and of copying, for each turn."""
    net = caffe.Net(text, caffe.TEST)
    random = np.random.default_rng(0)
    arrays = [blob.data for blobs in net.params.values() for blob in blobs]
    for array in arrays:
        array[...] = random.standard_normal(array.shape, np.float32)
    write_v1(model, net)
    copies = [array.copy() for array in arrays]

    def copy() -> None:
        for array, values in zip(arrays, copies, strict=True):
            np.copyto(array, values)

    def cat() -> None:
        subprocess.run(f"cat {model} > /dev/null", shell=True, check=True)

    cat()
    measured = [(seconds(lambda: net.copy_from(model)), seconds(cat), seconds(copy)) for _ in range(TURNS)]
    assert all(np.array_equal(array, values) for array, values in zip(arrays, copies, strict=True))
    return measured


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        model, text = os.path.join(work, "vgg16.caffemodel"), os.path.join(work, "vgg16.prototxt")
        Path(text).write_text(vgg16())
        measured = turns(text, model)
        size = os.path.getsize(model)
        whole = statistics.median(seconds(lambda: caffe.Net(text, model, caffe.TEST)) for _ in range(5))
        told = subprocess.run([sys.executable, "-c", MEMORY, text, model], check=True, capture_output=True, text=True)
    before, peak, weights = map(int, told.stdout.split())
    load, read, copied = (statistics.median(column) for column in zip(*measured, strict=True))
    ratio = statistics.median(a / (b + c) for a, b, c in measured)
    lines = [
        "# Loading VGG-16",
        "",
        f"`python benchmarks/bench_load.py`: a V1 caffemodel of {size / 1e6:.0f} MB in the page cache; medians of {TURNS} turns.",
        f"{processor()}, 1 thread, PyTorch {torch.__version__}, numpy {np.__version__}.",
        "",
        "| | ms |",
        "| --- | --- |",
        f"| loading it into a net (`net.copy_from`) | {load * 1e3:.0f} |",
        f"| `cat FILE >/dev/null` | {read * 1e3:.0f} |",
        f"| copying its numbers from memory to memory | {copied * 1e3:.0f} |",
        f"| **loading against reading and copying** (goal: ≤ 2) | **{ratio:.2f}** |",
        f"| building the net with it (`caffe.Net(prototxt, caffemodel, TEST)`) | {whole * 1e3:.0f} |",
        "",
        f"Memory: the process had {before / 1024:.0f} MB before `pycaffe_compat.load(prototxt, caffemodel)` and "
        f"{peak / 1024:.0f} MB at its peak, for {weights / 1024:.0f} MB of weights: "
        f"**{(peak - before) / weights:.2f} times the weights** (goal: ≤ 1.3).",
    ]
    report = "\n".join(lines) + "\n"
    print(report)
    (ROOT / "benchmarks" / "load.md").write_text(report)


if __name__ == "__main__":
    main()
