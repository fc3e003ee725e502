"""``caffe.Classifier``: class scores of images in one call."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import DataError, NetError
from ..proto.caffe_pb2 import TEST, TRAIN
from . import io
from .net import Net

log = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]


class ImageNet(Net):
    """A net with one input, of images, and the :class:`~.io.Transformer` that feeds it.

    ``settings`` are those of the transformer by name: ``mean``, ``raw_scale`` and so on; None leaves one out.

    Raises:
        NetError: a net that has no such input, or no output.
    """

    def __init__(self, model_file: PathLike, pretrained_file: PathLike, **settings: Any) -> None:
        if pretrained_file is None:
            raise TypeError(f"{type(self).__name__} needs trained weights: the path of a caffemodel, not None")
        super().__init__(model_file, pretrained_file, TEST)
        name = self._image_input()
        self.transformer = io.Transformer({name: self.blobs[name].shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        for setting, value in settings.items():
            if value is not None:
                getattr(self.transformer, f"set_{setting}")(name, value)

    def _image_input(self) -> str:
        kind = type(self).__name__
        where = f"{self.module.file}: " if self.module.file else ""
        if not self.inputs:
            sources = ", ".join(f'"{name}" ({layer.type_name})' for name, layer in self.module.sources.items())
            raise NetError(
                f"{where}{kind} feeds the net's Input, and this net has none; its data comes from "
                f"{f'layer {sources}' if sources else 'no layer at all'}. Use the deploy prototxt, whose first layer is an Input"
            )
        if len(self.inputs) > 1:
            raise NetError(
                f"{where}{kind} feeds one input, and this net has {len(self.inputs)}: {', '.join(self.inputs)}. "
                "Fill their blobs yourself (caffe.Net, io.Transformer)"
            )
        name = self.inputs[0]
        shape = self.blobs[name].shape
        if len(shape) != 4 or not all(shape):
            raise NetError(
                f'{where}{kind} feeds images, but the input "{name}" has shape {shape}; '
                "four axes are needed, number×channels×height×width, none of them empty"
            )
        if not self.outputs:
            raise NetError(f"{where}{kind} returns the net's first output, and this net has none")
        return name

    def scores(self, crops: Iterable[np.ndarray]) -> np.ndarray:
        """Feed crops of the input's size (or any size: they are resized) and return the first output, a row a crop.

        Raises:
            NetError: an output that has not a row for each image.
        """
        name, output = self.inputs[0], self.outputs[0]
        batch = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        found = self.forward_all(None, **{name: batch})[output]
        if len(found) != len(batch):
            raise NetError(
                f'the output "{output}" has shape {self.blobs[output].shape}: not a row for each of the '
                f"{self.blobs[name].shape[0]} images of a batch, so it holds no scores of images"
            )
        return found


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
        super().__init__(
            model_file,
            pretrained_file,
            mean=mean,
            input_scale=input_scale,
            raw_scale=raw_scale,
            channel_swap=channel_swap,
        )
        self.crop_dims = np.array(self.blobs[self.inputs[0]].shape[2:])
        self.image_dims = self.crop_dims
        if isinstance(image_dims, int) and image_dims in (TRAIN, TEST):
            log.warning(
                "Classifier(model_file, pretrained_file, image_dims): a phase, %d, is given for image_dims and left out. "
                "Classifier always makes a net for TEST",
                image_dims,
            )
        elif image_dims is not None:
            self.image_dims = np.array(io.two_sizes(image_dims, "image_dims"))
        if (self.image_dims < self.crop_dims).any():
            raise DataError(
                f"image_dims: images of {'×'.join(map(str, self.image_dims))} are smaller than the net's input, "
                f"{'×'.join(map(str, self.crop_dims))}, to which they are cropped"
            )

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """Return class scores of images (height×width×channels in [0, 1], as ``io.load_image`` gives), a row an image.

        ``inputs`` is a list, or an array of four axes; an array of three is a stack of grey images if the net takes those.
        ``oversample`` averages over ten crops; otherwise only the centre crop is used.

        Raises:
            DataError: a single image or the name of a file in place of a list, or something in it that is no image.
        """
        grey = self.blobs[self.inputs[0]].shape[1] == 1
        if grey and isinstance(inputs, np.ndarray) and inputs.ndim == 3 and inputs.shape[2] > 4:
            inputs = inputs[..., None]
        size = tuple(self.image_dims)
        images = [io.resize_image(image, size) for image in io.as_images(inputs, "predict")]
        if oversample:
            scores = self.scores(io.oversample(images, tuple(self.crop_dims)))
            return scores.reshape(len(images), 10, -1).mean(axis=1)
        top, left = (self.image_dims - self.crop_dims) // 2
        height, width = self.crop_dims
        return self.scores([image[top : top + height, left : left + width] for image in images])
