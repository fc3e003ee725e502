"""DataAugmentation, as FlowNet2's Caffe has it (lmb-freiburg/flownet2, data_augmentation_layer.cpp and .cu)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...errors import LayerError
from ...layers.base import Layer, Shape, count, untraced
from ...layers.registry import register
from ...proto import caffe_pb2
from ...tables import dims
from .coefficients import NAMES, NEAR, PLACES, Draws, Schedule, logarithms, matrices, moved, values
from .colours import CHROMATIC, EIGEN, along_eigenvectors, differ, effects_count, shaded, toned

EDGE = 1.05  # how far from the end of a row the fork stops to read


@register("DataAugmentation", fork=("flownet2", "liteflownet", "pwcnet"))
class DataAugmentation(Layer):
    """Images (N, C, H, W) cropped to ``crop_height`` × ``crop_width``, at the centre or by random transformations, minus a mean.

    In training, or with ``augment_during_test``, a transformation is drawn for each image: mirrored, turned, moved and enlarged
    so that it stays inside; then colours along ``chromatic_eigvec``, gamma and the like, a shadow, and noise, each where
    its options are given. A second bottom holds coefficients of transformations instead, and a second top (N, 42, 1, 1)
    those that were used: zeros leave images as they are. Without a crop nothing is transformed. Values between two pixels are
    interpolated, never beyond H - 1.05 and W - 1.05, so that the last row and column are mixed with those before them.

    The mean is followed over the first ``recompute_mean`` passes of either phase, which the first blob counts: one for each
    place, or for each channel without ``mean_per_pixel``; or it is ``mean`` without ``mean_per_pixel``, for three numbers. There
    is no gradient. Fog and blur are drawn, but not made, as in the fork.
    """

    options = ("augmentation_param", "coeff_schedule_param")
    inert_options = frozenset({"write_augmented", "write_mean", "num", "bottomwidth", "bottomheight", "mode"})
    bottoms = (1, 2)
    tops: ClassVar[tuple[int, int | None]] = (1, 2)
    differentiable = (False,)
    random = True
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
        self.given = len(bottom_shapes) > 1
        if self.given:
            check_coefficients(self, bottom_shapes[1], shape[0])
        self.draws = Draws(self, options)
        active = self.cuts and not self.given and (param.phase == caffe_pb2.TRAIN or options.augment_during_test)
        self.drawing = active and bool(self.draws)
        self.schedule = Schedule(param.coeff_schedule_param)
        self.most = options.max_multiplier
        self.vectors = list(options.chromatic_eigvec)
        if self.drawing:
            self._check_draws(shape[1])
        self.following = options.recompute_mean
        self.per_place = options.mean_per_pixel
        constant = len(options.mean) == 3 and not self.per_place and not self.following
        self.values = list(options.mean) if constant else None
        if self.values is not None and shape[1] != 3:
            raise self.error(f"augmentation_param.mean: 3 numbers do not fit the {shape[1]} channels of its bottom")
        self.add_blob("passes", (1, 1, 1, 1), trainable=False)
        if self.following:
            self.add_blob("mean", (1, shape[1], *self.crop), trainable=False)
            self.add_blob("channel_mean", (1, shape[1], 1, 1), trainable=False)

    def _check_draws(self, channels: int) -> None:
        """Raise for what the fork cannot draw."""
        if self.draws.spatial and min(self.crop) < 2:
            raise self.error(
                f"crop_height: {self.crop[0]} and crop_width: {self.crop[1]} must be at least 2 to draw transformations"
            )
        if (self.draws.colours or self.draws.eigen or self.draws.effects) and channels != 3:
            raise self.error(f"augmentation_param changes colours, which takes 3 channels; its bottom has {channels}")
        if self.draws.eigen and len(self.vectors) != 9:
            raise self.error(
                f"augmentation_param.chromatic_eigvec: has {len(self.vectors)} numbers; changes along eigenvectors take 9"
            )

    def takes_shape(self, index: int, shape: Shape) -> bool:
        """A mean of images of another size is taken too."""
        return index == 1 and len(shape) == 4 and shape[:2] == tuple(self.blob(index).shape[:2])

    def adapted(self, index: int, stored: Tensor) -> Tensor:
        return stored.mean((2, 3), keepdim=True).expand(self.blob(index).shape)

    def forward(self, x: Tensor, given: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return the images (N, C, H', W'), and with a second top the coefficients (N, 42, 1, 1)."""
        x = x.detach()
        if x.is_meta:
            y = x.new_empty((*x.shape[:2], *self.crop))
            coefficients = x.new_empty((len(x), len(NAMES)))
        else:
            self.passes += 1
            coefficients = self._coefficients(x, given)
            if self.transforms:
                y = self._transformed(x, coefficients)
            else:
                y = self._cut(x) if self.cuts else x.clone()
            if self.following:
                self._follow(y)
                y = y - (self.mean if self.per_place else self.channel_mean).to(y.dtype)
            if self.values is not None:
                y = y - y.new_tensor(self.values)[:, None, None]
        return y if self.n_tops == 1 else (y, coefficients[:, :, None, None])

    def _coefficients(self, x: Tensor, given: Tensor | None) -> Tensor:
        """The coefficients (N, 42) of a pass: not in half precision, in which places would be wrong by pixels."""
        kind = torch.promote_types(x.dtype, torch.float32)
        if given is not None:
            return given.detach().to(kind).reshape(x.shape[0], -1)
        drawn = x.new_zeros((x.shape[0], len(NAMES)), dtype=kind)  # a trace follows shape, but fixes len()
        if self.drawing:
            discount = self.schedule(self.passes.flatten()[0])
            if self.draws.spatial:
                drawn = self.draws.moves(drawn, discount, x.shape[2:], self.crop)
            for name, value in logarithms(self.draws.changes(len(x), discount)).items():
                drawn[:, PLACES[name]] = value
        return drawn

    @untraced
    def _transformed(self, x: Tensor, coefficients: Tensor) -> Tensor:
        of = values(coefficients, NEAR)
        y = sampled(x, *moved(matrices(of, self.crop, x.shape[2:]), *grid(self.crop, coefficients)))

        def along_vectors(y: Tensor) -> Tensor:
            return along_eigenvectors(y, x, of, y.new_tensor(self.vectors).view(3, 3), self.most)

        changes: list[tuple[bool, Tensor, Callable[[Tensor], Tensor]]] = [
            (self.draws.eigen, differ(of, EIGEN), along_vectors),
            (self.draws.colours, differ(of, CHROMATIC), lambda y: toned(y, of, self.most)),
            (self.draws.effects, effects_count(of), lambda y: shaded(y, of, self.most)),
        ]
        for drawn, needed, change in changes:
            if not (drawn or self.given):
                continue
            three = x.shape[1] == 3
            if not three or (change is along_vectors and len(self.vectors) != 9):
                if needed:
                    raise self._unfit(x.shape[1])
            elif x.is_cuda:  # to ask whether it is needed would wait for the GPU
                y = torch.where(needed, change(y), y)
            elif needed:
                y = change(y)
        return y

    def _unfit(self, channels: int) -> LayerError:
        """Return (for the caller to raise) an error about coefficients that cannot be followed."""
        if channels != 3:
            return self.error(f"the coefficients change colours, which takes 3 channels; its bottom has {channels}")
        return self.error(
            f"augmentation_param.chromatic_eigvec: has {len(self.vectors)} numbers, but the coefficients ask for changes along "
            "eigenvectors, which take 9"
        )

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
    def transforms(self) -> bool:
        """Whether it does more than cut: draw transformations, or take them."""
        return self.cuts and (self.drawing or self.given)

    @property
    def settled(self) -> bool:
        """Whether the mean follows no pass any more."""
        return not self.following or bool(self.passes.flatten()[0] >= self.following)

    def subtracted(self) -> Tensor | None:
        """What is subtracted from the crop once the mean is settled, (1, C, H', W') or (1, C, 1, 1); None for nothing."""
        if self.following:
            return self.mean if self.per_place else self.channel_mean
        return None if self.values is None else torch.tensor(self.values).view(1, -1, 1, 1)


