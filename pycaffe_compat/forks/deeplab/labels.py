"""Layers for nets that learn from weak labels, as DeepLab's Caffe has them (xmyqsh/deeplab-v2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims


@register("UniqueLabel", fork=("deeplab", "deeplab_v1", "pspnet"))
class UniqueLabel(Layer):
    """The labels that occur in each image, in order, and those in ``force_label``, padded to ``max_labels`` with -1.

    Labels (N, 1, H, W) make a top (N, ``max_labels``, 1, 1). Source: ``unique_label_layer.cpp``.
    """

    differentiable = (False,)
    traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.unique_label_param, tuple(bottom_shapes[0])
        self.most: int = options.max_labels
        self.ignored = [float(label) for label in options.ignore_label]
        self.forced = [float(label) for label in options.force_label]
        if len(shape) != 4 or shape[1] != 1:
            raise self.error(f"needs labels (num, 1, height, width), not a bottom of shape {dims(shape)}")
        if self.most <= len(set(self.forced)):
            raise self.error(f"unique_label_param.max_labels: {self.most} must be more than the labels in force_label")

    @torch.no_grad()
    def forward(self, label: Tensor) -> Tensor:
        top = label.new_full((label.shape[0], self.most, 1, 1), -1)
        if label.is_meta:
            return top
        for image, out in zip(label.flatten(1), top, strict=True):
            kept = image[~torch.isin(image, image.new_tensor(self.ignored))]
            found = torch.cat([kept, image.new_tensor(self.forced)]).unique()
            if len(found) > self.most:
                raise self.error(
                    f"an image has {len(found)} labels, more than unique_label_param.max_labels: {self.most}"
                )
            out[: len(found), 0, 0] = found
        return top


@register("BiasChannel", fork=("deeplab", "deeplab_v1", "pspnet"))
class BiasChannel(Layer):
    """Adds a bias to the scores of the labels that occur in the image (IMAGE) or at each place (PIXEL).

    Scores (N, C, H, W); labels (N, L, 1, 1), or (N, 1, H, W) with ``label_type: PIXEL``. Of an image the score of class 0
    gets ``bg_bias`` and that of another one ``fg_bias``, as often as it is listed. A place whose label is no
    background gets ``fg_bias`` for its class; all get ``bg_bias`` for the background, if ``background_label`` or ``bg_bias``
    is given. -1 and ``ignore_label`` do not count. Source: ``bias_channel_layer.cpp``.
    """

    bottoms = (2, 2)
    differentiable = (True, False)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.bias_channel_param
        scores, labels = (tuple(shape) for shape in bottom_shapes)
        self.pixel = options.label_type == caffe_pb2.BiasChannelParameter.PIXEL
        wanted = (*scores[:1], 1, *scores[2:]) if self.pixel else (*scores[:1], *labels[1:2], 1, 1)
        if len(scores) != 4 or labels != wanted:
            form = "(num, 1, height, width)" if self.pixel else "(num, labels, 1, 1)"
            raise self.error(
                f"needs scores (num, channels, height, width) and labels {form}, but they have {dims(scores)} and {dims(labels)}"
            )
        self.bg_bias, self.fg_bias = options.bg_bias, options.fg_bias
        if min(self.bg_bias, self.fg_bias) < 0:
            raise self.error(f"bg_bias: {self.bg_bias:g} and fg_bias: {self.fg_bias:g} must not be negative")
        self.background: int | None = 0
        if self.pixel:
            given = options.HasField("background_label") or options.HasField("bg_bias")
            self.background = options.background_label if given else None
            if self.background is not None and not 0 <= self.background < scores[1]:
                raise self.error(f"background_label: {self.background} is not a class: there are {scores[1]}")
        self.ignored = [-1, *options.ignore_label]

    def forward(self, scores: Tensor, label: Tensor) -> Tensor:
        classes = scores.shape[1]
        index = label.detach().long()
        keep = ~torch.isin(index, torch.tensor(self.ignored, device=index.device)) if not index.is_meta else index == 0
        bad = keep & ((index < 0) | (index >= classes))
        traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
        if index.device.type == "cpu" and not traced and bool(bad.any()):
            raise self.error(f"label {int(index[bad][0])} is not a class: there are {classes}, 0 to {classes - 1}")
        index = index.where(keep, 0)
        own = torch.full_like(index, self.fg_bias, dtype=scores.dtype)
        if self.background is not None:
            own = own.masked_fill(index == self.background, 0 if self.pixel else self.bg_bias)
        own = own.where(keep, 0)
        bias = torch.zeros_like(scores) if self.pixel else scores.new_zeros(*scores.shape[:2], 1, 1)
        bias = bias.scatter_add(1, index, own)
        if self.pixel and self.background is not None:
            bias[:, self.background] += torch.where(keep[:, 0], self.bg_bias, 0.0)
        return scores + bias


@register("SpatialProduct", fork=("deeplab", "pspnet"))
class SpatialProduct(Layer):
    """Every channel of (N, C, H, W) times one plane (N, 1, H, W). Source: ``spatial_product_layer.cpp``."""

    bottoms = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        values, plane = (tuple(shape) for shape in bottom_shapes)
        if len(values) != 4 or plane != (values[0], 1, *values[2:]):
            raise self.error(
                "needs bottoms (num, channels, height, width) and (num, 1, height, width), but they have "
                f"{dims(values)} and {dims(plane)}"
            )

    def forward(self, x: Tensor, plane: Tensor) -> Tensor:
        return x * plane
