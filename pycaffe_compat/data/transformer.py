"""The transformations of ``transform_param``: crop an image, mirror it, subtract the mean, scale."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..errors import DataError, prefixed
from ..proto import caffe_pb2
from .mean import read_mean, require_mean_values, require_one_mean
from .noise import Noise
from .random_sizes import random_size
from .resizing import Resizing
from .stretching import Stretching

log = logging.getLogger(__name__)


class Transformer:
    """Caffe's ``DataTransformer``: crops one image (at random in TRAIN, its centre in TEST), mirrors and scales it.

    Intel's ``pad`` makes a margin of that many zeros around the crop, and numbers whole where there are ``mean_value``.

    ``resize_param`` and ``noise_param`` of SSD's Caffe, and random sizes of NVIDIA's and Intel's, come first (:meth:`prepared`).

    A mean image is cropped with the same window as the image, before mirroring. ``(x - mean) * scale`` is computed in
    float32. The images of a batch may also be cropped here (:meth:`crop_bytes`) and the rest be done on their device
    (:meth:`finish`): the numbers are the same.

    Args:
        param: a ``TransformationParameter``.
        phase: ``caffe_pb2.TRAIN`` or ``TEST``. Mirroring is random in both, as in Caffe.
        several_sizes: whether the caller chooses between several ``resize_param``; else the first is what counts.

    Attributes:
        crop: height and width of what is cut from an image; None for whole images.
        color: how an encoded image is decoded: True to BGR (``force_color``), False to grey, None as it is stored.
        pad: the margin around what is cut from an image.
        random: whether an image needs random words.
        resizings: what each ``resize_param`` does.
        WORDS: the number of random words per image; the last one is for what a reader does before.

    Raises:
        MissingFileError, DataError: options exclude each other, or the mean file is missing or not one.
    """

    WORDS = 6

    def __init__(self, param: Any, phase: int, several_sizes: bool = False) -> None:
        self.crop = crop_of(param)
        self.resizings = [Resizing(each) for each in param.resize_param]
        if not several_sizes:
            _warn_of_sizes(param.resize_param)
            del self.resizings[1:]
        self._noise = Noise(param.noise_param) if param.HasField("noise_param") else None
        self.mirror: bool = param.mirror
        self.scale = np.float32(param.scale)
        self.pad: int = param.pad
        self.train = phase == caffe_pb2.TRAIN
        self._stretching = Stretching(param) if Stretching.wanted(param) else None
        self._random_size = random_size(param)
        preparing = [each for each in (*self.resizings, self._noise, self._stretching) if each is not None]
        self.random = self.mirror or (self.train and self.crop is not None) or any(each.random for each in preparing)
        self.random = self.random or self._random_size is not None
        if param.force_color and param.force_gray:
            raise DataError("transform_param: give force_color or force_gray, not both")
        self.color: bool | None = True if param.force_color else False if param.force_gray else None
        require_one_mean(param.HasField("mean_file"), len(param.mean_value))
        if self.pad and param.HasField("mean_file"):
            raise DataError(
                "transform_param.pad does not work with mean_file: Intel's Caffe would subtract the mean of other places; give "
                "mean_value instead"
            )
        self._rounded = len(param.mean_value) > 0
        self.mean_file: str = param.mean_file
        # C×H×W, or a value for each channel, or one for all.
        self._mean = np.array(param.mean_value or (0,), np.float32)[:, None, None]
        if param.HasField("mean_file"):
            with prefixed("transform_param.mean_file"):
                self._mean = read_mean(param.mean_file)
        self._mean_of_crop = bool(self._stretching and self.mean_file and self.crop)
        if self._mean_of_crop:
            self._mean = self._centre(self._mean)
        self._means: dict[torch.device, Tensor] = {}
        self._warned = False

    def prepared(self, image: np.ndarray, words: Sequence[int] = (), encoded: bool = True, size: int = 0) -> np.ndarray:
        """Return an image (C×H×W) resized and changed as options of forks say; most often as it is.

        Args:
            image: ``uint8``, if it is to be changed.
            words: :data:`WORDS` random numbers, or none where :attr:`random` is false or only the shape matters.
            encoded: whether it was. SSD's Caffe adds noise to no other images of a database.
            size: which of :attr:`resizings`, if there are any.

        Raises:
            DataError: it has float values, or an option does not fit it.
        """
        noise = self._noise if encoded else None
        if not encoded and self.pad:
            raise DataError(
                "is not encoded, but transform_param.pad is for encoded images: Intel's Caffe does not pad others; remove it"
            )
        if not self.resizings and noise is None and self._stretching is None and self._random_size is None:
            return image
        if image.dtype != np.uint8:
            raise DataError(
                "holds floats (float_data), but transform_param.resize_param, noise_param and random sizes are for images of "
                "bytes"
            )
        picture = np.ascontiguousarray(image.transpose(1, 2, 0)) if len(image) > 1 else image[0]
        if self.resizings:
            picture = self.resizings[size](picture, words[3] if words else 0)
        if noise is not None:
            picture = noise(picture, words[4] if words else 0)
        if self._stretching is not None:
            picture = self._stretching(picture, words[3] if words else 0)
        if self._random_size is not None:
            picture = self._random_size(picture, words[3] if words else 0)
        return picture[None] if picture.ndim == 2 else picture.transpose(2, 0, 1)

    def _centre(self, mean: np.ndarray) -> np.ndarray:
        """The centre of a mean image, as large as a crop: what NVIDIA's Caffe takes where pictures have random sizes."""
        assert self.crop is not None
        top, left = (mean.shape[1] - self.crop[0]) // 2, (mean.shape[2] - self.crop[1]) // 2
        if top < 0 or left < 0:
            rows, columns = self.crop
            raise DataError(
                f"transform_param.mean_file {self.mean_file} has shape {_by(mean.shape)}, smaller than crops of "
                f"{rows} × {columns}"
            )
        return mean[:, top : top + self.crop[0], left : left + self.crop[1]]

    def check(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """Return the shape after the transformation of an image of ``shape`` (C×H×W).

        Raises:
            DataError: the crop is larger than the image, or the mean does not fit it.
        """
        channels, height, width = shape
        if self.crop and (height < self.crop[0] or width < self.crop[1]):
            rows, columns = self.crop
            crop = f"crop_size {rows}" if rows == columns else f"crop_h × crop_w {rows} × {columns}"
            raise DataError(
                f"transform_param.{crop} is larger than the image, which is {height} × {width} (height × width)"
            )
        if not self.mean_file:
            require_mean_values(len(self._mean), channels)
        elif self._mean.shape != (channels, *(self.crop if self._mean_of_crop and self.crop else (height, width))):
            raise DataError(
                f"transform_param.mean_file {self.mean_file} has shape {_by(self._mean.shape)}, but the image "
                f"{_by(shape)} (channels × height × width); they must be equal"
            )
        rows, columns = self.crop or (height, width)
        return channels, rows + 2 * self.pad, columns + 2 * self.pad

    def warn_raw(self, what: str) -> None:
        """Warn once that what needs encoded images does nothing to records that are not."""
        if self._warned:
            return
        self._warned = True
        if self.color is not None:
            log.warning(
                "%s: force_color and force_gray apply to encoded images only; raw ones keep their channels", what
            )
        if self._noise is not None:
            log.warning("%s: noise_param applies to encoded images only, as in SSD's Caffe", what)

    def __call__(self, image: np.ndarray, words: Sequence[int], out: np.ndarray) -> None:
        """Transform one image: :meth:`window` and :meth:`transform`."""
        windows = np.array([self.window(image, words, out.shape)], np.int32)
        self.transform([image], windows, torch.from_numpy(out[None]))

    def window(self, image: np.ndarray, words: Sequence[int], out: Sequence[int]) -> tuple[int, int, bool]:
        """Choose what is done to an image: top and left of what is cut from it, and whether that is mirrored.

        Args:
            image: C×H×W.
            words: :data:`WORDS` random numbers, or none if :attr:`random` is false.
            out: the shape of the result, which that of :meth:`check` must be.

        Raises:
            DataError: as in :meth:`check`; or the result has another shape.
        """
        made = self.check(image.shape)
        if made != tuple(out):
            advice = "records of different sizes need a crop_size, or batch_size: 1"
            if made[0] != out[0]:
                advice = "grey and colour images can share a batch with force_color or force_gray, if they are encoded"
            raise DataError(
                f"has {_by(made)} values after the transformation, but the first record of the batch {_by(out)}; {advice}"
            )
        margin = 2 * self.pad + 1
        rows, columns = (
            image.shape[1] - made[1] + margin,
            image.shape[2] - made[2] + margin,
        )  # where the window can begin
        mirrored = bool(self.mirror and words[2] & 1)
        if self.crop and self.train:
            return words[0] % rows, words[1] % columns, mirrored
        return (rows - 1) // 2, (columns - 1) // 2, mirrored

    def transform(self, images: Sequence[np.ndarray], windows: np.ndarray, out: Tensor) -> None:
        """Transform images.

        Args:
            images: C×H×W each, ``uint8`` or ``float32``; fastest if they are ``uint8``, and dense or the transposes of dense
                H×W×C images.
            windows: N×3, ``int32``: what :meth:`window` has chosen for each.
            out: N×C×h×w, dense, ``float32``, in the memory of the host.
        """
        if self.pad:
            inside = torch.empty(*out.shape[:2], out.shape[2] - 2 * self.pad, out.shape[3] - 2 * self.pad)
            self._unpadded(images, windows, inside)
            out.copy_(self._padded(inside, torch.from_numpy(windows)))
        else:
            self._unpadded(images, windows, out)

    def _unpadded(self, images: Sequence[np.ndarray], windows: np.ndarray, out: Tensor) -> None:
        """Transform images, but for ``pad``."""
        if self._mean_of_crop:
            size = out.shape[2:]
            images = [
                image[:, top : top + size[0], left : left + size[1]]
                for image, (top, left, _) in zip(images, windows.tolist(), strict=True)
            ]
            windows = windows * np.array([0, 0, 1], np.int32)
        if ops.transforms_images("cpu") and all(image.dtype == np.uint8 for image in images):
            tensors, offsets = _gathered(images)
            mean, scale = self._mean_on(_CPU), float(self.scale)
            ops.transform_images(tensors, torch.from_numpy(windows), mean, scale, out, offsets)
            return
        for image, (top, left, mirrored), to in zip(images, windows.tolist(), out.numpy(), strict=True):
            self._by_planes(image, top, left, bool(mirrored), to)

    def _by_planes(self, image: np.ndarray, top: int, left: int, mirrored: bool, out: np.ndarray) -> None:
        """Transform plane by plane, so that a plane is still in the cache for the next step."""
        window = (slice(None), slice(top, top + out.shape[1]), slice(left, left + out.shape[2]))
        means = self._mean[window] if self.mean_file else self._mean
        means = np.broadcast_to(means, (len(out), *means.shape[1:]))
        for plane, target, mean in zip(_planes(image[window]), out, means, strict=True):
            np.copyto(target, plane)
            np.subtract(target, mean, out=target)
            if self.scale != 1:
                np.multiply(target, self.scale, out=target)
            if mirrored:
                cv2.flip(target, 1, dst=target)

    def crop_bytes(self, image: np.ndarray, window: Sequence[int], out: np.ndarray) -> None:
        """Do the part of the transformation that makes an image smaller.

        Args:
            image: C×H×W.
            window: what :meth:`window` has chosen for it.
            out: C×h×w, ``uint8``.

        Raises:
            DataError: the image is ``float32``.
        """
        if image.dtype != np.uint8:
            raise DataError(
                "holds floats (float_data), but the batch's first record holds bytes; such a database cannot be transformed "
                "on the device: leave out --device-transform"
            )
        top, left, _ = window
        out = out[:, self.pad : out.shape[1] - self.pad, self.pad : out.shape[2] - self.pad]
        np.copyto(out, image[:, top : top + out.shape[1], left : left + out.shape[2]])

    def finish(self, images: Tensor, windows: Tensor) -> Tensor:
        """Return the float32 batch of images that :meth:`crop_bytes` has cut, N×C×H×W, on their device.

        ``windows``, N×3, is on that device too.
        """
        if self._mean_of_crop:
            windows = windows * torch.tensor([0, 0, 1], dtype=windows.dtype, device=windows.device)
        if self.pad:
            images = images[..., self.pad : -self.pad, self.pad : -self.pad]
            windows = windows * torch.tensor([0, 0, 1], dtype=windows.dtype, device=windows.device)
        made = ops.transform_images([images], windows, self._mean_on(images.device), float(self.scale))
        return self._padded(made, windows) if self.pad else made

    def _padded(self, images: Tensor, windows: Tensor) -> Tensor:
        """Return images, N×C×H×W, with Intel's ``pad`` around them, made of their own numbers.

        With ``mean_value`` all numbers are rounded. The margin is 0; but of the pictures before mirroring, the first row below
        and the first column to the right take part in the arithmetic, as bytes of 0, as far as the picture and each other reach.
        """
        pad = self.pad
        filled = -self._mean_on(images.device) * float(self.scale)
        out = F.pad(images, (pad, pad, pad, pad))
        height, width = images.shape[2:]
        mirrored = windows[:, 2].bool()[:, None, None, None]
        edge = torch.zeros_like(out, dtype=torch.bool)
        edge[..., pad + height, pad : pad + width + 1] = True
        edge[..., pad : pad + height + 1, pad + width] = True
        edge = torch.where(mirrored, edge.flip(3), edge)
        out = torch.where(edge, filled, out)
        return out.round() if self._rounded else out

    def _mean_on(self, device: torch.device) -> Tensor:
        if device not in self._means:
            self._means[device] = _tensor(np.ascontiguousarray(self._mean)).to(device)
        return self._means[device]


def crop_of(param: Any) -> tuple[int, int] | None:
    """Return height and width of the crops that a ``TransformationParameter`` asks for; None for whole images.

    ``crop_h`` and ``crop_w`` are fields of forks (SSD, happynear's Caffe for Windows, NVIDIA's), and so are ``crop_height``
    and ``crop_width`` (domain guided dropout), of which each takes the place of ``crop_size``.

    Raises:
        DataError: only one of them is given; or ``crop_h`` beside ``crop_size``, where the forks differ.
    """
    if param.crop_height or param.crop_width:
        height, width = param.crop_height or param.crop_size, param.crop_width or param.crop_size
        if not height or not width or param.crop_h or param.crop_w:
            raise DataError(
                f"transform_param: crop_height is {param.crop_height} and crop_width {param.crop_width}; give both, and no "
                "crop_h and crop_w"
            )
        return height, width
    if not param.crop_h and not param.crop_w:
        return (param.crop_size, param.crop_size) if param.crop_size else None
    if param.crop_size:
        raise DataError(
            f"transform_param: crop_size {param.crop_size} and crop_h {param.crop_h}, crop_w {param.crop_w} are both given; SSD "
            "uses the former, other forks the latter: remove one"
        )
    if not param.crop_h or not param.crop_w:
        raise DataError(
            f"transform_param: crop_h is {param.crop_h} and crop_w {param.crop_w}; give both, or crop_size for a square"
        )
    return param.crop_h, param.crop_w


def _warn_of_sizes(given: Sequence[Any]) -> None:
    """Say what is not read of ``resize_param`` where it always counts."""
    if len(given) > 1:
        log.warning("transform_param.resize_param is given %d times; this layer takes the first", len(given))
    elif given and given[0].prob != 1:
        log.warning(
            "transform_param.resize_param.prob is %g; it has no effect: every image is resized, as in SSD's Caffe",
            given[0].prob,
        )


def fixed_size(param: Any) -> tuple[int, int] | None:
    """Return height and width that ``resize_param`` gives every image of the first batch; None if it is missing or they vary."""
    if not param.resize_param:
        return None
    resize = param.resize_param[0]
    varies = resize.resize_mode == caffe_pb2.ResizeParameter.FIT_SMALL_SIZE
    return None if varies or not resize.height or not resize.width else (resize.height, resize.width)


_CPU = torch.device("cpu")


class _Memory:
    """Lets numpy take memory for a writable array, which torch wants of what a tensor lies over."""

    def __init__(self, address: int, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface | {"data": (address, False)}


def _tensor(array: np.ndarray) -> Tensor:
    """Return a tensor over the memory of ``array``, to read from while the array is there."""
    if array.flags.writeable:
        return torch.from_numpy(array)
    interface = array.__array_interface__
    return torch.from_numpy(np.asarray(_Memory(interface["data"][0], interface)))


def _gathered(images: Sequence[np.ndarray]) -> tuple[list[Tensor], Tensor | None]:
    """Return byte images as :func:`.ops.transform_images` takes them: those that are alike, in one piece, by their addresses."""
    shape = images[0].shape
    if len(images) == 1 or not all(image.shape == shape and image.flags.c_contiguous for image in images):
        return [_tensor(image[None]) for image in images], None
    addresses = [image.__array_interface__["data"][0] for image in images]
    start = min(addresses)
    span = max(addresses) - start + images[0].nbytes  # nobody touches what lies between two images
    memory = np.asarray(_Memory(start, {"shape": (span,), "typestr": "|u1", "version": 3}))
    first = torch.from_numpy(memory)[: images[0].nbytes].view(1, *shape)
    return [first], torch.tensor([address - start for address in addresses])


def _planes(image: np.ndarray) -> Sequence[np.ndarray]:
    """Return the channels of a C×H×W image. OpenCV splits a transposed H×W×C image faster than numpy."""
    if image.dtype == np.uint8 and image.shape[0] > 1 and image.strides[0] == 1:
        return cv2.split(image.transpose(1, 2, 0), list(np.empty(image.shape, np.uint8)))
    return list(image)


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