def check_coefficients(layer: Layer, shape: Shape, images: int) -> None:
    """Raise a ``LayerError`` unless a bottom of this shape holds coefficients for so many images."""
    if count(shape) != images * len(NAMES) or shape[0] != images:
        raise layer.error(
            f"its coefficients have shape {dims(shape)}; for {images} images they are {dims((images, len(NAMES), 1, 1))}"
        )


def grid(size: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of the places of a plane of this size, (1, 1, W) and (1, H, 1)."""
    x = torch.arange(size[1], device=like.device, dtype=like.dtype)
    y = torch.arange(size[0], device=like.device, dtype=like.dtype)
    return x.view(1, 1, -1), y.view(1, -1, 1)


def sampled(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Images (N, C, H, W) at places (N, H', W'), between which values are interpolated; what is not a number lies at the end."""
    height, width = image.shape[2:]
    # fmin and fmax leave NaN out, as C's do in the fork
    x = torch.fmax(torch.fmin(x, x.new_tensor(width - EDGE)), x.new_zeros(()))
    y = torch.fmax(torch.fmin(y, y.new_tensor(height - EDGE)), y.new_zeros(()))
    left, top = x.floor(), y.floor()
    a, b = (x - left)[:, None].to(image.dtype), (y - top)[:, None].to(image.dtype)
    at = (top.long() * width + left.long()).flatten(1)[:, None]
    right, down = int(width > 1), width * int(height > 1)
    planes = image.flatten(2)

    def values_at(offset: int) -> Tensor:
        places = (at + offset).expand(-1, image.shape[1], -1)
        return planes.gather(2, places).view(*image.shape[:2], *x.shape[1:])

    return (
        (1 - a) * (1 - b) * values_at(0)
        + a * b * values_at(right + down)
        + (1 - a) * b * values_at(down)
        + a * (1 - b) * values_at(right)
    )
