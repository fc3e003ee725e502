"""Heat maps of realtime pose estimation, and the labels of sequences and pictures."""

from __future__ import annotations

import numpy as np
import torch

from ...forks.deeplab.labels import BiasChannel
from ...forks.rtpose.peaks import REACH, ImResize, Nms
from ...forks.textboxes_plus.ctc_decoder import CTCGreedyDecoder
from ..outline import Value
from ..registry import static, unsaid
from .emitter import FLOAT, INT64, Emitter, emits


@emits(ImResize)
def resize(e: Emitter, layer: ImResize, x: Value) -> str:
    """One row of weights for each row of the top, and likewise for columns, for each item."""
    static(layer, x, 2, 3)
    items = x.shape[0] if layer.gap else 1
    rows, columns = (
        np.stack([_cubic(layer, x.shape[axis], item, e.tops[0].shape[axis]) for item in range(items)])[:, None]
        for axis in (2, 3)
    )
    y = e.op("MatMul", x, e.constant(columns.transpose(0, 1, 3, 2)))
    return str(e.op("ReduceMean", e.op("MatMul", e.constant(rows), y), e.ints(0)))


def _cubic(layer: ImResize, side: int, item: int, target: int) -> np.ndarray:
    """The weights (target, side) of cubic interpolation."""
    places, far = layer.neighbours(side, layer.pad(side, item), target, torch.empty(0))
    t = far.double().numpy()
    shares = (
        -0.5 * t**3 + t**2 - 0.5 * t,
        1.5 * t**3 - 2.5 * t**2 + 1,
        -1.5 * t**3 + 2 * t**2 + 0.5 * t,
        0.5 * t**3 - 0.5 * t**2,
    )
    weights = np.zeros((target, side))
    for place, share in zip(places, shares, strict=True):
        np.add.at(weights, (np.arange(target), place.numpy()), share)
    return weights.astype(np.float32)


