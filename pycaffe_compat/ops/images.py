"""The operators that turn byte images into Caffe's float batches: crop, mirror, mean and scale in one pass.

``transform_images_(out, images, windows, mean, scale)`` writes ``(x - mean) * scale``, in float32 and in this order, so all
backends give the same bits. ``transform_images_at_(out, image, offsets, windows, mean, scale)`` does so for images that lie
anywhere in the storage of one of them. The compiled library adds kernels for the CPU and, for the former, for CUDA; other
devices, and arguments that the kernels refuse, run through :func:`_run` and :func:`_run_at`, whose checks are the only ones
with a message.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from . import backends
from .operators import LIBRARY, NAMESPACE
from .windows import OperatorError

NAME, NAME_AT = "transform_images_", "transform_images_at_"


@functools.cache
def _has_kernel(key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{NAME}", key)


def transforms_images(device_type: str) -> bool:
    """Whether a compiled kernel serves :func:`transform_images` on devices of a type (``"cpu"``, ``"cuda"``)."""
    return backends.serving(device_type) == "extension" and _has_kernel(device_type.upper())


def transform_images(
    images: Sequence[Tensor],
    windows: Tensor,
    mean: Tensor,
    scale: float = 1,
    out: Tensor | None = None,
    offsets: Tensor | None = None,
) -> Tensor:
    """Return a float32 batch of byte images.

    Args:
        images: N×C×H×W, uint8, in any memory layout; several such tensors, whose planes may differ in size, are one batch.
        windows: N×3, int32: top, left, and whether the image is mirrored. They are cut from planes that are larger than
            the result; planes of its size are taken whole.
        mean: C×H×W, float32, cropped as the images are before it is mirrored with them; or C×1×1. One channel stands for
            all.
        scale: multiplies the differences.
        out: what is written to and returned, dense; None makes a tensor for whole images of one size.
        offsets: N, int64. With them ``images`` is one tensor of one image, and stands for N: image n has its shape and
            layout and lies ``offsets[n]`` bytes after it in its storage. Tensors for so many images take as long to make
            as a quarter of the images takes to transform.

    Raises:
        OperatorError: arguments that do not fit; on a GPU windows are not looked at, and those that lie outside of the
            plane are moved into it.
    """
    if out is None:
        shape = (sum(map(len, images)) if offsets is None else len(offsets), *images[0].shape[1:])
        out = torch.empty(shape, dtype=torch.float32, device=images[0].device)
    has_kernels, library = transforms_images(out.device.type), torch.ops.pycaffe_compat
    if offsets is None:
        run = library.transform_images_ if has_kernels else _run
        run(out, images, windows, mean, scale)
    elif len(images) != 1:
        raise OperatorError(f"{NAME_AT}: offsets need images to be one tensor, not {len(images)}")
    else:
        run_at = library.transform_images_at_ if has_kernels else _run_at
        run_at(out, images[0], offsets, windows, mean, scale)
    return out


def _require(argument: str, x: Tensor, dtype: torch.dtype, axes: str, like: Tensor) -> None:
    if x.dtype != dtype or x.dim() != len(axes.split("×")):
        raise OperatorError(f"{NAME}: {argument} is {x.dtype} of shape {tuple(x.shape)}, but must be {dtype}, {axes}")
    if x.device != like.device:
        raise OperatorError(f"{NAME}: {argument} is on {x.device}, but out is on {like.device}")


def _moved(image: Tensor, offsets: Tensor) -> list[Tensor]:
    """The images that one stands for."""
    if image.dim() != 4 or len(image) != 1 or image.dtype != torch.uint8:
        raise OperatorError(
            f"{NAME_AT}: image is {image.dtype} of shape {tuple(image.shape)}, but must be torch.uint8, 1×C×H×W"
        )
    if offsets.dtype != torch.int64 or offsets.dim() != 1:
        raise OperatorError(
            f"{NAME_AT}: offsets is {offsets.dtype} of shape {tuple(offsets.shape)}, but must be torch.int64, N"
        )
    size = image.untyped_storage().nbytes()
    last = sum((length - 1) * step for length, step in zip(image.shape[1:], image.stride()[1:], strict=True))
    begins = [image.storage_offset() + offset for offset in offsets.tolist()]
    if any(not 0 <= at < size - last for at in begins):
        raise OperatorError(f"{NAME_AT}: an offset is outside the image's storage, which has {size} bytes")
    return [image.as_strided(image.shape, image.stride(), at) for at in begins]


def _check(out: Tensor, images: Sequence[Tensor], windows: Tensor, mean: Tensor) -> None:
    _require("out", out, torch.float32, "N×C×H×W", out)
    _require("windows", windows, torch.int32, "N×3", out)
    _require("mean", mean, torch.float32, "C×H×W", out)
    n, channels, *size = out.shape
    for some in images:
        _require("images", some, torch.uint8, "N×C×H×W", out)
        if some.shape[1] != channels or any(a < b for a, b in zip(some.shape[2:], size, strict=True)):
            raise OperatorError(
                f"{NAME}: images have shape {tuple(some.shape)}, which does not hold {tuple(out.shape)}"
            )
    if sum(map(len, images)) != n or windows.shape != (n, 3):
        raise OperatorError(
            f"{NAME}: out has {n} images, but there are {sum(map(len, images))}, and windows of shape {tuple(windows.shape)}"
        )
    holds = tuple(mean.shape[1:]) == (1, 1) or all(a >= b for a, b in zip(mean.shape[1:], size, strict=True))
    if mean.shape[0] not in (1, channels) or not holds:
        raise OperatorError(f"{NAME}: mean has shape {tuple(mean.shape)}, which does not hold {tuple(out.shape[1:])}")


def _cut(argument: str, planes: Tensor, corner: Sequence[int], size: Sequence[int]) -> Tensor:
    """The window of ``planes`` (C×H×W)."""
    cut = planes
    for axis, (first, want) in enumerate(zip(corner, size, strict=True), 1):
        have = planes.shape[axis]
        if have in (want, 1):
            continue
        if not 0 <= first <= have - want:
            raise OperatorError(
                f"{NAME}: the window of {size[0]} × {size[1]} at {tuple(corner)} extends beyond the {argument} of "
                f"{planes.shape[1]} × {planes.shape[2]}"
            )
        cut = cut.narrow(axis, first, want)
    return cut


def _run(out: Tensor, images: Sequence[Tensor], windows: Tensor, mean: Tensor, scale: float) -> None:
    _check(out, images, windows, mean)
    size = out.shape[2:]
    each = (image for some in images for image in some)
    for to, image, (*corner, mirrored) in zip(out, each, windows.tolist(), strict=True):
        values = _cut("images", image, corner, size).to(torch.float32) - _cut("mean", mean, corner, size)
        values *= scale
        to.copy_(values.flip(-1) if mirrored else values)


def _run_at(out: Tensor, image: Tensor, offsets: Tensor, windows: Tensor, mean: Tensor, scale: float) -> None:
    _run(out, _moved(image, offsets), windows, mean, scale)


def _fake(out: Tensor, images: Sequence[Tensor], windows: Tensor, mean: Tensor, scale: float) -> None:
    _check(out, images, windows, mean)


LIBRARY.define(
    f"{NAME}(Tensor(a!) out, Tensor[] images, Tensor windows, Tensor mean, float scale) -> ()",
    tags=torch.Tag.pt2_compliant_tag,
)
LIBRARY.impl(NAME, _run, "CompositeExplicitAutograd")
torch.library.register_fake(f"{NAMESPACE}::{NAME}", _fake, lib=LIBRARY)
# The threads that make batches call it, nothing that is traced.
LIBRARY.define(
    f"{NAME_AT}(Tensor(a!) out, Tensor image, Tensor offsets, Tensor windows, Tensor mean, float scale) -> ()"
)
LIBRARY.impl(NAME_AT, _run_at, "CompositeExplicitAutograd")
