"""Whether an exported file computes what the net computes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..errors import CaffeError
from ..layers.common import BatchReindex
from ..layers.linear import Embed
from ..layers.recurrent import Recurrent
from ..net import Net
from .outline import Outline

TOLERANCE = 1e-4  # of the range of an output


@dataclass(frozen=True)
class Difference:
    """How far an output of an exported file is from the net's.

    Attributes:
        output: the blob.
        batch: the length of axis 0 of the inputs.
        largest: the largest difference of two elements.
        reach: the largest magnitude of the net's output, or the width of its values if that is greater.
    """

    output: str
    batch: int
    largest: float
    reach: float

    @property
    def relative(self) -> float:
        """The largest difference, as a part of the output's range."""
        return self.largest / self.reach if self.reach else self.largest


def compare_onnx(
    net: Net,
    found: Outline,
    path: str | os.PathLike[str],
    batches: Sequence[Mapping[str, np.ndarray]] = (),
    given: Sequence[Mapping[str, np.ndarray]] | None = None,
) -> list[Difference]:
    """Run an ONNX model in onnxruntime beside its net, and return how far each output is from the net's.

    Args:
        net: what was exported, in the TEST phase.
        found: what :func:`.to_onnx` returned.
        path: the model.
        batches: the inputs to try; none for random ones at two batch sizes.
        given: what the model takes in the place of each, if that is something else, such as pictures.

    Raises:
        CaffeError: onnxruntime is not installed, or refuses the model.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise CaffeError(
            "checking an ONNX model needs onnxruntime: pip install pycaffe_compat[onnx], or --no-verify"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
        tried = list(batches or random_batches(found))
        return [
            each
            for batch, own in zip(tried, given or tried, strict=True)
            for each in differences(net, found, batch, session.run(list(found.outputs), dict(own)))
        ]
    except CaffeError:
        raise
    except Exception as error:  # onnxruntime's errors have no common base of their own
        raise CaffeError(f"{os.fspath(path)}: onnxruntime cannot run it: {error}") from error


def random_batches(found: Outline) -> list[dict[str, np.ndarray]]:
    """Random inputs at the net's own batch size and, where axis 0 may change, at one more."""
    random, rows = np.random.default_rng(0), _indices(found)
    movable = any(0 in value.moving for value in found.inputs.values())
    made = []
    for more in (0, 1) if movable else (0,):
        shapes = {
            name: tuple(n + more if a == 0 and 0 in value.moving else n for a, n in enumerate(value.shape))
            for name, value in found.inputs.items()
        }
        made.append(
            {
                name: (random.integers(0, rows[name], shape) if name in rows else random.standard_normal(shape)).astype(
                    "f4"
                )
                for name, shape in shapes.items()
            }
        )
    return made


def _indices(found: Outline) -> dict[str, int]:
    """The inputs that hold indices, and below what number."""
    rows = {}
    for step in found.steps:
        if isinstance(step.layer, Embed):
            rows[found.values[step.bottom_values[0]].name] = step.layer.rows
        elif isinstance(step.layer, BatchReindex):
            rows[found.values[step.bottom_values[1]].name] = found.values[step.bottom_values[0]].shape[0]
    return rows


def differences(
    net: Net, found: Outline, batch: Mapping[str, np.ndarray], results: Sequence[np.ndarray]
) -> list[Difference]:
    """Hold ``results``, one array for each output, against what the net makes of ``batch``.

    Raises:
        CaffeError: a result has another shape.
    """
    wanted = outputs(net, found, batch)
    size = next((len(array) for array in batch.values() if array.ndim), 1)
    made = []
    for name, have in zip(found.outputs, results, strict=True):
        want = wanted[name]
        if have.shape != want.shape:
            raise CaffeError(f"output {name} has shape {have.shape}, the net's has {want.shape}")
        finite = np.isfinite(want)
        same = np.array_equal(have[~finite], want[~finite], equal_nan=True)
        apart = np.abs(have[finite].astype(np.float64) - want[finite]).max(initial=0) if same else np.inf
        values = want[finite].astype(np.float64)
        reach = max(np.abs(values).max(initial=0), np.ptp(values) if values.size else 0)
        made.append(Difference(name, size, float(apart), float(reach)))
    return made


def outputs(net: Net, found: Outline, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the net itself makes of a batch: the exported outputs, by name."""
    tensors: dict[str, Any] = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in batch.items()}
    for name in net.inputs:  # those that only a part which was left out reads
        if name not in tensors:
            tensors[name] = torch.zeros(net.blob_shapes[name])
    for layer in net.layers.values():
        if isinstance(layer, Recurrent):
            layer.reset()
    with torch.no_grad():
        blobs, _ = net.run({name: value.to(net.device, net.dtype) for name, value in tensors.items()})
    return {name: blobs[name].float().cpu().numpy() for name in found.outputs}
