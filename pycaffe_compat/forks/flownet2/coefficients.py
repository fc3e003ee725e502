"""The coefficients of an image's transformation in FlowNet2's Caffe, and how they are drawn.

Source: augmentation_layer_base.cpp and util/rng.cpp of lmb-freiburg/flownet2. A blob of coefficients (N, 42, 1, 1) holds, in the
order of the fields of ``AugmentationCoeff``, the values whose default is 0 and the logarithms of those whose default is 1. So
zeros leave an image as it is, and transformations of both kinds follow each other as the sums of their blobs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer
from ...proto import caffe_pb2

_FIELDS = caffe_pb2.AugmentationCoeff.DESCRIPTOR.fields
NAMES = tuple(field.name for field in _FIELDS)
PLACES = {name: i for i, name in enumerate(NAMES)}
DEFAULTS = tuple(float(field.default_value) for field in _FIELDS)
SPATIAL = ("mirror", "dx", "dy", "angle", "zoom_x", "zoom_y")
RANDOM = caffe_pb2.RandomGeneratorParameter.DESCRIPTOR.name
KINDS = ("uniform", "gaussian", "bernoulli", "uniform_bernoulli", "gaussian_bernoulli")
TRIES = 50  # transformations are drawn until one stays inside of the image; the last of these is not looked at
SPREADS = 1.0986  # the schedule has gone half of its way at ``half_life``
NEAR = 1e-3  # coefficients that are so near to their default count as the default

_MOVES = ("mirror", "translate", "translate_x", "translate_y", "rotate", "zoom", "squeeze")
_EIGEN = {  # option: the coefficients that are drawn, each by itself
    "ladd_pow": ("pow_nomean0",),
    "col_pow": ("pow_nomean1", "pow_nomean2"),
    "ladd_add": ("add_nomean0",),
    "col_add": ("add_nomean1", "add_nomean2"),
    "ladd_mult": ("mult_nomean0",),
    "col_mult": ("mult_nomean1", "mult_nomean2"),
    "lmult_pow": ("lmult_pow",),
    "lmult_mult": ("lmult_mult",),
    "lmult_add": ("lmult_add",),
    "col_rotate": ("col_angle",),
}
_SATURATION = {  # option: the coefficients that get one number
    "sat_pow": ("pow_withmean1", "pow_withmean2"),
    "sat_add": ("add_withmean1", "add_withmean2"),
    "sat_mult": ("mult_withmean1", "mult_withmean2"),
}
_COLOURS = {
    "gamma": ("gamma",),
    "brightness": ("brightness",),
    "contrast": ("contrast",),
    "color": ("color1", "color2", "color3"),
}
_EFFECTS = (  # one of a group set: all of it is drawn
    ("fog_amount", "fog_size"),
    ("motion_blur_angle", "motion_blur_size"),
    ("shadow_angle", "shadow_distance", "shadow_strength"),
)


@dataclass(frozen=True)
class Distribution:
    """A ``RandomGeneratorParameter``."""

    kind: str
    exp: bool
    mean: float
    spread: float
    prob: float
    scheduled: bool
    discrete: bool
    factor: float

    @classmethod
    def of(cls, layer: Layer, name: str, options: Any) -> Distribution:
        """Read ``options``, the field ``name`` of the layer's options.

        Raises:
            LayerError: there is no such distribution.
        """
        if options.rand_type not in KINDS:
            raise layer.error(f'{name}.rand_type is "{options.rand_type}"; it must be one of {", ".join(KINDS)}')
        if not 0 <= options.prob <= 1:
            raise layer.error(f"{name}.prob: {options.prob:g} is not between 0 and 1")
        return cls(
            options.rand_type,
            options.exp,
            options.mean,
            options.spread,
            options.prob,
            options.apply_schedule,
            options.discretize,
            options.multiplier,
        )

    def draw(self, size: Sequence[int], discount: Tensor, otherwise: float = math.nan, truth: bool = False) -> Tensor:
        """Return ``float32`` numbers of shape ``size`` on the device of ``discount``.

        Args:
            discount: what the schedule makes of the spread, without axes.
            otherwise: the value where a ``_bernoulli`` kind draws none; NaN for that of 0.
            truth: return 1 for what is not 0.
        """
        device = discount.device
        spread = self.spread * discount.float() if self.scheduled else torch.full((), self.spread, device=device)
        drawn = torch.full(tuple(size), self.mean, device=device)
        picked = None
        if self.kind.endswith("bernoulli"):
            picked = torch.rand(tuple(size), device=device) < self.prob
        if self.kind == "bernoulli":
            drawn = picked.float()  # type: ignore[union-attr]
        else:
            if self.kind.startswith("uniform"):
                noise = 2 * torch.rand(tuple(size), device=device) - 1
            else:
                noise = torch.randn(tuple(size), device=device)
            drawn = drawn + noise * spread.clamp(min=0)
            if picked is not None:
                drawn = torch.where(picked, drawn, 0)
            if self.exp:
                drawn = drawn.exp()
        if truth:
            drawn = (drawn != 0).float()
        if self.discrete:
            drawn = torch.trunc(drawn + torch.copysign(torch.full((), 0.5, device=device), drawn))
        drawn = drawn * self.factor
        if truth:
            drawn = (drawn != 0).float()
        if picked is not None and self.kind != "bernoulli" and not math.isnan(otherwise):
            drawn = torch.where(picked, drawn, otherwise)
        return drawn


class Schedule:
    """How far the distributions spread in each pass: ``coeff_schedule_param``."""

    def __init__(self, options: Any) -> None:
        self.half_life, self.first, self.last = options.half_life, options.initial_coeff, options.final_coeff

    def __call__(self, passes: Tensor) -> Tensor:
        """Return the factor of spreads in pass ``passes``, counted from 1; both without axes."""
        gone = 2 / (1 + torch.exp(-SPREADS * passes.double() / self.half_life)) - 1
        return (self.first + (self.last - self.first) * gone).float()


class Draws:
    """The random transformations that ``augmentation_param`` asks for.

    Attributes:
        spatial, colours, eigen, effects: whether coefficients of these groups are drawn.

    Raises:
        LayerError: a distribution that is none.
    """

    def __init__(self, layer: Layer, options: Any) -> None:
        unset = caffe_pb2.RandomGeneratorParameter()
        self._of: Mapping[str, Distribution] = {
            field.name: Distribution.of(layer, f"augmentation_param.{field.name}", value)
            for field, value in options.ListFields()
            if field.message_type is not None and field.message_type.name == RANDOM
        }
        self._unset = Distribution.of(layer, "augmentation_param", unset)
        given = self._of.keys()
        self.spatial = any(name in given for name in _MOVES)
        self.colours = any(name in given for name in _COLOURS)
        self.eigen = any(name in given for name in (*_EIGEN, *_SATURATION))
        self.effects = "noise" in given or any(name in given for group in _EFFECTS for name in group)

    def __bool__(self) -> bool:
        return bool(self._of)

    def changes(self, count: int, discount: Tensor) -> dict[str, Tensor]:
        """Draw what is not spatial for ``count`` images: by name of the coefficient, its numbers (not logarithms)."""
        drawn: dict[str, Tensor] = {}
        for option, names in {**_COLOURS, **_EIGEN}.items():
            if option in self._of:
                drawn |= {name: self._of[option].draw((count,), discount) for name in names}
        for option, names in _SATURATION.items():
            if option in self._of:
                drawn |= dict.fromkeys(names, self._of[option].draw((count,), discount))
        for group in _EFFECTS:
            if any(name in self._of for name in group):
                drawn |= {name: self._of.get(name, self._unset).draw((count,), discount, 0.0) for name in group}
        if "noise" in self._of:
            drawn["noise"] = self._of["noise"].draw((count,), discount)
        return drawn

    def moves(self, start: Tensor, discount: Tensor, source: Sequence[int], crop: Sequence[int]) -> Tensor:
        """Draw transformations whose corners stay inside of the image, after those of ``start``.

        Args:
            start: coefficients (N, 42).
            source, crop: height and width of the image, and of what is cut from it.

        Returns:
            The coefficients (N, 42) of both. Where :data:`TRIES` tries find none, those of ``start``.
        """
        size = (len(start), TRIES - 1)
        drawn = start.new_zeros((*size, len(SPATIAL)), dtype=torch.float32)
        mirror, dx, dy, angle, zoom_x, zoom_y = range(len(SPATIAL))

        def of(option: str, otherwise: float) -> Tensor:
            return self._of[option].draw(size, discount, otherwise)

        if "mirror" in self._of:
            # the fork gives the default of the coefficient, 0, for the factor of the spread
            drawn[..., mirror] = self._of["mirror"].draw(size, torch.zeros_like(discount), truth=True)
        if "translate" in self._of:
            drawn[..., dx], drawn[..., dy] = of("translate", 0.0), of("translate", 0.0)
        if "translate_x" in self._of:
            drawn[..., dx] = of("translate_x", 0.0)
        if "translate_y" in self._of:
            drawn[..., dy] = of("translate_y", 0.0)
        if "rotate" in self._of:
            drawn[..., angle] = of("rotate", 0.0)
        zooms = torch.ones_like(drawn[..., :2])
        if "zoom" in self._of:
            zooms = zooms * of("zoom", 1.0)[..., None]
        if "squeeze" in self._of:
            squeeze = of("squeeze", 1.0)
            zooms = torch.stack([zooms[..., 0] * squeeze, zooms[..., 1] / squeeze], -1)
        drawn[..., zoom_x : zoom_y + 1] = zooms.log()
        drawn = drawn + start[:, None, : len(SPATIAL)]
        inside = _stays_inside({name: drawn[..., i] for i, name in enumerate(SPATIAL)}, source, crop)
        first = inside.int().argmax(1)
        found = drawn.gather(1, first[:, None, None].expand(-1, 1, len(SPATIAL)))[:, 0]
        moved = torch.where(inside.any(1, keepdim=True), found, start[:, : len(SPATIAL)])
        return torch.cat([moved, start[:, len(SPATIAL) :]], 1)


def _stays_inside(moves: Mapping[str, Tensor], source: Sequence[int], crop: Sequence[int]) -> Tensor:
    """Whether the corners of the crop come from inside of the source, for coefficients of any one shape."""
    height, width = source
    inside = torch.ones_like(moves["dx"], dtype=torch.bool)
    cos, sin = moves["angle"].cos(), moves["angle"].sin()
    flipped = moves["mirror"] != 0
    for x in (0, crop[1] - 1):
        for y in (0, crop[0] - 1):
            across = torch.where(flipped, -x + 0.5 * crop[1], x - 0.5 * crop[1])
            down = y - 0.5 * crop[0]
            u = (cos * across - sin * down + moves["dx"] * crop[1]) / moves["zoom_x"].exp() + 0.5 * width
            v = (sin * across + cos * down + moves["dy"] * crop[0]) / moves["zoom_y"].exp() + 0.5 * height
            u, v = u.floor(), v.floor()
            inside = inside & ~((u < 0) | (u > width - 2) | (v < 0) | (v > height - 2))
    return inside


def logarithms(changes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Numbers of coefficients as a blob of coefficients holds them."""
    return {name: value.log() if DEFAULTS[PLACES[name]] else value for name, value in changes.items()}


