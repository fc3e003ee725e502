"""DataAugmentation, as FlowNet2's Caffe has it (lmb-freiburg/flownet2, data_augmentation_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims

EDGE = 1.05  # how far from the end of a row the fork stops to read
RANDOM = caffe_pb2.RandomGeneratorParameter.DESCRIPTOR.name


@register("DataAugmentation", fork=("flownet2", "liteflownet", "pwcnet"))
class DataAugmentation(Layer):
    """The centres of images (N, C, H, W), cropped to ``crop_height`` × ``crop_width``, minus a mean: only the TEST phase.

    The crop reads between places where the difference of sizes is odd, and never beyond H - 1.05 and W - 1.05, so that the last
    row and column are mixed with those before them. The mean is followed over the first ``recompute_mean`` passes of either
    phase, which the first blob counts: one for each place, or for each channel without ``mean_per_pixel``; or it is ``mean``
    without ``mean_per_pixel``, for three numbers. A second top holds the coefficients of the transformation, all of which
    leave images as they are. Random transformations, which the fork makes in training and with ``augment_during_test``, are an
    error. There is no gradient.
    """

    options = ("augmentation_param", "coeff_schedule_param")
    inert_options = frozenset({"max_multiplier", "write_augmented", "write_mean", "num", "bottomwidth", "bottomheight"})
    tops: ClassVar[tuple[int, int | None]] = (1, 2)
    differentiable = (False,)
    blobs_declared = ("passes", "mean", "channel_mean")
    blobs_optional = frozenset({"mean", "channel_mean"})
    passes: Tensor
    mean: Tensor
    channel_mean: Tensor

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options, shape = param.augmentation_param, bottom_shapes[0]
        if len(shape) != 4:
            raise self.error(f"needs a bottom (N, C, H, W), not of shape {dims(shape)}")
        self.cuts = options.HasField("crop_width") and options.HasField("crop_height")
        self.crop = (options.crop_height, options.crop_width) if self.cuts else shape[2:]
        if self.cuts and not (1 <= self.crop[0] <= shape[2] and 1 <= self.crop[1] <= shape[3]):
            raise self.error(
                f"crop_height: {self.crop[0]} and crop_width: {self.crop[1]} do not fit into {dims(shape[2:])}"
            )
        random = [field.name for field, _ in options.ListFields() if _is_random(field)]
        if random and self.cuts and (param.phase == caffe_pb2.TRAIN or options.augment_during_test):
            raise self.error(
                f"augmentation_param.{random[0]}: random transformations are not supported here; only what the TEST phase "
                "does without augment_during_test"
            )
        self.per_place, self.following = options.mean_per_pixel, options.recompute_mean
        constant = len(options.mean) == 3 and not self.per_place and not self.following
        self.values = list(options.mean) if constant else None
        if self.values is not None and shape[1] != 3:
            raise self.error(f"augmentation_param.mean: 3 numbers do not fit the {shape[1]} channels of its bottom")
        self.coefficients = [float(field.default_value) for field in caffe_pb2.AugmentationCoeff.DESCRIPTOR.fields]
        self.add_blob("passes", (1, 1, 1, 1), trainable=False)
        if self.following:
            self.add_blob("mean", (1, shape[1], *self.crop), trainable=False)
            self.add_blob("channel_mean", (1, shape[1], 1, 1), trainable=False)

    def takes_shape(self, index: int, shape: Shape) -> bool:
        """A mean of images of another size is taken too."""
        return index == 1 and len(shape) == 4 and shape[:2] == tuple(self.blob(index).shape[:2])

    def adapted(self, index: int, stored: Tensor) -> Tensor:
        return stored.mean((2, 3), keepdim=True).expand(self.blob(index).shape)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the images (N, C, H', W'), and with a second top (N, 42, 1, 1)."""
        x = x.detach()
        y = self._cut(x) if self.cuts else x.clone()
        if not x.is_meta:
            self.passes += 1
            if self.following:
                self._follow(y)
                y = y - (self.mean if self.per_place else self.channel_mean).to(y.dtype)
        if self.values is not None:
            y = y - y.new_tensor(self.values)[:, None, None]
        if self.n_tops == 1:
            return y
        return y, x.new_tensor(self.coefficients).expand(x.shape[0], -1)[:, :, None, None].contiguous()

    def _follow(self, y: Tensor) -> None:
        """Let the means follow a batch, as long as they do."""
        passes = self.passes.flatten()[0]
        mean = (self.mean * (passes - 1) + y.mean(0, keepdim=True).to(self.mean)) / passes
        goes_on = passes <= self.following
        self.mean.copy_(torch.where(goes_on, mean, self.mean))
        self.channel_mean.copy_(torch.where(goes_on, mean.mean((2, 3), keepdim=True), self.channel_mean))

    def _cut(self, x: Tensor) -> Tensor:
        for axis, new in zip((2, 3), self.crop, strict=True):
            low, high, part = self._between(x.shape[axis], new, x.device)
            part = part.to(x.dtype).view(-1, *(1,) * (3 - axis))
            x = (1 - part) * x.index_select(axis, low) + part * x.index_select(axis, high)
        return x

    @staticmethod
    def _between(side: int, new: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The two places on a side that each place of the crop is between, and how far it is from the first."""
        place = torch.arange(new, device=device, dtype=torch.float32) + (side - new) / 2
        place = place.clamp(0, max(side - EDGE, 0))
        low = place.floor().long()
        return low, (low + 1).clamp(max=side - 1), place - low

    def weights(self, sides: Sequence[int]) -> list[Tensor]:
        """How much each place of the planes gives to each row, and to each column, of the crop."""
        made = []
        for side, new in zip(sides, self.crop, strict=True):
            low, high, part = self._between(side, new, torch.device("cpu"))
            one = torch.eye(side)
            made.append((1 - part)[:, None] * one[low] + part[:, None] * one[high])
        return made

    @property
    def settled(self) -> bool:
        """Whether the mean follows no pass any more."""
        return not self.following or bool(self.passes.flatten()[0] >= self.following)

    def subtracted(self) -> Tensor | None:
        """What is subtracted from the crop once the mean is settled, (1, C, H', W') or (1, C, 1, 1); None for nothing."""
        if self.following:
            return self.mean if self.per_place else self.channel_mean
        return None if self.values is None else torch.tensor(self.values).view(1, -1, 1, 1)


def _is_random(field: Any) -> bool:
    return field.message_type is not None and field.message_type.name == RANDOM
