"""FLOWriter, as FlowNet2's Caffe has it (lmb-freiburg/flownet2, flowriter_layer.cpp)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from ...errors import CaffeError
from ...files import atomic_path
from ...layers.base import Layer, Shape, untraced
from ...layers.output import host_values
from ...layers.registry import register
from ...tables import dims

TAG = np.float32(202021.25)  # "PIEH", what a .flo file begins with


@register("FLOWriter", fork=("flownet2", "liteflownet", "pwcnet"))
class FlowWriter(Layer):
    """Writes flows (N, 2, H, W) as .flo files: to ``file``, or one each into ``folder``, which is created if missing.

    Their names are ``prefix``, the number of the pass in seven digits, from 0, with several flows that of the flow in
    brackets, and ``suffix``. ``scale`` and ``normalize`` are read by nothing.
    """

    options = ("writer_param",)
    inert_options = frozenset({"scale", "normalize"})
    head = True
    tops: ClassVar[tuple[int, int | None]] = (0, 0)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.writer_param
        self.file = options.file if options.HasField("file") else ""
        self.folder, self.prefix, self.suffix = options.folder, options.prefix, options.suffix
        self.passes = 0
        shape = bottom_shapes[0]
        if len(shape) != 4 or shape[1] != 2:
            raise self.error(f"needs flows (N, 2, H, W), not a bottom of shape {dims(shape)}")

    @untraced
    def forward(self, x: Tensor) -> tuple[()]:
        """Write a batch; there are no tops.

        Raises:
            CaffeError: a file cannot be written.
        """
        if x.is_meta:
            return ()
        flows = host_values(x)
        for index, flow in enumerate(flows):
            item = f"({index:03d})" if len(flows) > 1 else ""
            name = f"{self.prefix}{self.passes:07d}{item}{self.suffix}.flo"
            self._write(self.file or os.path.join(self.folder, name), flow)
        self.passes += 1
        return ()

    def _write(self, path: str, flow: np.ndarray) -> None:
        height, width = flow.shape[1:]
        head = TAG.tobytes() + np.array([width, height], "<i4").tobytes()
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
            with atomic_path(path) as temporary, open(temporary, "wb") as file:
                file.write(head + np.ascontiguousarray(flow.transpose(1, 2, 0), "<f4").tobytes())
        except OSError as error:
            raise CaffeError(
                f'layer "{self.name}" ({self.type_name}): cannot write {path}: {error.strerror}'
            ) from error