@emits(Nms)
def peaks(e: Emitter, layer: Nms, x: Value) -> str:
    static(layer, x, 1, 2, 3)
    (channels, height, width), parts = x.shape[1:], layer.parts
    if min(height, width) < 3 or not layer.most:
        raise unsaid(layer, f"planes of {height} × {width} have no peaks, or none is asked for")
    rows, columns = height - 2, width - 2
    items = e.op("Slice", e.op("Shape", x), e.ints(0), e.ints(1))
    planes = e.op("Reshape", x, e.ints(-1, height, width))
    if parts < channels:  # the fork counts planes from item to item
        planes = e.op("Slice", planes, e.ints(0), e.op("Mul", items, e.ints(parts)), e.ints(0))

    def moved(down: int, right: int) -> str:
        starts = e.ints(1 + down, 1 + right)
        return str(e.op("Slice", planes, starts, e.ints(1 + down + rows, 1 + right + columns), e.ints(1, 2)))

    inner = moved(0, 0)
    peak = e.op("Greater", inner, e.number(layer.threshold))
    for down, right in ((a, b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b):
        peak = e.op("And", peak, e.op("Greater", inner, moved(down, right)))
    peak = e.op("Reshape", e.op("Cast", peak, to=INT64), e.ints(-1, rows * columns))
    count = e.op("Cast", e.op("ReduceSum", peak, e.ints(1)), to=FLOAT)
    most = min(layer.most, rows * columns)
    ranked = e.op("Mul", peak, e.constant(np.arange(rows * columns, 0, -1), np.int64))
    first, place = e.op("TopK", ranked, e.ints(most), outputs=2, axis=1)
    row = e.op("Add", e.op("Div", place, e.ints(columns)), e.ints(1))
    column = e.op("Add", e.op("Mod", place, e.ints(columns)), e.ints(1))

    steps = np.arange(-REACH, REACH + 1)
    ys = e.op("Add", e.op("Unsqueeze", row, e.ints(2, 3)), e.constant(steps.reshape(1, 1, -1, 1), np.int64))
    xs = e.op("Add", e.op("Unsqueeze", column, e.ints(2, 3)), e.constant(steps.reshape(1, 1, 1, -1), np.int64))
    number = e.op("Squeeze", e.op("Slice", e.op("Shape", planes), e.ints(0), e.ints(1)))
    plane = e.op("Range", e.constant(0, np.int64), number, e.constant(1, np.int64))
    lines = e.op("Add", e.op("Mul", e.op("Unsqueeze", plane, e.ints(1, 2, 3)), e.ints(height)), ys)
    at = e.op("Add", e.op("Mul", lines, e.ints(width)), xs)
    size = e.op("Size", x)
    counted = e.op("Less", at, size)
    for each in (ys, xs):  # the fork bounds rows by the width, too
        counted = e.op("And", counted, e.op("Greater", each, e.ints(0)))
        counted = e.op("And", counted, e.op("Less", each, e.ints(width)))
    flat = e.op("Reshape", x, e.ints(-1))
    inside = e.op("Max", e.op("Min", at, e.op("Sub", size, e.ints(1))), e.ints(0))
    scores = e.op("Max", e.op("Where", counted, e.op("Gather", flat, inside, axis=0), e.number(0)), e.number(0))
    total = e.op("ReduceSum", scores, e.ints(2, 3), keepdims=0)
    means = [
        e.op(
            "Div",
            e.op("ReduceSum", e.op("Mul", e.op("Cast", where, to=FLOAT), scores), e.ints(2, 3), keepdims=0),
            total,
        )
        for where in (xs, ys)
    ]
    flat_planes = e.op("Reshape", planes, e.ints(-1, height * width))
    value = e.op("GatherElements", flat_planes, e.op("Add", e.op("Mul", row, e.ints(width)), column), axis=1)
    table = e.op("Concat", *(e.op("Unsqueeze", each, e.ints(2)) for each in (*means, value)), axis=2)
    table = e.op("Where", e.op("Unsqueeze", e.op("Greater", first, e.ints(0)), e.ints(2)), table, e.number(0))
    head = e.op("Pad", e.op("Unsqueeze", count, e.ints(2)), e.ints(0, 0, 0, 0, 0, 2))
    table = e.op("Concat", head, table, axis=1)
    if most < layer.most:
        table = e.op("Pad", table, e.ints(0, 0, 0, 0, layer.most - most, 0))
    return str(e.op("Reshape", table, e.ints(-1, parts, 1 + layer.most, 3)))


@emits(CTCGreedyDecoder)
def best_path(e: Emitter, layer: CTCGreedyDecoder, scores: Value, *others: Value) -> list[str]:
    """Labels are put where they are counted to be; those that are left out, before all others."""
    if layer.judges:
        raise unsaid(layer, "it compares with the true sequences; leave out its third bottom and its last top")
    static(layer, scores, *range(2, len(scores.shape)))
    classes, end = int(np.prod(scores.shape[2:])), e.ints(2**62)
    rows = scores if len(scores.shape) == 3 else e.op("Reshape", scores, e.ints(0, 0, classes))
    best = e.op("ReduceMax", rows, e.ints(2), keepdims=0)
    label = e.op("ArgMax", rows, axis=2, keepdims=0)
    keep = e.op("Not", e.op("Equal", label, e.ints(layer.blank if layer.blank >= 0 else classes - 1)))
    if others:
        going = others[0] if len(others[0].shape) == 2 else e.op("Reshape", others[0], e.ints(0, 0))
        ended = e.op("Equal", e.op("Slice", going, e.ints(1), end, e.ints(0)), e.number(0))
        ended = e.op("Pad", e.op("Cast", ended, to=FLOAT), e.ints(1, 0, 0, 0))
        alive = e.op("Equal", e.op("CumSum", ended, e.constant(0, np.int64)), e.number(0))
        keep = e.op("And", keep, alive)
        best = e.op("Mul", best, e.op("Cast", alive, to=FLOAT))
    if layer.merges:
        before = e.op("Slice", label, e.ints(0), e.ints(-1), e.ints(0))
        before = e.op("Pad", before, e.ints(1, 0, 0, 0), e.constant(-1, np.int64))
        keep = e.op("And", keep, e.op("Not", e.op("Equal", label, before)))
    keep = e.op("Cast", keep, to=INT64)
    place = e.op("Mul", keep, e.op("CumSum", keep, e.constant(0, np.int64)))
    turned = [e.op("Transpose", each, perm=(1, 0)) for each in (place, e.op("Cast", label, to=FLOAT))]
    longer = e.op("Add", e.op("Shape", turned[0]), e.ints(0, 1))
    found = e.op("ScatterElements", e.op("Sub", e.zeros(longer), e.number(1)), *turned, axis=1)
    total = e.op("Neg", e.op("ReduceSum", best, e.ints(0), keepdims=0))
    return [
        str(e.op("Unsqueeze", e.op("Slice", found, e.ints(1), end, e.ints(1)), e.ints(2, 3))),
        str(e.op("Unsqueeze", total, e.ints(1, 2, 3))),
    ][: len(e.tops)]


@emits(BiasChannel)
def bias_channel(e: Emitter, layer: BiasChannel, scores: Value, label: Value) -> str:
    classes, background = scores.shape[1], layer.background
    index = e.op("Cast", label, to=INT64)
    if not layer.pixel:
        index = e.op("Transpose", index, perm=(0, 2, 1, 3))
    keep: object = None
    for ignored in layer.ignored:
        other = e.op("Not", e.op("Equal", index, e.ints(ignored)))
        keep = other if keep is None else e.op("And", keep, other)
    own = e.op("Equal", index, e.constant(np.arange(classes).reshape(1, -1, 1, 1), np.int64))
    biases = np.full((1, classes, 1, 1), layer.fg_bias, np.float32)
    if background is not None:
        biases[:, background] = 0 if layer.pixel else layer.bg_bias
    bias = e.op("Mul", e.op("Cast", e.op("And", own, keep), to=FLOAT), e.constant(biases))
    if not layer.pixel:
        bias = e.op("ReduceSum", bias, e.ints(2))
    elif background is not None:
        everywhere = np.zeros_like(biases)
        everywhere[:, background] = layer.bg_bias
        bias = e.op("Add", bias, e.op("Mul", e.op("Cast", keep, to=FLOAT), e.constant(everywhere)))
    return str(e.op("Add", scores, bias))
