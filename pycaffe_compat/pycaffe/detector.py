"""``caffe.Detector``: class scores of windows of images (R-CNN)."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import CaffeError, DataError
from . import io
from .blob import numbers
from .classifier import ImageNet

PathLike = str | os.PathLike[str]


class Detector(ImageNet):
    """A net that scores windows of images.

    Args:
        model_file, pretrained_file: prototxt and caffemodel.
        mean, input_scale, raw_scale, channel_swap: as the setters of :class:`~.io.Transformer` take them.
        context_pad: how many pixels of the input, on each side, show the surroundings of the window.
    """

    def __init__(
        self,
        model_file: PathLike,
        pretrained_file: PathLike,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(
            model_file,
            pretrained_file,
            mean=mean,
            input_scale=input_scale,
            raw_scale=raw_scale,
            channel_swap=channel_swap,
        )
        self.context_pad = 0
        self.crop_mean: np.ndarray | None = None
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows: Iterable[tuple[str, np.ndarray]]) -> list[dict[str, Any]]:
        """Score windows.

        Args:
            images_windows: pairs of an image file and an array of windows, rows of ``(ymin, xmin, ymax, xmax)``.

        Returns:
            A dict for each window: ``window``, ``prediction`` and ``filename``.

        Raises:
            DataError: something else than such pairs, or a window that does not lie in its image.
        """
        found: list[dict[str, Any]] = []
        crops: list[np.ndarray] = []
        for filename, windows in _pairs(images_windows):
            image = io.load_image(filename)
            for window in windows:
                crops.append(self.crop(image, window))
                found.append({"window": window, "filename": filename})
        if not found:
            return []
        for entry, prediction in zip(found, self.scores(crops), strict=True):
            entry["prediction"] = prediction
        return found

    def detect_selective_search(self, image_fnames: Sequence[str]) -> list[dict[str, Any]]:
        """Score the windows that selective search proposes, by the module ``selective_search_ijcv_with_python``.

        Raises:
            CaffeError: there is no such module: a program that drives MATLAB, and not part of this package.
        """
        try:
            search = importlib.import_module("selective_search_ijcv_with_python")
        except ModuleNotFoundError as error:
            raise CaffeError(
                "detect_selective_search needs the module selective_search_ijcv_with_python (and MATLAB), which is not "
                "installed; propose windows with another program and pass them to detect_windows"
            ) from error
        files = [os.path.abspath(name) for name in image_fnames]  # MATLAB has a current folder of its own
        return self.detect_windows(zip(files, search.get_windows(files, cmd="selective_search_rcnn"), strict=True))

    def crop(self, im: np.ndarray, window: Sequence[float]) -> np.ndarray:
        """Cut a window (ymin, xmin, ymax, xmax) out of an image, with its surroundings if ``context_pad`` asks for them.

        What lies outside of the image is filled with the mean.

        Raises:
            DataError: the window has no pixels, or begins outside of the image.
        """
        corners = numbers(window, "window")
        if corners.shape != (4,) or not np.isfinite(corners).all():
            raise DataError(f"window {window}: four numbers expected, (ymin, xmin, ymax, xmax)")
        y0, x0, y1, x1 = (int(v) for v in corners)
        crop = im[y0:y1, x0:x1]
        if not crop.size or min(y0, x0) < 0:
            raise DataError(
                f"window {(y0, x0, y1, x1)} (ymin, xmin, ymax, xmax) does not lie in the image, {im.shape[0]} high and "
                f"{im.shape[1]} wide"
            )
        if not self.context_pad:
            return crop
        side_h, side_w = self.blobs[self.inputs[0]].shape[2:]
        enlarged_h, enlarged_w = (side / (side - 2.0 * self.context_pad) for side in (side_h, side_w))
        half_h, half_w = (y1 - y0 + 1) / 2.0, (x1 - x0 + 1) / 2.0
        center = (y0 + half_h, x0 + half_w)
        box = np.round(
            (
                center[0] - enlarged_h * half_h,
                center[1] - enlarged_w * half_w,
                center[0] + enlarged_h * half_h,
                center[1] + enlarged_w * half_w,
            )
        )
        full_h, full_w = box[2] - box[0] + 1, box[3] - box[1] + 1
        scale_h, scale_w = side_h / full_h, side_w / full_w
        pad_y, pad_x = round(max(0, -box[0]) * scale_h), round(max(0, -box[1]) * scale_w)
        height, width = im.shape[:2]
        inside = np.clip(box, 0.0, [height, width, height, width]).astype(int)
        clipped_h, clipped_w = inside[2] - inside[0] + 1, inside[3] - inside[1] + 1
        crop_h = min(round(clipped_h * scale_h), side_h - pad_y)
        crop_w = min(round(clipped_w * scale_w), side_w - pad_x)
        context = io.resize_image(im[inside[0] : inside[2], inside[1] : inside[3]], (crop_h, crop_w))
        canvas = np.ones((side_h, side_w, im.shape[2]), np.float32) * (
            0.0 if self.crop_mean is None else self.crop_mean
        )
        canvas[pad_y : pad_y + crop_h, pad_x : pad_x + crop_w] = context
        return canvas

    def configure_crop(self, context_pad: int | None) -> None:
        """Set how much of the surroundings a crop shows, and the mean that fills what lies outside of the image.

        Raises:
            CaffeError: ``context_pad`` is no number of pixels, or leaves nothing of the input.
        """
        name = self.inputs[0]
        shape = tuple(self.transformer.inputs[name])
        pad = numbers(context_pad or 0, "context_pad")
        if pad.ndim or pad < 0:
            raise CaffeError(f"context_pad: {context_pad} is not a number of pixels, 0 or more")
        if not 2 * pad < min(shape[2:]):
            raise CaffeError(
                f"context_pad: {context_pad} leaves nothing of an input {shape[3]} wide and {shape[2]} high"
            )
        self.context_pad = context_pad or 0
        if not self.context_pad:
            return
        mean = self.transformer.mean.get(name)
        if mean is None:
            self.crop_mean = np.zeros((*shape[2:], shape[1]), np.float32)
            return
        filled = np.broadcast_to(mean, shape[1:]).astype(np.float32)
        if name in self.transformer.raw_scale:
            filled = filled / self.transformer.raw_scale[name]
        if name in self.transformer.channel_swap:
            filled = filled[np.argsort(self.transformer.channel_swap[name])]
        self.crop_mean = np.ascontiguousarray(filled.transpose(1, 2, 0))


def _pairs(images_windows: Any) -> Iterator[tuple[Any, Any]]:
    """The images and their windows, each an array of four columns."""
    many = isinstance(images_windows, Iterable) and not isinstance(images_windows, (str, bytes, np.ndarray, Mapping))
    for pair in images_windows if many else [images_windows]:
        if not many or not isinstance(pair, (tuple, list)) or len(pair) != 2:
            given = images_windows if not many else pair
            raise DataError(
                "detect_windows takes a list of pairs (image file, array of windows (ymin, xmin, ymax, xmax)), "
                f"not a {type(given).__name__}{'' if many else ' instead of the list'}"
            )
        filename, given = pair
        rows = given if hasattr(given, "__len__") else list(given)
        windows = numbers(rows, f"windows of {filename}")
        if windows.size and (windows.ndim != 2 or windows.shape[1] != 4):
            raise DataError(
                f"windows of {filename}: an array of shape {windows.shape}, but rows of (ymin, xmin, ymax, xmax) are expected"
            )
        yield filename, rows
