"""ONNX models with numbers of fewer bits, by onnxruntime's tools."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CaffeError
from ..files import atomic_path
from ..packages import require_package

PathLike = str | os.PathLike[str]


def to_float16(path: PathLike, out: PathLike) -> None:
    """Write the model at ``path`` with weights and arithmetic in float16; inputs and outputs stay float32."""
    onnx, float16 = _require("onnx"), _require("onnxruntime.transformers.float16")
    model = float16.convert_float_to_float16(onnx.load(os.fspath(path)), keep_io_types=True)
    with atomic_path(os.fspath(out)) as temporary:
        Path(temporary).write_bytes(model.SerializeToString())


def to_int8(path: PathLike, out: PathLike, batches: Sequence[dict[str, np.ndarray]]) -> None:
    """Write the model at ``path`` with weights and activations in int8 (static quantisation, one scale per channel).

    Args:
        batches: inputs for finding the ranges of activations.

    Raises:
        CaffeError: onnxruntime cannot quantise it, or has no room for its copies.
    """
    onnx, quantization = _require("onnx"), _require("onnxruntime.quantization")

    class Batches(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left: Iterator[dict[str, np.ndarray]] = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    with atomic_path(os.fspath(out)) as temporary:
        try:
            with _quiet():  # a model, not a file: copies would lie beside that one
                model, form = onnx.load(os.fspath(path)), quantization.QuantFormat.QDQ
                quantization.quantize_static(model, temporary, Batches(), quant_format=form, per_channel=True)
        except OSError:
            raise
        except (
            Exception
        ) as error:  # onnxruntime's errors have no common base, and a full disk gives it half a file to read
            raise CaffeError(
                f"{os.fspath(path)}: onnxruntime cannot make it int8: {error} (it needs room for copies of the model in "
                f"{tempfile.gettempdir()})"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, nothing is logged: onnxruntime recommends steps that the exporter has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _require(module: str) -> Any:
    return require_package(module, f"smaller models need onnx and onnxruntime ({module})", "pycaffe_compat[onnx]")
