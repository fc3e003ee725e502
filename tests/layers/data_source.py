"""Data layers from text, and the batches that they make."""

from __future__ import annotations

import numpy as np

from pycaffe_compat.layers.data_layers import BatchSource
from pycaffe_compat.layers.making import make_layer
from pycaffe_compat.proto import as_phase, caffe_pb2, parse_text


def build(text: str, phase: str = "TEST", fork: str = "", seed: int = 3) -> BatchSource:
    """The data layer that a ``LayerParameter`` in ``text`` describes."""
    param = parse_text(f'name: "d" {text}', caffe_pb2.LayerParameter)
    param.phase = as_phase(phase)
    layer = make_layer(param, [], fork=fork)
    assert isinstance(layer, BatchSource)
    layer.seed = seed
    return layer


def batch(layer: BatchSource, close: bool = True, fixed: bool = False) -> list[np.ndarray]:
    """The tops of the next batch.

    Args:
        close: end the layer's threads.
        fixed: the tops must have the shapes that the layer foretells.
    """
    tops = [top.clone().numpy() for top in layer()]
    assert not fixed or [top.shape for top in tops] == list(layer.top_shapes())
    if close:
        layer.close()
    return tops


def batches(layer: BatchSource, count: int) -> list[tuple[np.ndarray, ...]]:
    """The tops of the next batches; then the layer's threads end."""
    try:
        return [tuple(batch(layer, close=False)) for _ in range(count)]
    finally:
        layer.close()
