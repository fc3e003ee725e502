"""Images and blobs in and out of numpy, as ``caffe.io``."""

from __future__ import annotations

import contextlib
import importlib
import math
import operator
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

import cv2
import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch.nn import functional as F

from ..data.datum import array_to_datum as _array_to_datum
from ..data.datum import datum_to_array as _datum_to_array
from ..data.datum import parse_datum
from ..errors import CaffeError, DataError, ParseError, UnknownNameError, nearest, require_file
from ..proto import array_to_blob, blob_to_array, caffe_pb2
from .blob import numbers

# luminance of linear RGB primaries (ITU-R BT.709), the weights of the grey pictures that pycaffe loads
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)

# what pycaffe's io imports from elsewhere, and scripts reach through it: name -> the module, and the name in it
_ELSEWHERE = {"skimage": ("skimage.io", None), "zoom": ("scipy.ndimage", "zoom")}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, member = _ELSEWHERE[name]
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}: {error}") from error
    return getattr(imported, member) if member else sys.modules[module.partition(".")[0]]


def _require_message(value: Any, cls: Any, taker: str) -> None:
    """Raise unless ``value`` is a message of that name, whoever's class it is: bytes and names of files are a usual slip."""
    name = cls.DESCRIPTOR.name
    if getattr(getattr(value, "DESCRIPTOR", None), "name", "") != name:
        what = repr(value) if isinstance(value, str) else type(value).__name__
        raise TypeError(
            f"{taker} takes a {name}, not {what}: caffe_pb2.{name}.FromString(data) makes one of the bytes of a file or record"
        )


def blobproto_to_array(blob: Any, return_diff: bool = False) -> np.ndarray:
    """Return the values (or the gradients) of a ``BlobProto`` as an array of its shape.

    Raises:
        TypeError: ``blob`` is something else, such as the bytes of one.
    """
    _require_message(blob, caffe_pb2.BlobProto, "blobproto_to_array")
    if return_diff:
        values = np.asarray(blob.diff, np.float32)
        shape = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
        if values.size != math.prod(shape):
            raise DataError(f"the blob of shape {shape} holds {values.size or 'no'} gradients")
        return values.reshape(shape)
    return np.array(blob_to_array(blob))


def array_to_blobproto(arr: np.ndarray, diff: np.ndarray | None = None) -> Any:
    """Return a ``BlobProto`` with the values of ``arr`` and, if given, gradients.

    Raises:
        DataError: values and gradients have different shapes.
    """
    values = numbers(arr, "array_to_blobproto")
    blob = array_to_blob(values)
    if diff is not None:
        gradients = numbers(diff, "array_to_blobproto: diff")
        if gradients.shape != values.shape:
            raise DataError(f"array_to_blobproto: a diff of shape {gradients.shape} for values of shape {values.shape}")
        blob.diff.extend(gradients.astype(np.float32).ravel())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Sequence[np.ndarray]) -> bytes:
    """Return arrays as the bytes of a ``BlobProtoVector``."""
    vector = caffe_pb2.BlobProtoVector()
    vector.blobs.extend([array_to_blobproto(array) for array in arraylist])
    return vector.SerializeToString()


arraylist_to_blobprotovecor_str = arraylist_to_blobprotovector_str  # what it was called until 2015


def blobprotovector_str_to_arraylist(data: bytes) -> list[np.ndarray]:
    """Return the arrays in the bytes of a ``BlobProtoVector``.

    Raises:
        ParseError: they are no ``BlobProtoVector``.
    """
    vector = caffe_pb2.BlobProtoVector()
    try:
        vector.ParseFromString(data)
    except (DecodeError, TypeError) as error:
        raise ParseError(f"no BlobProtoVector: {error}") from error
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: np.ndarray, label: int | None = None) -> Any:
    """Return a ``Datum`` of a channels×height×width array: ``uint8`` as bytes, anything else as floats.

    Raises:
        DataError: the array does not have three axes, or the label is no integer of 32 bits.
    """
    if not isinstance(label, (int, np.integer, type(None))):
        raise DataError(f"array_to_datum: a label must be an integer, not {label!r}")
    if not -(2**31) <= int(label or 0) < 2**31:
        raise DataError(f"array_to_datum: a label has 32 bits; {label} does not fit")
    datum = _array_to_datum(numbers(arr, "array_to_datum"), int(label or 0))
    datum.ClearField("encoded")
    if label is None:
        datum.ClearField("label")
    return datum


