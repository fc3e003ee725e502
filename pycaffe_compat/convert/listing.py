"""Trained weights as a table."""

from __future__ import annotations

import numpy as np

from ..tables import dims, format_table
from .model import Model


def list_model(model: Model) -> str:
    """Return a table of every blob: its layer, type, name, shape, kind of number, and range."""
    types = {layer.name: layer.type for layer in model.skeleton.layer}
    rows = []
    for layer, arrays in model.blobs.items():
        for name, array in zip(model.names[layer], arrays, strict=True):
            if array.size:
                with np.errstate(invalid="ignore"):
                    numbers = [f"{value:.5g}" for value in (array.min(), array.max(), array.mean(dtype=np.float64))]
                bad = array.size - int(np.isfinite(array).sum())
            else:
                numbers, bad = ["", "", ""], 0
            note = f"{bad} not finite" if bad else ""
            rows.append((layer, types.get(layer, ""), name, dims(array.shape), str(array.dtype), *numbers, note))
    head = ("layer", "type", "blob", "shape", "numbers", "min", "max", "mean", "")
    blobs = sum(map(len, model.blobs.values()))
    total = f"{len(model.blobs)} layers, {blobs} blobs, {model.numbers:,} numbers"
    return f"{format_table(head, rows, right=(5, 6, 7))}\n\n{total}"
