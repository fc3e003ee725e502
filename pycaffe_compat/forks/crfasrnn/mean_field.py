"""MultiStageMeanfield, as the Caffe of CRF as RNN has it (torrvision/caffe, multi_stage_meanfield.cpp, meanfield_iteration.cpp).

Zheng et al.: *Conditional Random Fields as Recurrent Neural Networks* (ICCV 2015).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import DataError
from ...files import open_text
from ...layers.base import Layer, Shape, untraced
from ...layers.loss import precise
from ...layers.registry import register
from ...tables import dims
from .lattice import Filtered, Lattice, colours, normalized, places

log = logging.getLogger(__name__)


@register("MultiStageMeanfield", fork="crfasrnn")
class MultiStageMeanfield(Layer):
    """Mean-field steps of a dense conditional random field: makes scores agree with those of near and of similar pixels.

    Bottoms: unary scores (N, C, H, W), the scores to begin with, of the same shape, and the image (N, 3, H, W), which gets
    no gradient. Each of ``num_iterations`` steps takes the softmax, filters it by place (``theta_gamma``) and by place and
    colour (``theta_alpha``, ``theta_beta``), weights and mixes the classes by the three blobs, and subtracts the result from
    the unary scores. The blobs, 1×1×C×C, begin with the diagonals in the files ``spatial.par`` and ``bilateral.par`` of the
    working folder, without which the fork does not run; here ``spatial_filter_weight`` and ``bilateral_filter_weight``
    stand in for them. The third begins as the Potts model.
    """

    traceable = False
    inert_options = frozenset(
        {"threshold", "compatibility_mode", "forced_spatial_filter_weight", "forced_bilateral_filter_weight"}
    )
    bottoms = (3, 3)
    differentiable = (True, True, False)
    blobs_declared = ("spatial", "bilateral", "compatibility")
    spatial: Tensor
    bilateral: Tensor
    compatibility: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.multi_stage_meanfield_param
        unary, begin, image = (tuple(shape) for shape in bottom_shapes)
        if len(unary) != 4 or begin != unary or image != (unary[0], 3, *unary[2:]):
            raise self.error(
                "needs scores (num, channels, height, width) twice and an image (num, 3, height, width), but they have "
                f"{dims(unary)}, {dims(begin)} and {dims(image)}"
            )
        self.steps: int = options.num_iterations
        if self.steps < 2:
            raise self.error(f"multi_stage_meanfield_param.num_iterations: {self.steps} must be at least 2")
        self.alpha, self.beta, self.gamma = options.theta_alpha, options.theta_beta, options.theta_gamma
        if min(self.alpha, self.beta, self.gamma) <= 0:
            raise self.error(
                f"theta_alpha: {self.alpha:g}, theta_beta: {self.beta:g} and theta_gamma: {self.gamma:g} must be above 0"
            )
        classes = unary[1]
        for name in ("spatial", "bilateral"):
            self.add_blob(name, (1, 1, classes, classes), self._diagonal(name, classes))
        self.add_blob("compatibility", (1, 1, classes, classes), -torch.eye(classes)[None, None])
        self._near: tuple[Any, Lattice, Tensor] | None = None

    def _diagonal(self, name: str, classes: int) -> Tensor:
        path, field = f"{name}.par", f"{name}_filter_weight"
        if not os.path.exists(path):
            weight = getattr(self.param.multi_stage_meanfield_param, field)
            log.info(
                'layer "%s" (MultiStageMeanfield): there is no %s in the working folder; its filter begins with %s: %g for each '
                "class",
                self.name,
                path,
                field,
                weight,
            )
            return weight * torch.eye(classes)[None, None]
        with open_text(path) as file:
            words = file.read().split()
        try:
            values = [float(word) for word in words[:classes]]
        except ValueError:
            values = []
        if len(values) < classes:
            raise self.error(f"{path} in the working folder must hold a number for each of the {classes} classes")
        return torch.diag(torch.tensor(values))[None, None]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_near": None}

    @untraced
    def forward(self, unary: Tensor, begin: Tensor, image: Tensor) -> Tensor:
        """Return the scores after the last step.

        Raises:
            LayerError: the image is not finite, or the thetas are too small for its size.
        """
        if unary.is_meta:
            return torch.empty_like(unary)
        unary, scores = precise(unary), precise(begin)
        near, near_norm = self._by_place(unary)
        alike = [self._normalized(colours(picture, self.alpha, self.beta)) for picture in image.detach()]
        weights = [blob.reshape(blob.shape[2:]) for blob in (self.spatial, self.bilateral, self.compatibility)]
        for _ in range(self.steps):
            shares = scores.softmax(1).flatten(2).transpose(1, 2)
            passed = [
                weights[0] @ (Filtered.apply(share, near) * near_norm).T
                + weights[1] @ (Filtered.apply(share, lattice) * norm).T
                for share, (lattice, norm) in zip(shares, alike, strict=True)
            ]
            scores = unary - (weights[2] @ torch.stack(passed)).reshape(unary.shape)
        return scores

    def _by_place(self, x: Tensor) -> tuple[Lattice, Tensor]:
        key = (x.shape[2:], x.device)
        if self._near is None or self._near[0] != key:
            self._near = (key, *self._normalized(places(x.shape[2], x.shape[3], self.gamma, x.device)))
        return self._near[1:]

    def _normalized(self, features: Tensor) -> tuple[Lattice, Tensor]:
        try:
            return normalized(features)
        except DataError as error:
            raise self.error(str(error)) from error