def datum_to_array(datum: Any) -> np.ndarray:
    """Return the channels×height×width array of a ``Datum``, decoding an image; its label is ``datum.label``.

    Raises:
        TypeError: ``datum`` is something else, such as the bytes of a record.
    """
    _require_message(datum, caffe_pb2.Datum, "datum_to_array")
    return np.array(_datum_to_array(parse_datum(datum.SerializeToString())))


class Transformer:
    """Turns images as :func:`load_image` returns them into what a net's inputs want, and back.

    Args:
        inputs: input blob name → its shape, e.g. ``{"data": net.blobs["data"].data.shape}``.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        if not isinstance(inputs, Mapping):
            raise DataError(
                'Transformer takes a dict of input names and shapes, {"data": net.blobs["data"].data.shape}, '
                f"not {inputs!r} ({type(inputs).__name__})"
            )
        for name, shape in inputs.items():
            integers(shape, f'Transformer: the shape of "{name}"')
        self.inputs = inputs
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}
        self.input_scale: dict[str, float] = {}
        self.is_flow: dict[str, bool] = {}

    def _check(self, name: str) -> None:
        if name not in self.inputs:
            raise UnknownNameError(
                f'"{name}" is not one of the net inputs: {", ".join(self.inputs)}{nearest(str(name), self.inputs)}'
            )

    def _image_shape(self, name: str) -> tuple[int, int, int]:
        """The channels, height and width of an input that takes images."""
        self._check(name)
        shape = tuple(self.inputs[name])
        if len(shape) != 4:
            raise DataError(f'input "{name}" has shape {shape}; images need four axes: number, channels, height, width')
        return shape[1], shape[2], shape[3]

    def preprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """Return one image (height×width×channels) ready for the input ``in_``.

        In this order: resize to the input's size, transpose, swap channels, scale (``raw_scale``), subtract the mean, scale
        (``input_scale``).

        Raises:
            DataError: not one image, or one of too few channels.
        """
        size = self._image_shape(in_)[1:]
        image = as_image(data, f'preprocess, input "{in_}"')
        if image.shape[:2] != size:
            image = resize_image(image, size)
        if in_ in self.transpose:
            image = (image if image.ndim == 3 else image[:, :, None]).transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            self._check_channels(in_, image, len(self.channel_swap[in_]), "channel_swap")
            image = image[list(self.channel_swap[in_]), :, :]
        if in_ in self.raw_scale:
            image = image * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            if len(image) != 1:  # a grey image takes the mean of each channel
                self._check_channels(in_, image, len(self.mean[in_]), "mean")
            image = np.subtract(image, self.mean[in_], dtype=np.float32, casting="same_kind")
        if in_ in self.input_scale:
            image = image * np.float32(self.input_scale[in_])
        return image

    def _check_channels(self, name: str, image: np.ndarray, wanted: int, setting: str) -> None:
        if image.ndim < 3 or len(image) < wanted or (setting == "mean" and len(image) != wanted):
            raise DataError(
                f'input "{name}": its {setting} is for {wanted} channels, but the image has shape {image.shape} by then; '
                "channels must come first (set_transpose), and be as many"
            )

    def deprocess(self, in_: str, data: np.ndarray) -> np.ndarray:
        """Undo :meth:`preprocess`, except for the resizing.

        Raises:
            DataError: not one image, as :meth:`preprocess` returns it.
        """
        shape = self._image_shape(in_)
        values = np.array(numbers(data, f'deprocess, input "{in_}"'), np.float32)
        image = values.squeeze()
        if image.ndim < 3 and values.ndim in (3, 4) and any(in_ in s for s in (self.transpose, self.channel_swap)):
            image = values.reshape(values.shape[-3:])  # a single channel, row or column is an axis still
        if image.ndim not in (2, 3) or not image.size:
            raise DataError(
                f'deprocess, input "{in_}": an array of shape {values.shape} is not one image of shape {shape}'
            )
        if in_ in self.channel_swap:
            self._check_channels(in_, image, len(self.channel_swap[in_]), "channel_swap")
        if in_ in self.input_scale:
            image = image / np.float32(self.input_scale[in_])
        if in_ in self.mean:
            image = np.add(image, self.mean[in_], dtype=np.float32, casting="same_kind")
        if in_ in self.raw_scale:
            image = image / np.float32(self.raw_scale[in_])
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_]), :, :]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return image

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the image's axes; ``(2, 0, 1)`` makes channels×height×width of height×width×channels.

        Raises:
            DataError: not every axis once, in an order (a set has none).
        """
        self._check(in_)
        self.transpose[in_] = permutation(order, len(self.inputs[in_]) - 1, "set_transpose", "axes")

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Set the order of the channels; ``(2, 1, 0)`` makes BGR of RGB. Channels are the first axis by then.

        Raises:
            DataError: not every channel once, in an order (a set has none).
        """
        self.channel_swap[in_] = permutation(order, self._image_shape(in_)[0], "set_channel_swap", "channels")

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Set the factor before the mean is subtracted; 255 for images in [0, 1] and nets trained on [0, 255]."""
        self._set_scale(self.raw_scale, in_, scale, "set_raw_scale")

    def _set_scale(self, scales: dict[str, float], name: str, scale: float | None, setter: str) -> None:
        self._check(name)
        if scale is None:  # as in pycaffe: none
            scales.pop(name, None)
            return
        numbers(scale, f'{setter}, input "{name}"')
        scales[name] = scale

    def set_mean(self, in_: str, mean: np.ndarray) -> None:
        """Set the mean: one value a channel, or an image (channels×height×width), which is resized to the input.

        Raises:
            DataError: a mean for another number of channels.
        """
        channels, *size = self._image_shape(in_)
        if isinstance(mean, (str, bytes, os.PathLike)):
            raise DataError(f"set_mean takes an array, not the name of a file: np.load({mean!r}), say")
        mean = numbers(mean, f'set_mean, input "{in_}"')
        if mean.ndim == 1:
            if mean.shape[0] != channels:
                raise DataError(f'set_mean: {mean.shape[0]} values for the {channels} channels of "{in_}"')
            mean = mean[:, None, None]
        else:
            if mean.ndim == 2:
                mean = mean[None]
            if mean.ndim != 3 or mean.shape[0] != channels or not mean.size:
                raise DataError(
                    f'set_mean: a mean of shape {mean.shape} does not fit "{in_}", {tuple(self.inputs[in_][1:])}: '
                    f"give {channels} values, or channels×height×width"
                )
            if mean.shape[1:] != tuple(size):
                mean = resize_image(mean.transpose(1, 2, 0).astype(np.float32), size).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Set the factor after the mean is subtracted."""
        self._set_scale(self.input_scale, in_, scale, "set_input_scale")

    def set_is_flow(self, in_: str, is_flow: bool) -> None:
        """Note in ``is_flow`` whether an input takes optical flow. Nothing here reads it; scripts of LRCN's Caffe do."""
        self._check(in_)
        self.is_flow[in_] = is_flow


