"""Pictures through trained nets: what each decoder makes of them, and how near that is to the pictures."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..data.mean import read_mean
from ..errors import CaffeError, DataError, NetError, WeightsError, prefixed
from ..net import Net
from ..proto import read_net, read_weights
from .blocks import MEAN_VALUE
from .decoders import PREFIX, Augmented, Source, read_augmented
from .encoder import image_shape
from .pictures import Frame, Pictures
from .quality import WINDOW, psnr, ssim
from .trained import Trained, titled

Size = tuple[int, int]


@dataclass(frozen=True)
class Options:
    """How pictures are given to the nets.

    Attributes:
        image: the blob of the images; ``""`` finds it.
        crop: height and width of what the nets are shown of a picture; None for what the nets say.
        edge: pictures are resized until their shorter edge has this length; None: see :class:`~.pictures.Frame`.
        mean: what is subtracted, a number for all channels, one for each, or an array of (channels, height, width); None
            for what the net's data layer says, or VGG's where it has none.
        scale: what the rest is multiplied by; None for what the net's data layer says, or 1.
        rows: how many pictures are kept with their reconstructions.
        batch: pictures at a time.
    """

    image: str = ""
    crop: Size | None = None
    edge: int | None = None
    mean: Any = None
    scale: float | None = None
    rows: int = 8
    batch: int = 8

    def __post_init__(self) -> None:
        numbers = {"crop": min(self.crop or (1,)), "edge": self.edge, "rows": self.rows, "batch": self.batch}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise DataError(f"{name}: {value} must be at least 1")
        if self.scale is not None and (not math.isfinite(self.scale) or self.scale == 0):
            raise DataError(f"scale: {self.scale} must be a number other than 0")


@dataclass
class Decoded:
    """What one decoder made of the pictures.

    Attributes:
        title: ``SWWAE-all``; columns of a title belong together.
        source: what was decoded from.
        trained: the net.
        psnr, ssim: a number a picture (:mod:`~.quality`); no SSIM where pictures are smaller than its window.
        shown: (rows, channels, height, width), from 0 to 1, of the first pictures.
    """

    title: str
    source: Source
    trained: Trained
    psnr: np.ndarray = field(default_factory=lambda: np.empty(0))
    ssim: np.ndarray | None = None
    shown: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass
class Reconstructions:
    """What :func:`reconstruct` found.

    Attributes:
        names: of all pictures.
        originals: the first ones as they were shown: (rows, channels, height, width), from 0 to 1.
        columns: what each decoder made, by title and then by depth.
        converted: how many pictures were turned from ``"grey"`` or ``"colour"`` into the other.
        preparation: of each net, by path: what was subtracted and multiplied, in words.
    """

    names: list[str]
    originals: np.ndarray
    columns: list[Decoded]
    converted: Counter[str]
    preparation: dict[str, str]

    @property
    def size(self) -> Size:
        """Height and width of the pictures."""
        return (self.originals.shape[2], self.originals.shape[3])


class _Decoder:
    """A net of the command line, read: its decoder, its preparation and the shape of its images."""

    def __init__(self, trained: Trained, options: Options) -> None:
        self.trained = trained
        with prefixed(trained.net):
            param = read_net(trained.net)
            self.augmented: Augmented = read_augmented(param, options.image)
            self.shape, self.own_size = self._image_shape(param, options.crop)
        self.title = f"{self.augmented.kind.upper()}-{self.augmented.objective}"
        with prefixed(trained.net):
            self._prepare(options)

    def _image_shape(self, param: Any, crop: Size | None) -> tuple[tuple[int, ...], Size | None]:
        """(channels, height, width) of the images, and the net's own height and width, if it says."""
        try:
            shape = self.trained.image_shape or image_shape(param, self.augmented.image)
        except NetError as error:
            if crop is None:
                raise NetError(
                    f'no layer gives the size of the images in "{self.augmented.image}" (crop_size would): give --crop HxW'
                ) from error
            return (self._channels(param), *crop), None
        if len(shape) != 3 or shape[0] not in (1, 3):
            raise NetError(
                f'"{self.augmented.image}" has the shape {"x".join(map(str, shape))} without the batch axis: not '
                "a grey or colour image"
            )
        return (shape[0], *(crop or shape[1:])), (shape[1], shape[2])

    def _channels(self, param: Any) -> int:
        """The channels that the weights of the first convolution look at."""
        for layer in param.layer:
            if layer.type == "Convolution" and self.augmented.image in layer.bottom:
                for path in reversed(self.trained.weights):
                    stored = read_weights(path)
                    shape = stored.shapes(layer.name)[0] if layer.name in stored else None
                    if shape is not None and len(shape) == 4:
                        return shape[1] * layer.convolution_param.group
        raise NetError(f'the channels of "{self.augmented.image}" are not known: no convolution with weights reads it')

    def _prepare(self, options: Options) -> None:
        transform, (channels, height, width) = self.augmented.transform, self.shape
        mean = options.mean
        if mean is None and transform is not None:
            mean = (
                read_mean(transform.mean_file) if transform.HasField("mean_file") else list(transform.mean_value) or [0]
            )
        elif mean is None and channels == len(MEAN_VALUE):
            mean = MEAN_VALUE
        elif mean is None:
            raise DataError(
                "no data layer gives the mean and scale of the grey images: give --mean (0 for none) and --scale"
            )
        array = np.asarray(mean, np.float32)
        if array.ndim == 3:
            high, wide = array.shape[1:]
            if high >= height and wide >= width:
                top, left = (high - height) // 2, (wide - width) // 2
                array = array[:, top : top + height, left : left + width]
            else:
                array = array.mean((1, 2), keepdims=True)
        else:
            array = array.reshape(-1, 1, 1)
        if len(array) not in (1, channels):
            raise DataError(f"a mean of {len(array)} numbers for pictures of {channels} channels")
        own = transform.scale if transform is not None else 1.0
        self.mean, self.scale = array, float(own if options.scale is None else options.scale)
        means = np.broadcast_to(array.mean((1, 2)), (channels,))
        about = ", ".join(f"{number:g}" for number in np.round(means.astype(float), 3))
        self.preparation = f"minus {'a mean image of ' if array.size > channels else ''}{about}, times {self.scale:.6g}"

    def sources(self, alone: bool) -> list[Source]:
        """What it decodes from: where it stands ``alone`` everything, deepest last; else what it was made for."""
        return self.augmented.sources[::-1] if alone else self.augmented.sources[:1]

    def build(self, source: Source, batch: int, device: torch.device | str) -> Net:
        """Return the net that decodes from ``source``, with its weights.

        Raises:
            NetError: it cannot take images of this size. WeightsError: the weights do not fit, or some are missing.
        """
        trained = self.trained
        param = self.augmented.net_from(source, (batch, *self.shape))
        size = self.shape[1:]
        if size != self.own_size and any(layer.type == "InnerProduct" for layer in param.layer):
            own = "x".join(map(str, self.own_size)) if self.own_size else "one size"
            raise NetError(
                f"{trained.net}: on the way from {source.blob} there are fully connected layers, which take pictures of {own} "
                f"only, not of {'x'.join(map(str, size))}"
            )
        try:
            net = Net(param, "TEST", weights=list(trained.weights), file=trained.net, device=device)
        except NetError as error:
            if size == self.own_size:
                raise
            raise NetError(f"{error}. Pictures are cropped to {_fits(param, size)}") from error
        wanted, made = (batch, *self.shape), net.blob_shapes[PREFIX + self.augmented.image]
        if made != wanted:
            net.close()
            raise NetError(
                f"{trained.net}: pictures of {'x'.join(map(str, size))} come back as {'x'.join(map(str, made[2:]))}: they are "
                f"cropped to {_fits(param, size)}"
            )
        if missing := net.load_report.missing:
            net.close()
            raise WeightsError(
                f"{', '.join(trained.weights)}: no weights for {', '.join(missing[:6])}{' …' if len(missing) > 6 else ''} of "
                f"{trained.net}: are they from another net, or from one without a decoder?"
            )
        return net

    def to_net(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (n, channels, height, width) as the net takes them."""
        return ((pixels.astype(np.float32) - self.mean) * np.float32(self.scale)).astype(np.float32)

    def to_pictures(self, decoded: np.ndarray) -> np.ndarray:
        """What the decoder made as pictures from 0 to 1, or beyond where it exceeded the range."""
        return (decoded / (self.augmented.image_scale * self.scale) + self.mean) / 255


def _fits(param: Any, size: Sequence[int]) -> str:
    """``size`` in words, with the sizes that the poolings of a net divide where it is not one of them."""
    step = 1
    for layer in param.layer:
        if layer.type == "Pooling":
            step *= max(layer.pooling_param.stride, layer.pooling_param.stride_h, layer.pooling_param.stride_w, 1)
    shown = "x".join(map(str, size))
    return f"{shown}: choose --crop so that height and width are multiples of {step}" if step > 1 else shown


def reconstruct(
    nets: Sequence[Trained],
    pictures: Pictures,
    options: Options | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: bool | None = None,
) -> Reconstructions:
    """Reconstruct pictures with every net, from each layer that it decodes from, and measure how near they come.

    A net whose losses reconstruct activations on the way (``all``, ``layerwise``) decodes from each of them, its stages
    stacked; one that reconstructs only the image (``first``) decodes from where it was trained to. Of several nets with one
    title and different layers (the authors' ``layer1`` … ``layer5``) each decodes from its own.

    Args:
        nets: the trained nets.
        pictures: what they are shown.
        options: how.
        device: where the nets run.
        progress: show a progress bar; None: where standard error is a terminal.

    Raises:
        NetError: a net has no decoder, or takes no such pictures. WeightsError: weights do not fit.
        DataError: a picture cannot be read or is too small. DivergedError: a reconstruction is not finite.
    """
    options = options or Options()
    if not nets:
        raise NetError("no nets are given")
    decoders = [_Decoder(trained, options) for trained in nets]
    shape = _one_shape(decoders)
    deepest = [each.augmented.sources[0].blob for each in decoders]
    titles = titled(nets, [each.title for each in decoders], deepest)
    alone = {title: count == 1 for title, count in Counter(titles).items()}
    found = [
        (decoder, Decoded(title, source, decoder.trained))
        for decoder, title in zip(decoders, titles, strict=True)
        for source in decoder.sources(alone[title])
    ]
    for decoder, column in found:  # before the long work
        decoder.build(column.source, 1, "cpu").close()
    order = {title: number for number, title in enumerate(dict.fromkeys(titles))}
    found.sort(key=lambda each: (order[each[1].title], each[1].source.depth))
    frame = Frame((shape[1], shape[2]), options.edge)
    names: list[str] = []
    converted: Counter[str] = Counter()
    originals = np.empty((0, *shape), np.uint8)
    shown = None if progress is None else not progress
    with tqdm(total=len(found) * len(pictures), desc="pictures", unit="pic", disable=shown) as bar:
        for number, (decoder, column) in enumerate(found):
            bar.set_postfix_str(f"{column.title} from {column.source.label}", refresh=False)
            with closing(decoder.build(column.source, options.batch, device)) as net:
                batches = _batches(pictures, shape[0], frame, options.batch, None if number else names, converted)
                originals = _decode(decoder, column, net, batches, options.rows, device, bar)
    return Reconstructions(
        names,
        originals.astype(np.float32) / 255,
        [column for _, column in found],
        converted,
        {each.trained.net: each.preparation for each in decoders},
    )


def _one_shape(decoders: Sequence[_Decoder]) -> tuple[int, ...]:
    """The shape of the images of all nets."""
    shapes = {each.shape: each.trained.net for each in decoders}
    if len(shapes) > 1:
        words = "; ".join(f"{net}: {'x'.join(map(str, shape))}" for shape, net in shapes.items())
        raise NetError(
            f"the nets take pictures of different shapes, so one grid cannot show them: {words}; --crop HxW sets one"
        )
    return next(iter(shapes))


def _batches(
    pictures: Pictures, channels: int, frame: Frame, size: int, names: list[str] | None, converted: Counter[str]
) -> Iterator[np.ndarray]:
    """The pictures as batches of pixels; their names and conversions are noted where ``names`` is a list."""
    read = pictures.read(channels)
    while group := list(itertools.islice(read, size)):
        if names is not None:
            names += [each.name for each in group]
            converted.update(each.converted for each in group if each.converted)
        yield np.stack([frame.cut(each) for each in group])


def _decode(
    decoder: _Decoder, column: Decoded, net: Net, batches: Iterator[np.ndarray], rows: int, device: Any, bar: Any
) -> np.ndarray:
    """Fill a column; return the pixels of the first pictures."""
    name = PREFIX + decoder.augmented.image
    psnrs, ssims = [], []
    shown: list[np.ndarray] = []
    originals: list[np.ndarray] = []
    with torch.inference_mode():
        for pixels in batches:
            blobs = {decoder.augmented.image: torch.from_numpy(decoder.to_net(pixels)).to(device)}
            made = decoder.to_pictures(net.run(**blobs)[0][name].float().cpu().numpy())
            original = pixels.astype(np.float32) / 255
            try:
                psnrs.append(psnr(original, made))
                if min(original.shape[2:]) >= WINDOW:
                    ssims.append(ssim(original, made))
            except CaffeError as error:
                raise type(error)(
                    f"{', '.join(column.trained.weights)}, from {column.source.label}: {error}"
                ) from error
            missing = rows - sum(len(each) for each in shown)
            if missing > 0:
                shown.append(np.clip(made[:missing], 0, 1).astype(np.float32))
                originals.append(pixels[:missing])
            bar.update(len(pixels))
    column.psnr, column.shown = np.concatenate(psnrs), np.concatenate(shown)
    column.ssim = np.concatenate(ssims) if ssims else None
    return np.concatenate(originals)
