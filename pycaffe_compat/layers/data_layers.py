"""Layers that read their batches from databases and files: Data, ImageData, HDF5Data, WindowData; and MemoryData."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence, Sized
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from .. import memory
from ..data import random_sizes, stretching
from ..data.batches import DatabaseReader, ImageReader, ListReader, Reader, Shard
from ..data.database import LEVELDB
from ..data.effort import Effort
from ..data.hdf5 import Hdf5Reader
from ..data.loader import Loader, to_tensor
from ..data.staging import Staged
from ..data.transformer import Transformer, crop_of, fixed_size
from ..data.window_file import WindowOptions, WindowReader, read_windows
from ..errors import DataError, MissingFileError
from ..proto import caffe_pb2
from ..tables import dims
from .base import Shape, Source, count
from .registry import register

log = logging.getLogger(__name__)


class BatchSource(Source):
    """A source whose batches a :class:`..data.loader.Loader` makes in the background.

    What is drawn for a record comes only from the seed and the position of the record, so a run that is resumed from
    :meth:`state`, with however many threads, sees the same batches. A subclass returns its reader from
    :meth:`make_reader`.

    Attributes:
        seed: set it before the first batch; default: torch's initial seed.
        rank, world: this process takes the records ``rank``, ``rank + world``, …. Set them before the first batch.
        threads: the number of threads; None: the processors, at most 16.
        transforms_bytes: whether the layer can make batches of bytes, for :attr:`device_transform`.
    """

    random = True
    transforms_bytes: ClassVar[bool] = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self.rank, self.world = 0, 1
        self.threads: int | None = None
        self._seed: int | None = None
        self._position = 0
        self._loader: Loader | None = None
        self._staged: Staged | None = None
        self._stream: torch.cuda.Stream | None = None
        self._effort = Effort()
        self._prefetch: int = param.data_param.prefetch
        with self._named():
            self._reader = self.make_reader(param)
            self._shapes = self._reader.shapes()[: self.n_tops]
        if lacking := memory.lacking(4 * sum(map(count, self._shapes))):
            raise self.error(f"a batch of shape {dims(self._shapes[0])} needs {lacking}")

    @property
    def records(self) -> int | None:
        """How many records its data has; None where that is not known."""
        return len(self._reader) if isinstance(self._reader, Sized) else None

    @property
    def in_a_batch(self) -> int:
        """The records in a batch."""
        return self._reader.batch_size

    @classmethod
    def source(cls, param: Any) -> str:
        """The path of the database or list that a layer with these options reads."""
        return getattr(param, cls.option_fields()[0]).source

    def make_reader(self, param: Any) -> Reader:
        """Open the database or list and return what makes batches of it."""
        raise NotImplementedError

    def batch_size(self, options: Any) -> int:
        """Return ``options.batch_size`` after checking it.

        Raises:
            LayerError: it is below 1.
        """
        if options.batch_size < 1:
            raise self.error(f"batch_size is {options.batch_size}; it must be at least 1")
        return options.batch_size

    def size_option(self, options: Any, name: str = "new") -> tuple[int, int] | None:
        """Return ``NAME_height`` and ``NAME_width``; None if both are 0.

        Raises:
            LayerError: one of them is 0.
        """
        height, width = (getattr(options, f"{name}_{side}") for side in ("height", "width"))
        if bool(height) != bool(width):
            raise self.error(f"{name}_height is {height} and {name}_width {width}; set both, or neither")
        return (height, width) if height else None

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Add the layer to errors about its data."""
        try:
            yield
        except (DataError, MissingFileError) as error:
            raise type(error)(f'layer "{self.name}" ({self.type_name}): {error}') from error

    @property
    def seed(self) -> int:
        """What all random choices come from."""
        if self._seed is None:
            self._seed = torch.initial_seed()
        return self._seed

    @seed.setter
    def seed(self, value: int) -> None:
        self.close()
        self._seed = int(value)

    @property
    def device_transform(self) -> bool:
        """Make batches of bytes, and let :attr:`device` subtract the mean, scale and mirror: the same numbers.

        A quarter of the bytes goes to a GPU, and the host has less to do. Batches of ``float_data`` are made as ever.

        Raises:
            LayerError: set for a layer that cannot.
        """
        return isinstance(self._reader, ImageReader) and self._reader.as_bytes

    @device_transform.setter
    def device_transform(self, on: bool) -> None:
        if on == self.device_transform:
            return
        if not isinstance(self._reader, ImageReader):
            raise self.error("does not transform images on a device: only Data and ImageData do")
        self.close()
        self._reader.as_bytes = on

    def top_shapes(self) -> list[Shape]:
        return self._shapes

    def forward(self) -> tuple[Tensor, ...]:
        """Return the next batch: ``float32`` tensors on :attr:`device`; those in CPU memory are page-locked once CUDA is used.

        Where the device is a GPU and the batch after is ready, its copy begins.

        Raises:
            DataError, MissingFileError: a record that cannot be used; names the layer and the record.
        """
        staged, self._staged = self._staged or self._stage(), None
        self._position += self._reader.batch_size * self.world
        tops = staged.tops()
        if self._stream is not None and self._loader is not None and self._loader.ready:
            self._staged = self._stage()
        return tops[: self.n_tops]

    def _stage(self) -> Staged:
        """Bring the next batch to the device."""
        if self._loader is None:
            begin = functools.partial(self._reader.begin, Shard(self.seed, self.rank, self.world))
            stride = self._reader.batch_size * self.world
            self._effort = Effort()
            if isinstance(self._reader, ImageReader):
                self._reader.effort = self._effort
            self._loader = Loader(begin, stride, self._prefetch, self.threads, self._effort)
            self._loader.seek(self._position)
        loader = self._loader
        if self.device.type != "cuda":
            self._stream = None
        elif self._stream is None or self._stream.device != self.device:
            self._stream = torch.cuda.Stream(self.device)
        finish = self._reader.finish if isinstance(self._reader, ImageReader) else tuple
        collected = self._reader.collected if isinstance(self._reader, ImageReader) else list
        with self._named():
            return Staged(
                lambda: [to_tensor(array) for array in collected(loader.next())], finish, self.device, self._stream
            )

    def describe_effort(self) -> str:
        """Say where the time of making batches has gone since the first one, and what would help."""
        threads = self._loader.threads if self._loader else 1
        on_host = self.transforms_bytes and not self.device_transform
        told = self._effort.describe(threads, 0, on_host)
        if isinstance(self._reader, ImageReader):
            reader = self._reader
            told = self._effort.describe(threads, reader.crop, on_host, reader.work, reader.advice)
        return f'layer "{self.name}" ({self.type_name}): {told}'

    def state(self) -> dict[str, Any]:
        return {"position": self._position, "seed": self.seed}

    def seek(self, state: dict[str, Any]) -> None:
        self.seed = state["seed"]
        self._position = int(state["position"])

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, or a pickled source, opens its files itself and continues at the position of this one."""
        how = (self.rank, self.world, self.threads, self.device, self.device_transform)
        return _reopened, (type(self), self.param, self.state(), self.training, *how)

    def close(self) -> None:
        loader, self._loader = self._loader, None
        self._staged = None
        if loader is not None:
            loader.close()


def _reopened(
    cls: type[BatchSource],
    param: Any,
    state: dict[str, Any],
    train: bool,
    rank: int,
    world: int,
    threads: int | None,
    device: torch.device,
    device_transform: bool,
) -> BatchSource:
    source = cls(param, [])
    source.seek(state)
    source.rank, source.world, source.threads = rank, world, threads
    source.device, source.device_transform = device, device_transform
    return source.train(train)


def shapes_of_images(transform: Any, batch_size: int, channels: int) -> list[Shape] | None:
    """The shapes of images and labels, if ``transform_param`` gives them; ``channels`` where it does not say how many."""
    if transform.force_gray:
        channels = 1
    elif transform.force_color:
        channels = 3
    elif len(transform.mean_value) > 1:
        channels = len(transform.mean_value)
    size = crop_of(transform) or fixed_size(transform)
    size = size and (size[0] + 2 * transform.pad, size[1] + 2 * transform.pad)
    return [(batch_size, channels, *size), (batch_size,)] if size and channels else None


OF_IMAGES = frozenset(
    f"transform_param.{name}"
    for name in (
        *("crop_h", "crop_w", "crop_height", "crop_width", "resize_param", "noise_param"),
        *stretching.FIELDS,
        *random_sizes.FIELDS,
    )
)


class DatabaseSource(BatchSource):
    """A source of the images of an LMDB. A subclass returns what reads its records from :meth:`open`.

    Attributes:
        several_sizes: whether what reads the records chooses between several ``resize_param``.
    """

    several_sizes: ClassVar[bool] = False
    transforms_bytes = True
    tops: ClassVar[tuple[int, int | None]] = (1, 2)

    def make_reader(self, param: Any) -> Reader:
        options = param.data_param
        size = self.batch_size(options)
        # A file that leaves the backend out means LEVELDB in Caffe. Here an LMDB is read whatever the backend, so that nets
        # whose databases were made again need no change; a LevelDB is refused where it is opened.
        levels = options.HasField("backend") and options.backend != caffe_pb2.DataParameter.LMDB
        if levels and not os.path.exists(os.path.join(options.source, "data.mdb")):
            raise DataError(LEVELDB.format(path=options.source))
        transformer = Transformer(param.transform_param, self.phase, self.several_sizes)
        color = True if options.force_encoded_color else transformer.color
        return self.open(param, transformer, size, color)

    def open(self, param: Any, transformer: Transformer, batch_size: int, color: bool | None) -> Reader:
        """Return what reads the records; ``color`` is that of :func:`..data.datum.datum_to_array`."""
        raise NotImplementedError


@register("Data")
class Data(DatabaseSource):
    """Caffe's ``Data``: Datums of an LMDB in key order, again and again.

    As in Caffe 1.0 ``rand_skip`` is accepted and does nothing here. ``force_encoded_color`` decodes to BGR.
    """

    options = ("data_param", "transform_param")
    fork_options = OF_IMAGES | {"transform_param.pad"}
    inert_options = frozenset({"prefetch", "rand_skip"})

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        return shapes_of_images(param.transform_param, param.data_param.batch_size, channels)

    def open(self, param: Any, transformer: Transformer, batch_size: int, color: bool | None) -> Reader:
        return DatabaseReader(param.data_param.source, transformer, batch_size, color)


@register("ImageData")
class ImageData(BatchSource):
    """Caffe's ``ImageData``: the images of a list file, resized if asked.

    With HashNet's ``label_dim`` each line has so many labels, which make a second axis.
    """

    options = ("image_data_param", "transform_param")
    fork_options = OF_IMAGES | {"transform_param.pad", "image_data_param.label_dim"}
    transforms_bytes = True
    tops = (2, 2)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        options = param.image_data_param
        shapes = shapes_of_images(param.transform_param, options.batch_size, 3 if options.is_color else 1)
        if shapes is None or not options.HasField("label_dim"):
            return shapes
        return [shapes[0], (*shapes[1], options.label_dim)]

    def make_reader(self, param: Any) -> Reader:
        options = param.image_data_param
        size = self.batch_size(options)
        several = options.HasField("label_dim")
        if several and options.label_dim < 1:
            raise self.error(f"image_data_param.label_dim: {options.label_dim} must be at least 1")
        return ListReader(
            options.source,
            Transformer(param.transform_param, self.phase),
            size,
            root=options.root_folder,
            color=options.is_color,
            size=self.size_option(options),
            shuffle=options.shuffle,
            skip=options.rand_skip,
            labels=options.label_dim if several else None,
        )


@register("HDF5Data")
class HDF5Data(BatchSource):
    """Caffe's ``HDF5Data``: rows of HDF5 files; each top is the dataset of the same name."""

    def make_reader(self, param: Any) -> Reader:
        options = param.hdf5_data_param
        if param.HasField("transform_param"):
            raise self.error("does not transform data: remove transform_param")
        return Hdf5Reader(options.source, list(param.top), self.batch_size(options), options.shuffle)


