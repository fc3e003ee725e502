"""What the random transformations of FlowNet2's Caffe make of colours (lmb-freiburg/flownet2, data_augmentation_layer.cu)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .coefficients import DEFAULTS, NAMES

CHROMATIC = ("gamma", "brightness", "contrast", "color1", "color2", "color3")
EIGEN = NAMES[NAMES.index("pow_nomean0") : NAMES.index("col_angle") + 1]
SMALL = 1e-2  # what is smaller is not divided by


def differ(of: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Whether one of the coefficients is not its default, for any image: a tensor without axes."""
    return torch.stack([(of[name] != DEFAULTS[NAMES.index(name)]).any() for name in names]).any()


def effects_count(of: Mapping[str, Tensor]) -> Tensor:
    """Whether an effect is asked for, for any image: a tensor without axes. Fog and blur are, though the fork makes none."""
    fog = (of["fog_amount"] != 0) & (of["fog_size"] != 0)
    return (fog | (of["motion_blur_size"] > 0) | (of["shadow_strength"] > 0) | (of["noise"] > 0)).any()


def along_eigenvectors(y: Tensor, source: Tensor, of: Mapping[str, Tensor], vectors: Tensor, most: float) -> Tensor:
    """Change the colours of images along the eigenvectors of a data set's colours.

    Args:
        y: the images (N, 3, H', W').
        source: those that they were cut from, (N, 3, H, W), whose colours say what is large.
        of: coefficients by name, (N) each.
        vectors: the eigenvectors, (3, 3).
        most: the largest value of the result; the smallest is 0.
    """
    length = torch.einsum("ij,njhw->inhw", vectors, source).abs().flatten(1).amax(1)
    mean = source.mean((0, 2, 3))
    large = length > SMALL
    middle = vectors @ mean
    middle = torch.where(large, middle / length, middle)
    span = length.square().sum().sqrt()

    def at(name: str) -> Tensor:
        return of[name].to(y.dtype).view(-1, 1, 1)

    def signed(x: Tensor, power: str) -> Tensor:
        return torch.copysign(x.abs() ** at(power), x)

    eig = list(torch.einsum("ij,njhw->inhw", vectors, y - mean[:, None, None]).unbind())
    for c in range(3):
        share = (signed(eig[c] / length[c], f"pow_nomean{c}") + at(f"add_nomean{c}")) * at(f"mult_nomean{c}")
        eig[c] = torch.where(large[c], share, eig[c]) + middle[c]
    first = (signed(eig[0], "pow_withmean0") + at("add_withmean0")) * at("mult_withmean0")
    eig[0] = torch.where(large[0], first, eig[0])
    s = (eig[1] ** 2 + eig[2] ** 2).sqrt()
    strong = s > SMALL
    s1 = (s ** at("pow_withmean1") + at("add_withmean1")).clamp(min=0) * at("mult_withmean1")
    cos, sin = at("col_angle").cos(), at("col_angle").sin()
    eig[1], eig[2] = cos * eig[1] - sin * eig[2], sin * eig[1] + cos * eig[2]
    eig = [torch.where(large[c], eig[c] * length[c], eig[c]) for c in range(3)]
    bright = (eig[0] ** 2 + eig[1] ** 2 + eig[2] ** 2).sqrt() / span
    eig[1:] = [torch.where(strong, each / s * s1, each) for each in eig[1:]]
    now = (eig[0] ** 2 + eig[1] ** 2 + eig[2] ** 2).sqrt()
    wanted = (bright ** at("lmult_pow") + at("lmult_add")).clamp(min=0) * at("lmult_mult") * span
    scaled = (span > SMALL) & (now > SMALL)
    eig = [torch.where(scaled, torch.minimum(eig[c] / now * wanted, length[c]), eig[c]) for c in range(3)]
    return torch.einsum("inhw,ij->njhw", torch.stack(eig), vectors).clamp(max=most).clamp(min=0)


def toned(y: Tensor, of: Mapping[str, Tensor], most: float) -> Tensor:
    """Change gamma, brightness, contrast and the share of each colour of images (N, 3, H, W) with values from 0 to 1."""

    def at(name: str) -> Tensor:
        return of[name].to(y.dtype).view(-1, 1, 1, 1)

    shares = torch.stack([of[f"color{c}"].to(y.dtype) for c in (1, 2, 3)], 1)[:, :, None, None]
    before = y.sum(1, keepdim=True)
    y = y * shares
    y = (y * (before / (y.sum(1, keepdim=True) + 0.01))).clamp(0, 1)
    y = y ** at("gamma") + at("brightness")
    return (0.5 + (y - 0.5) * at("contrast")).clamp(max=most).clamp(min=0)


def shaded(y: Tensor, of: Mapping[str, Tensor], most: float) -> Tensor:
    """Darken one side of a line in images (N, 3, H, W), and keep values between 0 and ``most``; then add noise."""

    def at(name: str) -> Tensor:
        return of[name].to(y.dtype).view(-1, 1, 1, 1)

    height, width = y.shape[2:]
    across = torch.arange(width, device=y.device) - width // 2
    down = (torch.arange(height, device=y.device) - height // 2)[:, None]
    beyond = across * at("shadow_angle").cos() + down * at("shadow_angle").sin() - at("shadow_distance") > 0
    y = torch.where(beyond, y - at("shadow_strength"), y).clamp(max=most).clamp(min=0)
    return y + torch.randn_like(y) * at("noise").clamp(min=0)
