"""``caffe.Classifier``: class scores of images in one call."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np

from ..proto.caffe_pb2 import TEST
from . import io
from .net import Net

PathLike = str | os.PathLike[str]


class ImageNet(Net):
    """A net with one image input and the :class:`~.io.Transformer` that feeds it."""

    def __init__(
        self,
        model_file: PathLike,
        pretrained_file: PathLike,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, pretrained_file, TEST)
        name = self.inputs[0]
        self.transformer = io.Transformer({name: self.blobs[name].data.shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(name, mean)
        if input_scale is not None:
            self.transformer.set_input_scale(name, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(name, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(name, channel_swap)

    def scores(self, crops: Iterable[np.ndarray]) -> np.ndarray:
        """Feed crops of the input's size (or any size: they are resized) and return the first output, a row a crop."""
        name = self.inputs[0]
        batch = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        return self.forward_all(None, **{name: batch})[self.outputs[0]]


class Classifier(ImageNet):
    """A net that classifies images.

    Args:
        model_file, pretrained_file: prototxt and caffemodel.
        image_dims: size that images are resized to before they are cropped; the input's size if None.
        mean, input_scale, raw_scale, channel_swap: as the setters of :class:`~.io.Transformer` take them.
    """

    def __init__(
        self,
        model_file: PathLike,
        pretrained_file: PathLike,
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = np.array(self.crop_dims if image_dims is None else image_dims)

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """Return class scores of images (height×width×channels in [0, 1], as ``io.load_image`` gives), a row an image.

        ``oversample`` averages over ten crops; otherwise the centre crop alone is used.
        """
        images = [io.resize_image(image, tuple(self.image_dims)) for image in inputs]
        if oversample:
            scores = self.scores(io.oversample(images, tuple(self.crop_dims)))
            return scores.reshape(len(images), 10, -1).mean(axis=1)
        top, left = (self.image_dims - self.crop_dims) // 2
        height, width = self.crop_dims
        return self.scores([image[top : top + height, left : left + width] for image in images])