@register("WindowData")
class WindowData(BatchSource):
    """Caffe's ``WindowData``: windows of images, as R-CNN was trained on."""

    options = ("window_data_param", "transform_param")
    inert_options = frozenset({"cache_images"})
    tops = (2, 2)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        return shapes_of_images(param.transform_param, param.window_data_param.batch_size, 3)

    def make_reader(self, param: Any) -> Reader:
        options, transform = param.window_data_param, param.transform_param
        size = self.batch_size(options)
        if not transform.crop_size:
            raise self.error("transform_param.crop_size is 0; it must be the size that windows are warped to")
        if options.crop_mode not in ("warp", "square"):
            raise self.error(f'crop_mode is "{options.crop_mode}"; it must be "warp" or "square"')
        windows = read_windows(options.source, options.fg_threshold, options.bg_threshold, options.root_folder)
        return WindowReader(
            options.source,
            windows,
            size,
            WindowOptions(
                crop=transform.crop_size,
                mirror=transform.mirror,
                scale=transform.scale,
                mean_file=transform.mean_file,
                mean_values=tuple(transform.mean_value),
                context_pad=options.context_pad,
                square=options.crop_mode == "square",
                foreground_fraction=options.fg_fraction,
                cache=options.cache_images,
            ),
        )


@register("MemoryData")
class MemoryData(Source):
    """Caffe's ``MemoryData``: batches from arrays that your program supplies with :meth:`reset`, again and again.

    ``dim`` gives a shape of any number of axes; then labels are N×1×…, and may be left out.
    """

    options = ("memory_data_param", "transform_param")
    fork_options = frozenset({"memory_data_param.dim"})
    tops = (1, 2)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape]:
        options = param.memory_data_param
        if options.dim:
            shape = tuple(options.dim)
            return [shape, (*shape[:1], *(1,) * (len(shape) - 1))]
        return [(options.batch_size, options.channels, options.height, options.width), (options.batch_size,)]

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        self._shape, self._label_shape = self.known_shapes(param)
        if param.memory_data_param.dim:
            if min(self._shape) < 1:
                raise self.error(f"memory_data_param.dim: {dims(self._shape)} must be positive")
        elif len(param.top) == 1:
            raise self.error("has 1 top blob, but takes exactly 2")
        elif min(self._shape) < 1:
            raise self.error(
                "batch_size, channels, height and width must be given and positive; they are "
                f"{', '.join(map(str, self._shape))}"
            )
        self._transforms = param.HasField("transform_param")
        self._data: Tensor | None = None
        self._labels: Tensor | None = None
        self._position = 0

    def top_shapes(self) -> list[Shape]:
        return [self._shape, self._label_shape][: self.n_tops]

    def reset(self, data: Any, labels: Any) -> None:
        """Take batches from these arrays from now on, beginning at the first.

        ``float32`` arrays are not copied: what is written into them later is what the next batches hold.

        Args:
            data: N×C×H×W, or as ``dim`` says, N a multiple of ``batch_size``.
            labels: N values, of any shape.

        Raises:
            LayerError: a shape that does not fit.
        """
        images, targets = _float32(data), _float32(labels)
        if not images.ndim or tuple(images.shape[1:]) != self._shape[1:]:
            raise self.error(f"data has shape {dims(images.shape)}; expected N×{dims(self._shape[1:])}")
        if not len(images) or len(images) % self._shape[0]:
            raise self.error(f"data has {len(images)} images; expected a multiple of batch_size {self._shape[0]}")
        if targets.numel() != len(images):
            raise self.error(
                f"labels has shape {dims(targets.shape)}; expected one label for each of {len(images)} images"
            )
        if self._transforms:
            log.warning('layer "%s" (MemoryData) does not transform arrays: transform_param has no effect', self.name)
        self._data, self._labels = images, targets.reshape(-1, *self._label_shape[1:])
        self._position = 0

    def forward(self) -> tuple[Tensor, ...]:
        """Return the next batch: views of the arrays.

        Raises:
            LayerError: there are no arrays yet.
        """
        if self._data is None or self._labels is None:
            raise self.error("has no data yet: give it arrays first, with reset(data, labels) or Net.set_input_arrays")
        part = slice(self._position, self._position + self._shape[0])
        self._position = (self._position + self._shape[0]) % len(self._data)
        return (self._data[part], self._labels[part])[: self.n_tops]

    def state(self) -> dict[str, Any]:
        return {"position": self._position}

    def seek(self, state: dict[str, Any]) -> None:
        self._position = int(state["position"])


def _float32(values: Any) -> Tensor:
    """Return a tensor over the memory of ``values`` where that can be."""
    array = np.ascontiguousarray(values, np.float32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())