def integers(values: Any, what: str) -> tuple[int, ...]:
    """``values`` as whole numbers in the order given.

    Raises:
        DataError: they have no order (a set, a dict), are text, or are not whole numbers.
    """
    array = isinstance(values, np.ndarray) and values.ndim == 1
    if (array or isinstance(values, Sequence)) and not isinstance(values, (str, bytes)):
        with contextlib.suppress(TypeError):
            if not any(isinstance(value, (bool, np.bool_)) for value in values):
                return tuple(operator.index(value) for value in values)
    raise DataError(f"{what}: a tuple or list of integers expected, not {values!r} ({type(values).__name__})")


def permutation(order: Any, length: int, what: str, of: str) -> tuple[int, ...]:
    """``order`` as a permutation of the numbers below ``length``; negative ones count from the end.

    Raises:
        DataError: not every number once.
    """
    given = integers(order, what)
    if len(given) != length:
        raise DataError(f"{what}: {len(given)} {of} given for an input of {length}")
    found = tuple(n + length if n < 0 else n for n in given)
    if sorted(found) != list(range(length)):
        raise DataError(f"{what}: {given} must name each of the {of} 0 to {length - 1} once")
    return found


def two_sizes(values: Any, what: str) -> tuple[int, int]:
    """The height and width that ``values`` begins with.

    Raises:
        DataError: they are not two integers above 0, in an order.
    """
    found: list[int] = []
    if isinstance(values, (Sequence, np.ndarray)) and not isinstance(values, (str, bytes)):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            found = [int(value) for value in values[:2]]
    if len(found) != 2 or min(found) < 1 or not all(a == b for a, b in zip(found, values, strict=False)):
        raise DataError(f"{what}: (height, width) expected, both integers above 0, not {values!r}")
    return found[0], found[1]


