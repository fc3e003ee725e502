"""Spatial transformers and their losses.

Sources: daerduoCarey/SpatialTransformerLayer, st_layer.cu, st_loss_layer.cu and loc_loss_layer.cu.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.loss import LossLayer
from ...layers.registry import register
from ...tables import dims

FIXED = tuple(f"theta_{row}_{column}" for row in (1, 2) for column in (1, 2, 3))


def _targets(plane: tuple[int, int], like: Tensor) -> Tensor:
    """Row, column and 1 of each place of the top, from -1 on; the last is a step below 1: (height * width, 3)."""
    sides = [torch.arange(n, device=like.device, dtype=torch.float64) / n * 2 - 1 for n in plane]
    one = torch.ones(1, device=like.device, dtype=torch.float64)
    return torch.cartesian_prod(*sides, one).to(like)


@register("SpatialTransformer", fork="stn")
class SpatialTransformer(Layer):
    """Images (N, C, H, W) resampled by affine transformations (N, 6, …) (Jaderberg et al., 2015).

    A place of the top, ``(r, c)`` from -1 to 1, reads the bottom at ``theta_1 · (r, c, 1)`` of the height and
    ``theta_2 · (r, c, 1)`` of the width, between four places, beyond which there are zeros. The options ``theta_1_1`` …
    ``theta_2_3`` fix coefficients, which the second bottom then leaves out. With ``to_compute_dU: false`` the images get no
    gradient.
    """

    options = ("st_param",)
    bottoms: ClassVar[tuple[int, int | None]] = (2, 2)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.st_param
        images, theta = bottom_shapes
        if options.transform_type != "affine" or options.sampler_type != "bilinear":
            raise self.error(
                f'st_param: transform_type: "{options.transform_type}" and sampler_type: "{options.sampler_type}"; '
                'the only ones are "affine" and "bilinear"'
            )
        if len(images) != 4:
            raise self.error(f"needs images (N, C, H, W), not a bottom of shape {dims(images)}")
        self.fixed = [getattr(options, name) if options.HasField(name) else None for name in FIXED]
        self.check_coefficients(images, theta)
        height, width = images[2:]
        self.plane = (
            options.output_H if options.HasField("output_H") else height,
            options.output_W if options.HasField("output_W") else width,
        )
        if min(self.plane) < 1:
            raise self.error(f"output_H: {self.plane[0]} and output_W: {self.plane[1]} must be at least 1")
        self.reaches_images = options.to_compute_dU

    def check_coefficients(self, images: Shape, theta: Shape) -> None:
        """Check that there are as many coefficients for each image as are not fixed.

        Raises:
            LayerError: there are not.
        """
        free = self.fixed.count(None)
        if theta[:1] != images[:1] or count(theta, 1) != free:
            raise self.error(
                f"needs {free} coefficients for each of {images[0]} images, as {6 - free} of 6 are fixed, "
                f"not a second bottom of shape {dims(theta)}"
            )

    def forward(self, images: Tensor, theta: Tensor) -> Tensor:
        """Return (N, C, output_H, output_W)."""
        self.check_coefficients(images.shape, theta.shape)
        height, width = images.shape[2:]
        images = images if self.reaches_images else images.detach()
        given = iter(theta.flatten(1).unbind(1))
        full = [
            next(given) if fixed is None else torch.full_like(theta.flatten(1)[:, 0], fixed) for fixed in self.fixed
        ]
        source = _targets(self.plane, theta) @ torch.stack(full, 1).view(-1, 2, 3).transpose(1, 2)
        x, y = ((source[..., axis] + 1) / 2 * side for axis, side in enumerate((height, width)))
        planes = images.flatten(2)
        top: Tensor | float = 0.0
        for down in (0, 1):
            for right in (0, 1):
                row, column = x.detach().floor() + down, y.detach().floor() + right
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                weight = (1 - (row - x if down else x - row)) * (1 - (column - y if right else y - column))
                place = torch.where(inside, row * width + column, 0).long()
                values = planes.gather(2, place[:, None].expand(-1, planes.shape[1], -1))
                top = top + torch.where(inside, weight, 0)[:, None] * torch.where(inside[:, None], values, 0)
        assert isinstance(top, Tensor)
        return top.view(*images.shape[:2], *self.plane)


def _beyond(x: Tensor, limit: float) -> Tensor:
    """Half the square of how far each number is beyond ``±limit``."""
    return (x - x.clamp(-limit, limit)).square() / 2


@register("STLoss", fork="stn")
class TransformationLoss(LossLayer):
    """Penalises a transformation (N, 6, …) for reading beyond the image: half the squared excess, averaged over places."""

    options = ("st_loss_param",)
    bottoms = (1, 1)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.plane = (param.st_loss_param.output_H, param.st_loss_param.output_W)
        if min(self.plane) < 1:
            raise self.error("st_loss_param: needs output_H and output_W, at least 1")
        if count(bottom_shapes[0], 1) != 6:
            raise self.error(f"needs 6 coefficients for each image, not a bottom of shape {dims(bottom_shapes[0])}")

    def forward(self, theta: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        source = _targets(self.plane, theta) @ theta.reshape(-1, 2, 3).transpose(1, 2)
        return _beyond(source, 1).sum(2).mean()


@register("LocLoss", fork="stn")
class LocationLoss(LossLayer):
    """Half the mean squared excess of values beyond ``±threshold``."""

    options = ("loc_loss_param",)
    bottoms = (1, 1)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.threshold = param.loc_loss_param.threshold
        if not self.threshold > 0:
            raise self.error(f"loc_loss_param.threshold: {self.threshold:g} must be above 0")

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        return _beyond(x, self.threshold).mean()
