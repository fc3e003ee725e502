#!/usr/bin/env python
"""The cost of SSD-300's DetectionOutput: a batch of 8, 8,732 priors, 21 classes; writes benchmarks/detection.md.

Usage: python benchmarks/bench_detection.py

Codes are random, scores the softmax of random numbers, with and without a lead for the background. Wall time, the least of
several passes, on one thread.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from bench_face import processor

from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

IMAGES, CLASSES, PASSES = 8, 21, 9
# planes of SSD-300: edge, min_size, max_size, step, further aspect ratios
PLANES = (
    *((38, 30, 60, 8, (2,)), (19, 60, 111, 16, (2, 3)), (10, 111, 162, 32, (2, 3))),
    *((5, 162, 213, 64, (2, 3)), (3, 213, 264, 100, (2,)), (1, 264, 315, 300, (2,))),
)
DEPLOY = "confidence_threshold: 0.01 keep_top_k: 200 nms_param { nms_threshold: 0.45 top_k: 400 }"
CASES = (  # what it is, the background's lead, options
    ("as a trained net's: 1 in 1,000", 9, DEPLOY),
    ("1 in 7", 7, DEPLOY),
    ("all", 0, DEPLOY),
    ("1 in 7, without top_k", 7, DEPLOY.replace("top_k: 400", "")),
    ("1 in 7, without top_k and keep_top_k", 7, "confidence_threshold: 0.01 nms_param { nms_threshold: 0.45 }"),
)


def build(options: str) -> Net:
    """A net that takes codes and scores."""
    number = sum(edge * edge * (2 + 2 * len(ratios)) for edge, *_, ratios in PLANES)
    text = f"""input: "picture" input_shape {{ dim: {IMAGES} dim: 3 dim: 300 dim: 300 }}
input: "loc" input_shape {{ dim: {IMAGES} dim: {number * 4} }}
input: "conf" input_shape {{ dim: {IMAGES} dim: {number * CLASSES} }}"""
    for edge, least, most, step, ratios in PLANES:
        text += f"""
input: "x{edge}" input_shape {{ dim: 1 dim: 1 dim: {edge} dim: {edge} }}
layer {{ name: "p{edge}" type: "PriorBox" bottom: "x{edge}" bottom: "picture" top: "p{edge}" prior_box_param {{
  min_size: {least} max_size: {most} step: {step} {" ".join(f"aspect_ratio: {ratio}" for ratio in ratios)}
  variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 }} }}"""
    bottoms = " ".join(f'bottom: "p{edge}"' for edge, *_ in PLANES)
    text += f"""
layer {{ name: "prior" type: "Concat" {bottoms} top: "prior" concat_param {{ axis: 2 }} }}
layer {{ name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "prior" top: "found"
  detection_output_param {{ num_classes: {CLASSES} code_type: CENTER_SIZE {options} }} }}"""
    return Net(parse_text(text, caffe_pb2.NetParameter), "TEST")


def measure(lead: float, options: str) -> tuple[float, int]:
    """Milliseconds a batch, and the number of detections."""
    torch.manual_seed(0)
    net = build(options)
    shapes = net.blob_shapes
    loc = torch.randn(shapes["loc"])
    spread = 1.0 if lead in (0, 9) else 2.0
    logits = spread * torch.randn(IMAGES, shapes["conf"][1] // CLASSES, CLASSES)
    logits[..., 0] += lead
    conf = logits.softmax(-1).flatten(1)
    prior = net.run({name: torch.zeros(shapes[name]) for name in net.inputs})[0]["prior"]
    layer = net.layers["found"]
    times = []
    for _ in range(PASSES):
        start = time.perf_counter()
        found = layer(loc, conf, prior)
        times.append(time.perf_counter() - start)
    return 1000 * min(times), found.shape[2]


def main() -> None:
    """Measure all cases and write the table."""
    torch.set_num_threads(1)
    rows = []
    for words, lead, options in CASES:
        took, number = measure(lead, options)
        rows.append(f"| {words} | {number:,} | {took:.0f} |")
        print(rows[-1], flush=True)
    table = [
        f"# DetectionOutput of SSD-300, batch {IMAGES}",
        "",
        f"{processor()}, PyTorch {torch.__version__}, one thread; `bench_detection.py`. Wall time, the least of {PASSES}.",
        "",
        "| scores above the threshold | detections | ms |",
        "| --- | --- | --- |",
        *rows,
    ]
    Path(__file__).with_name("detection.md").write_text("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
