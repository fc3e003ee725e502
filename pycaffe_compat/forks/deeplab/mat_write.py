"""MatWrite, as DeepLab's Caffe has it (xmyqsh/deeplab-v2, mat_write_layer.cpp and util/matio_io.cpp)."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ...errors import CaffeError, require_file
from ...files import atomic_path, open_text
from ...layers.base import Layer, Shape, untraced
from ...layers.output import host_values
from ...layers.registry import register
from ...packages import require_package
from ...tables import dims


@register("MatWrite", fork=("deeplab", "deeplab_v1", "pspnet"))
class MatWrite(Layer):
    """Writes its bottoms to MATLAB files, as ``data`` of width × height × channels × num; needs scipy.

    The files of a pass are ``prefix``, then a word of the list ``source`` without its last ``strip`` letters, or ``iter_``
    and the number of the pass, then ``_blob_`` and the number of the bottom. Only every ``period``-th pass is written, with
    its own number. Missing folders are made.
    """

    head = True
    bottoms = (1, None)
    tops = (0, 0)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.mat_write_param
        self.prefix: str = options.prefix
        self.period: int = options.period
        if self.period < 1:
            raise self.error(f"mat_write_param.period: {self.period} must be at least 1")
        for shape in bottom_shapes:
            if len(shape) > 4:
                raise self.error(f"writes blobs of at most 4 axes, not of shape {dims(shape)}")
        self.passes = 0

    @functools.cached_property
    def names(self) -> list[str] | None:
        """The names of the passes, if a list gives them. A net that is only looked at needs no list.

        Raises:
            MissingFileError, LayerError: the list is missing, or ``strip`` leaves nothing of a name.
        """
        options = self.param.mat_write_param
        if not options.HasField("source"):
            return None
        path = require_file(options.source, f'mat_write_param.source of layer "{self.name}"')
        with open_text(path) as file:
            words = [line.split()[0] for line in file if line.split()]
        short = next((word for word in words if len(word) <= options.strip), None)
        if options.strip < 0 or short is not None:
            raise self.error(
                f"mat_write_param.strip: {options.strip} leaves nothing of {short or 'any name'} in {path}"
            )
        return [word[: len(word) - options.strip] for word in words]

    def state(self) -> dict[str, Any]:
        return {"passes": self.passes}

    def seek(self, state: dict[str, Any]) -> None:
        self.passes = state["passes"]

    @untraced
    def forward(self, *bottoms: Tensor) -> tuple[()]:
        """Write the bottoms; there are no tops.

        Raises:
            LayerError: the list has no more names, or names that are too short.
            MissingFileError: there is no such list.
            CaffeError: scipy is missing, or a file cannot be written.
        """
        if bottoms[0].is_meta:
            return ()
        if self.passes % self.period == 0:
            stem = f"iter_{self.passes}"
            if self.names is not None:
                if self.passes >= len(self.names):
                    raise self.error(
                        f"pass {self.passes + 1} has no name: mat_write_param.source has {len(self.names)}"
                    )
                stem = self.names[self.passes]
            for i, bottom in enumerate(bottoms):
                self._write(f"{self.prefix}{stem}_blob_{i}.mat", host_values(bottom))
        self.passes += 1
        return ()

    def _write(self, path: str, values: np.ndarray) -> None:
        matlab = require_package(
            "scipy.io", f'layer "{self.name}" (MatWrite): MATLAB files need the package scipy', "pycaffe_compat[mat]"
        )
        try:
            os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        except (OSError, ValueError) as error:
            raise CaffeError(f'layer "{self.name}" (MatWrite): cannot make the folder of {path}: {error}') from error
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            matlab.savemat(
                file, {"data": values.reshape(values.shape + (1,) * (4 - values.ndim)).transpose(3, 2, 1, 0)}
            )