def as_image(value: Any, what: str) -> np.ndarray:
    """``value``, one image (height×width×channels, or height×width), as float32.

    Raises:
        DataError: the name of a file, several images, no pixels, or no numbers.
    """
    if isinstance(value, (str, bytes, os.PathLike)):
        raise DataError(f"{what}: an image expected, not a file name; load_image({os.fsdecode(value)!r}) reads it")
    image = numbers(value, what)
    if image.ndim not in (2, 3) or not image.size:
        raise DataError(f"{what}: an array of shape {image.shape} is not one image, height×width×channels")
    return image.astype(np.float32, copy=False)


def as_images(values: Any, what: str) -> list[np.ndarray]:
    """A list of images, each as :func:`as_image` returns it; ``values`` may be an array of four axes too.

    Raises:
        DataError: a single image or name in place of a list, no images, or something among them that is none.
    """
    array = isinstance(values, (np.ndarray, torch.Tensor))
    other = isinstance(values, (str, bytes, os.PathLike, Mapping)) or not isinstance(values, Iterable)
    if other or (array and values.ndim != 4):
        given = f"an array of shape {tuple(values.shape)}" if array else f"a {type(values).__name__}"
        raise DataError(f"{what} takes a list of images, not {given}; write [image] for a single one")
    images = [as_image(value, f"{what}, image {index}") for index, value in enumerate(values)]
    if not images:
        raise DataError(f"{what}: there are no images")
    return images


