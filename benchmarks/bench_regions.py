#!/usr/bin/env python
"""The cost of the layers of Faster R-CNN and R-FCN for VGG-16's map of a 600×800 picture; writes benchmarks/regions.md.

Usage: python benchmarks/bench_regions.py

Regions are random. The reference is the forks' loop, in C++ with the largest place of every bin as the forks' training needs
it, compiled with ``c++ -O2``. CPU time of one thread, the least of several passes.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_face import processor
from torch import Tensor

from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

CHANNELS, HEIGHT, WIDTH, BINS, PASSES = 512, 38, 50, 7, 7
LOOP = """
#include <cfloat>
#include <cmath>
#include <algorithm>
extern "C" void pool(const float* x, const float* rois, int n, int channels, int height, int width, int bins, float scale,
                     float* y, int* at) {
  for (int r = 0; r < n; r++, rois += 5) {
    int x1 = std::round(rois[1] * scale), y1 = std::round(rois[2] * scale);
    float h = std::max<int>(std::round(rois[4] * scale) - y1 + 1, 1) / (float)bins;
    float w = std::max<int>(std::round(rois[3] * scale) - x1 + 1, 1) / (float)bins;
    for (int c = 0; c < channels; c++)
      for (int i = 0; i < bins; i++)
        for (int j = 0; j < bins; j++, y++, at++) {
          int top = std::min(std::max((int)std::floor(i * h) + y1, 0), height);
          int left = std::min(std::max((int)std::floor(j * w) + x1, 0), width);
          int bottom = std::min(std::max((int)std::ceil((i + 1) * h) + y1, 0), height);
          int right = std::min(std::max((int)std::ceil((j + 1) * w) + x1, 0), width);
          *y = bottom <= top || right <= left ? 0 : -FLT_MAX, *at = -1;
          for (int a = top; a < bottom; a++)
            for (int b = left; b < right; b++)
              if (x[(c * height + a) * width + b] > *y) *at = a * width + b, *y = x[(c * height + a) * width + b];
        }
  }
}
"""
NET = """
input: "x" input_shape {{ dim: 1 dim: {channels} dim: 38 dim: 50 }} input: "rois" input_shape {{ dim: {regions} dim: 5 }}
layer {{ name: "y" type: "{kind}" bottom: "x" bottom: "rois" top: "y" {options} }}
"""
ROI = "roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 }"
PSROI = "psroi_pooling_param { output_dim: 21 group_size: 7 spatial_scale: 0.0625 }"
PROPOSAL = """
input: "scores" input_shape { dim: 1 dim: 18 dim: 38 dim: 50 } input: "shifts" input_shape { dim: 1 dim: 36 dim: 38 dim: 50 }
input: "size" input_shape { dim: 1 dim: 4 }
layer { name: "y" type: "Proposal" bottom: "scores" bottom: "shifts" bottom: "size" top: "y" proposal_param {
  ratio: 0.5 ratio: 1 ratio: 2 scale: 128 scale: 256 scale: 512 } }
"""


def regions(number: int) -> Tensor:
    """Random regions (number, 5) of a 600×800 picture."""
    low = torch.rand(number, 2) * torch.tensor((700, 500))
    high = low + torch.rand(number, 2) * (torch.tensor((799, 599)) - low)
    return torch.cat((torch.zeros(number, 1), low, high), 1)


def least(function: Callable[[], object]) -> float:
    """Milliseconds of the quickest of several calls."""
    times = []
    for _ in range(PASSES):
        start = time.thread_time()
        function()
        times.append(time.thread_time() - start)
    return 1000 * min(times)


def reference(x: Tensor, rois: Tensor) -> Callable[[], object]:
    """The forks' loop over the cells of every bin."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "loop.cpp"), Path(folder, "loop.so")
        source.write_text(LOOP)
        subprocess.run(["c++", "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        loop = ctypes.CDLL(str(library))
    y = np.zeros((len(rois), CHANNELS, BINS, BINS), np.float32)
    at = np.zeros(y.shape, np.int32)
    where = [ctypes.c_void_p(pointer) for pointer in (x.data_ptr(), rois.data_ptr(), y.ctypes.data, at.ctypes.data)]
    sizes = [ctypes.c_int(size) for size in (len(rois), CHANNELS, HEIGHT, WIDTH, BINS)]
    return lambda: (loop.pool(where[0], where[1], *sizes, ctypes.c_float(1 / 16), where[2], where[3]), y, at, x, rois)


def layer(text: str) -> torch.nn.Module:
    """The layer "y" of a net."""
    return Net(parse_text(text, caffe_pb2.NetParameter), "TRAIN").layers["y"]


def rows() -> list[str]:
    """The rows of the table."""
    made = []
    for number in (16, 128, 300, 2000):
        x, rois = torch.randn(1, CHANNELS, HEIGHT, WIDTH), regions(number)
        pool = layer(NET.format(channels=CHANNELS, regions=number, kind="ROIPooling", options=ROI))
        forked = least(reference(x, rois))
        with torch.no_grad():
            forward = least(lambda: pool(x, rois))  # noqa: B023
        x.requires_grad_()
        training = least(lambda: pool(x, rois))  # noqa: B023
        both = least(lambda: pool(x, rois).sum().backward())  # noqa: B023
        made.append(f"| ROIPooling, {number} regions | {forked:.0f} | {forward:.0f} | {training:.0f} | {both:.0f} |")
    x, rois = torch.randn(1, 21 * 49, HEIGHT, WIDTH, requires_grad=True), regions(300)
    pool = layer(NET.format(channels=21 * 49, regions=300, kind="PSROIPooling", options=PSROI))
    with torch.no_grad():
        forward = least(lambda: pool(x, rois))
    training, both = least(lambda: pool(x, rois)), least(lambda: pool(x, rois).sum().backward())
    made.append(f"| PSROIPooling, 21 classes, 300 regions | – | {forward:.0f} | {training:.0f} | {both:.0f} |")
    propose = layer(PROPOSAL)
    scores, shifts, size = torch.rand(1, 18, HEIGHT, WIDTH), torch.randn(1, 36, HEIGHT, WIDTH) / 4, [[600.0, 800, 1, 1]]
    forward = least(lambda: propose(scores, shifts, torch.tensor(size)))
    made.append(f"| Proposal, 300 of 17,100 boxes | – | {forward:.0f} | – | – |")
    return made


def main() -> None:
    """Measure all cases and write the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    table = [
        "# Layers of regions, for VGG-16's map of a 600×800 picture",
        "",
        f"{processor()}, PyTorch {torch.__version__}, one thread; `bench_regions.py`. CPU time in ms, the least of {PASSES}.",
        "",
        "| layer | the forks' loop | forward | forward in training | and backward |",
        "| --- | --- | --- | --- | --- |",
        *rows(),
    ]
    print("\n".join(table))
    Path(__file__).with_name("regions.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