def values(blob: Tensor, near: float = 0) -> dict[str, Tensor]:
    """The coefficients (N) in a blob (N, 42), by name; those that are nearer than ``near`` to their default are the default."""
    named = {}
    for name, default, column in zip(NAMES, DEFAULTS, blob.unbind(1), strict=True):
        value = column.exp() if default else column
        named[name] = torch.where((value - default).abs() < near, default, value) if near else value
    return named


Matrix = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def matrices(of: Mapping[str, Tensor], crop: Sequence[int], source: Sequence[int]) -> Matrix:
    """Where each place of a crop comes from: numbers (N) t with x' = t0 x + t2 y + t4, and y' = t1 x + t3 y + t5.

    Args:
        of: coefficients by name, (N) each.
        crop, source: height and width.
    """
    one = torch.ones_like(of["dx"])
    zero = torch.zeros_like(one)
    flipped = of["mirror"] != 0
    side = torch.where(flipped, -one, one)
    t: Matrix = (side, zero, zero, one, side * (-0.5 * crop[1]), one * (-0.5 * crop[0]))
    cos, sin = of["angle"].cos(), of["angle"].sin()
    t = _then(t, (cos, sin, -sin, cos, zero, zero))
    t = _then(t, (one, zero, zero, one, of["dx"] * crop[1], of["dy"] * crop[0]))
    t = _then(t, (1 / of["zoom_x"], zero, zero, 1 / of["zoom_y"], zero, zero))
    return _then(t, (one, zero, zero, one, one * (0.5 * source[1]), one * (0.5 * source[0])))


def _then(t: Matrix, u: Matrix) -> Matrix:
    return (
        t[0] * u[0] + t[1] * u[2],
        t[0] * u[1] + t[1] * u[3],
        t[2] * u[0] + t[3] * u[2],
        t[2] * u[1] + t[3] * u[3],
        t[4] * u[0] + t[5] * u[2] + u[4],
        t[4] * u[1] + t[5] * u[3] + u[5],
    )


def inverse(t: Matrix) -> Matrix:
    """The transformation back."""
    a, b, c, d, e, f = t
    part = a * d - b * c
    return d / part, -b / part, -c / part, a / part, (c * f - d * e) / part, (b * e - a * f) / part


def moved(t: Matrix, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The places that ``t`` (N each) gives for x and y, which broadcast against (N, 1, 1)."""
    a, b, c, d, e, f = (each.view(-1, 1, 1) for each in t)
    return x * a + y * c + e, x * b + y * d + f