def load_image(filename: str | os.PathLike[str] | IO[bytes], color: bool = True) -> np.ndarray:
    """Return the picture in a file as float32 in [0, 1], height×width×3 in RGB order, or height×width×1 if not ``color``.

    ``filename`` may be an open binary file too (``io.BytesIO``, say), which is read from its beginning, or an HTTP response.

    Raises:
        MissingFileError, DataError: the file is missing, or holds no image.
    """
    if isinstance(filename, (str, os.PathLike)):
        image = cv2.imread(require_file(filename, "image"), cv2.IMREAD_UNCHANGED)
    elif not hasattr(filename, "read"):
        raise DataError(
            f"load_image takes the name of a file or an open one, not {filename!r} ({type(filename).__name__})"
        )
    else:
        if getattr(filename, "seekable", lambda: hasattr(filename, "seek"))():
            filename.seek(0)
        encoded = np.frombuffer(filename.read(), np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    if image is None:
        raise DataError(f"{filename} is not an image that OpenCV can read")
    largest = {"uint8": 255, "uint16": 65535}.get(image.dtype.name, 1)
    image = image.astype(np.float32) / largest
    if image.ndim == 2:
        image = image[:, :, None]
    image = image[:, :, 2::-1] if image.shape[2] >= 3 else image[:, :, :1]
    if color:
        return np.ascontiguousarray(np.tile(image, (1, 1, 3)) if image.shape[2] == 1 else image)
    return image if image.shape[2] == 1 else (image @ _LUMINANCE)[:, :, None]


def resize_image(im: np.ndarray, new_dims: Sequence[int], interp_order: int = 1) -> np.ndarray:
    """Return ``im`` (height×width×channels) at the size ``(height, width)``, as float32.

    ``interp_order`` 0 takes the nearest pixel, 1 interpolates linearly, higher ones cubically. As in pycaffe, the areas of
    images of 1 or 3 channels are brought into line, and the centres of the corner pixels of others.

    Raises:
        DataError: ``interp_order`` is no whole number from 0 on.
    """
    height, width = two_sizes(new_dims, "resize_image")
    source = np.ascontiguousarray(as_image(im, "resize_image"))
    if not isinstance(interp_order, (int, np.integer)) or interp_order < 0:
        raise DataError(f"resize_image: interp_order must be an integer of at least 0, not {interp_order!r}")
    if source.ndim == 2:
        source = source[:, :, None]
    channels = source.shape[2]
    if channels in (1, 3):
        method = {0: cv2.INTER_NEAREST_EXACT, 1: cv2.INTER_LINEAR}.get(interp_order, cv2.INTER_CUBIC)
        return cv2.resize(source, (width, height), interpolation=method).reshape(height, width, channels)
    if interp_order == 0:
        rows, columns = (
            np.floor(np.linspace(0, old - 1, new) + 0.5).astype(int)
            for old, new in zip(source.shape[:2], (height, width), strict=True)
        )
        return source[rows][:, columns]
    planes = torch.from_numpy(source.transpose(2, 0, 1))[None]
    mode = "bilinear" if interp_order == 1 else "bicubic"
    made = F.interpolate(planes, (height, width), mode=mode, align_corners=True)[0]
    return np.ascontiguousarray(made.numpy().transpose(1, 2, 0))


def flip_image(im: np.ndarray, scale: float = 128, is_flow: bool = False) -> np.ndarray:
    """Return ``im`` (height×width×channels) mirrored, as in LRCN's Caffe.

    Of an image of optical flow, which points the other way then, the first channel becomes ``scale`` minus its values.
    """
    mirrored = as_image(im, "flip_image")[:, ::-1].copy()
    if is_flow:
        mirrored[:, :, 0] = scale - mirrored[:, :, 0]
    return mirrored


def resize(image: np.ndarray, output_shape: Sequence[int], *args: Any, **kwargs: Any) -> np.ndarray:
    """Scikit-image's ``transform.resize``, which scripts call by the name that pycaffe's ``io`` imports it under.

    As in the scikit-image of Caffe's time, it does not smooth an image that it makes smaller, unless ``anti_aliasing`` says so.
    An image of whole numbers becomes one of float64 in [0, 1]; :func:`resize_image` keeps the values.

    Raises:
        CaffeError: scikit-image is not installed.
    """
    try:
        from skimage import transform
    except ImportError as error:
        raise CaffeError(
            "caffe.io.resize needs scikit-image: pip install scikit-image; resize_image needs nothing"
        ) from error
    return transform.resize(image, output_shape, *args, **{"anti_aliasing": False, **kwargs})


def oversample(images: Sequence[np.ndarray], crop_dims: Sequence[int]) -> np.ndarray:
    """Return ten crops of each image: the four corners and the centre, then their mirror images.

    Args:
        images: height×width×channels arrays of one size.
        crop_dims: ``(height, width)`` of a crop.

    Returns:
        An array of shape (10·N, height, width, channels), float32.

    Raises:
        DataError: images of several sizes, smaller than the crops, or a single image that is not in a list.
    """
    images = [image if image.ndim == 3 else image[:, :, None] for image in as_images(images, "oversample")]
    shapes = list(dict.fromkeys(image.shape for image in images))
    if len(shapes) > 1:
        raise DataError(f"oversample: images of the same shape expected, not {' and '.join(map(str, shapes))}")
    height, width = images[0].shape[:2]
    crop_h, crop_w = two_sizes(crop_dims, "oversample")
    if crop_h > height or crop_w > width:
        raise DataError(f"oversample: crops of {crop_h}×{crop_w} do not fit into images of {height}×{width}")
    corners = [(y, x) for y in (0, height - crop_h) for x in (0, width - crop_w)]
    windows = [*corners, ((height - crop_h) // 2, (width - crop_w) // 2)]
    crops = np.empty((10 * len(images), crop_h, crop_w, images[0].shape[-1]), np.float32)
    for n, image in enumerate(images):
        for i, (y, x) in enumerate(windows):
            crop = image[y : y + crop_h, x : x + crop_w]
            crops[10 * n + i] = crop
            crops[10 * n + 5 + i] = crop[:, ::-1]
    return crops
