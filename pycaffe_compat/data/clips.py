"""Batches of clips: some frames of each video of a list, cropped and mirrored alike.

The layers that read them are in :mod:`pycaffe_compat.forks`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np

from ..errors import DataError, prefixed, require_file
from ..proto import caffe_pb2
from ..proto.kinds import LISTS, told_apart
from . import draws
from .batches import Shape, Shard
from .image_list import LABEL, read_image, read_lines, resize
from .loader import Buffers, Job
from .mean import read_clip_mean, require_mean_values, require_one_mean

Words = tuple[str, ...]
Size = tuple[int, int]
LIMIT = "is too short"  # in the message of a video that has too few frames
_RATIOS = (1.0, 0.875, 0.75, 0.66)  # of multi_scale, by default


def read_clips(path: str | os.PathLike[str], form: str) -> list[Words]:
    """Read a list of videos: as many words as ``form`` has on each line, such as ``"PATH FRAMES LABEL"``, paths without spaces.

    Raises:
        MissingFileError: there is no such file.
        DataError: a line has not the form, or the file is empty or of another kind. The message names file and line.
    """
    name, kinds = require_file(path, "list file"), form.split()
    wanted = f'expected "{form}"'
    clips = []
    with told_apart(name, LISTS, f'a list: a text file with a line "{form}" for each video'):
        for number, line in read_lines(name):
            words = tuple(line.split())
            if len(words) != len(kinds):
                raise DataError(f'{name}:{number}: "{line}" has {len(words)} words; {wanted}')
            for word, kind in zip(words, kinds, strict=True):
                parts = word.split(",") if kind == "LABELS" else [word]
                if kind != "PATH" and not all(LABEL.fullmatch(part) and len(part) < 11 for part in parts):
                    raise DataError(f'{name}:{number}: "{word}" is not an integer; {wanted}')
            clips.append(words)
        if not clips:
            raise DataError(f"list file {name} is empty; {wanted} on each line")
    return clips


def read_frames(paths: Sequence[str], color: bool, size: Size | None) -> Iterator[np.ndarray]:
    """Yield image files as frames, H×W×3 or H×W, resized to ``size``, if it is given.

    Raises:
        MissingFileError, DataError: a file is missing or does not decode; the message names it.
    """
    for path in paths:
        with prefixed(f"frame {path}"):
            yield read_image(path, color, size)


def require_one_size(path: str, frames: Sequence[np.ndarray]) -> None:
    """Check that the frames of the video ``path`` have one shape.

    Raises:
        DataError: they have several.
    """
    if any(frame.shape != frames[0].shape for frame in frames):
        raise DataError(f"video {path}: its frames have different sizes; set new_height and new_width")


def video_length(path: str) -> int:
    """Return how many frames a video file has.

    Raises:
        MissingFileError, DataError: the file is missing, or OpenCV cannot open it.
    """
    video = _opened(path)
    frames = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    video.release()
    return frames


def read_video(path: str, frames: range, size: Size | None) -> Iterator[np.ndarray]:
    """Yield the frames of a video file, H×W×3 (BGR), resized to ``size``, if it is given.

    Raises:
        MissingFileError, DataError: the file is missing, or one of the frames cannot be read.
    """
    video = _opened(path)
    try:
        for number in range(frames.stop):
            found, frame = video.read() if number in frames else (video.grab(), None)
            if not found:
                raise DataError(f"frame {number} of video {path} cannot be read")
            if frame is not None:
                yield frame if size is None else resize(frame, size)
    finally:
        video.release()


def _opened(path: str) -> Any:
    video = cv2.VideoCapture(require_file(path, "video"))
    if not video.isOpened():
        raise DataError(f"video {path} cannot be opened: OpenCV does not support its format here")
    return video


class ClipTransform:
    """What is done to a clip, K×…×H×W: one crop for all of it, mirroring, mean and scale.

    Args:
        param: a ``TransformationParameter``. Of the fields of temporal segment networks it supports ``fix_crop``,
            ``more_fix_crop``, ``multi_scale``, ``scale_ratios``, ``max_distort`` and ``is_flow``.
        phase: ``caffe_pb2.TRAIN`` or ``TEST``. Crops are random in TRAIN; mirroring is in both.
        repeat_means: whether several ``mean_value`` are repeated for as many channels as there are.
        all_places: whether a random crop may begin at the last place, too; C3D 1.0's may not.

    Attributes:
        WORDS: the number of random words per clip.

    Raises:
        MissingFileError, DataError: options exclude each other, or the mean file is missing or not one.
    """

    WORDS = 4

    def __init__(self, param: Any, phase: int, repeat_means: bool, all_places: bool = True) -> None:
        self.crop: int = param.crop_size
        self._random = phase == caffe_pb2.TRAIN
        self._mirror, self._is_flow = param.mirror, param.is_flow
        self._scale = np.float32(param.scale)
        self._fixed, self._more = param.fix_crop, param.more_fix_crop
        self._scales, self._ratios = param.multi_scale, tuple(param.scale_ratios) or _RATIOS
        self._distort = param.max_distort
        self._repeat, self._last = repeat_means, int(all_places)
        require_one_mean(param.HasField("mean_file"), len(param.mean_value))
        self.mean_file: str = param.mean_file
        self._mean = np.array(param.mean_value or (0,), np.float32)
        if param.HasField("mean_file"):
            with prefixed("transform_param.mean_file"):
                self._mean = read_clip_mean(param.mean_file)
        if self._scales and not self.crop:
            raise DataError("transform_param.multi_scale needs crop_size")

    def check(self, shape: Shape) -> Shape:
        """Return the shape that a clip of ``shape`` has after it.

        Raises:
            DataError: the crop is larger than the frames, or the mean does not fit them.
        """
        if self.crop and min(shape[-2:]) < self.crop + 1 - self._last:
            least = "larger than the frames" if self._last else "not smaller than the frames"
            raise DataError(
                f"transform_param.crop_size {self.crop} is {least}, which are {shape[-2]} × {shape[-1]} (height × width)"
            )
        if self.mean_file:
            if self._mean.shape != shape:
                raise DataError(
                    f"transform_param.mean_file {self.mean_file} has shape {_by(self._mean.shape)}, but the clip "
                    f"{_by(shape)}; they must be equal"
                )
        elif not self._repeat or shape[0] % len(self._mean):
            require_mean_values(len(self._mean), shape[0])
        return (*shape[:-2], self.crop, self.crop) if self.crop else shape

    def __call__(self, clip: np.ndarray, words: Sequence[int], out: np.ndarray) -> None:
        """Write the transformed ``clip``, ``uint8``, to ``out``, ``float32``; ``words`` are random."""
        top, left, height, width = self._window(clip.shape[-2:], words)
        frames = clip[..., top : top + height, left : left + width]
        mean_at = (top, left)
        if self.crop and (height, width) != (self.crop, self.crop):
            planes = frames.reshape(-1, height, width)
            frames = np.stack([resize(plane, (self.crop, self.crop)) for plane in planes])
            frames = frames.reshape(*clip.shape[:-2], self.crop, self.crop)
        if self._scales and self.crop:
            mean_at = (0, 0)  # the fork takes the corner of its mean then
        values = frames.astype(np.float32)
        mirrored = bool(self._mirror and words[2] & 1)
        if mirrored and self._is_flow:
            values[::2] = 255 - values[::2]  # horizontal flow turns around
        if self.mean_file:
            rows, columns = (slice(at, at + side) for at, side in zip(mean_at, values.shape[-2:], strict=True))
            values -= self._mean[..., rows, columns]
        else:
            means = np.resize(self._mean, len(values))
            values -= means.reshape(-1, *(1,) * (values.ndim - 1))
        values *= self._scale
        out[:] = values[..., ::-1] if mirrored else values

    def _window(self, size: Size, words: Sequence[int]) -> tuple[int, int, int, int]:
        """Top, left, height and width of what is cut from frames of ``size``."""
        height, width = size
        crop = self.crop
        if not crop:
            return 0, 0, height, width
        if not self._random:
            return (height - crop) // 2, (width - crop) // 2, crop, crop
        cut = (crop, crop)
        if self._scales:
            sizes = self._sizes(min(size))
            cut = sizes[words[3] % len(sizes)]
            if cut[0] > height or cut[1] > width:
                raise DataError(
                    f"transform_param.scale_ratios ask for a crop of {cut[0]} × {cut[1]}, larger than the frames, which are "
                    f"{height} × {width} (height × width)"
                )
        if self._fixed:
            places = self._places((height - cut[0]) // 4, (width - cut[1]) // 4)
            return (*places[words[0] % len(places)], *cut)
        return words[0] % (height - cut[0] + self._last), words[1] % (width - cut[1] + self._last), *cut

    def _sizes(self, base: int) -> list[Size]:
        """The sizes of crops at several scales, by the ratios to the shorter side of a frame."""
        sides = [int(np.float32(base) * np.float32(ratio)) for ratio in self._ratios]
        sides = [self.crop if abs(side - self.crop) < 3 else side for side in sides]
        return [
            (height, width)
            for i, height in enumerate(sides)
            for j, width in enumerate(sides)
            if abs(i - j) <= self._distort
        ]

    def _places(self, down: int, right: int) -> list[Size]:
        """The top left corners that a crop may have: of its frame, the middle, and with ``more_fix_crop`` between them."""
        quarters = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
        if self._more:
            quarters += [(0, 2), (4, 2), (2, 0), (2, 4), (1, 1), (1, 3), (3, 1), (3, 3)]
        return [(i * down, j * right) for i, j in quarters]


class ClipReader:
    """Batches of clips and their labels, ``float32``.

    Args:
        load: reads the frames of a clip, K×…×H×W, ``uint8``, from the words of its line and random words.
        label: returns the label of a clip, an array, from the words of its line.
        clips: the words of each line.
        batch_size: clips per batch.
        order: the order in which they are read.
        transform: what is done to them.
        words: how many random words ``load`` needs.
        replace: take the next clip for one whose video is too short, with a warning, as C3D's Caffe does in training.
    """

    def __init__(
        self,
        load: Callable[[Words, Sequence[int]], np.ndarray],
        label: Callable[[Words], np.ndarray],
        clips: Sequence[Words],
        batch_size: int,
        order: draws.Order,
        transform: ClipTransform,
        words: int,
        replace: Callable[[DataError], None] | None = None,
    ) -> None:
        self.batch_size = batch_size
        self._load, self._label, self._clips, self._order = load, label, clips, order
        self._transform, self._words, self._replace = transform, words, replace
        self._images, self._labels = Buffers(), Buffers()

    def __len__(self) -> int:
        return len(self._clips)

    def shapes(self) -> list[Shape]:
        """Return the shapes of clips and labels, from the first clip."""
        clip, words = self._loaded(draws.Order(len(self._clips)), 0, 0, [0] * self._words)
        return self._shapes(clip, words)

    def _shapes(self, clip: np.ndarray, words: Words) -> list[Shape]:
        with prefixed(f"video {words[0]}"):
            shape = self._transform.check(clip.shape)
        return [(self.batch_size, *shape), (self.batch_size, *self._label(words).shape)]

    def _loaded(self, order: draws.Order, seed: int, position: int, random: Sequence[int]) -> tuple[np.ndarray, Words]:
        """Return the clip at a position, or the next one that is long enough, and the words of its line."""
        for step in range(len(self._clips)):
            words = self._clips[order.index(seed, position + step)]
            try:
                return self._load(words, random), words
            except DataError as error:
                if self._replace is None or LIMIT not in str(error):
                    raise
                self._replace(error)
        raise DataError("no video in the list is long enough")

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        """Return the arrays of the batch at ``position`` and the jobs that fill them."""
        positions = [int(at) for at in shard.positions(position, self.batch_size)]
        count = ClipTransform.WORDS + self._words
        random = draws.words(shard.seed, positions, count).tolist()

        def loaded(i: int) -> tuple[np.ndarray, Words]:
            return self._loaded(self._order, shard.seed, positions[i], random[i][ClipTransform.WORDS :])

        first = loaded(0)
        shapes = self._shapes(*first)
        images, labels = self._images.take(*shapes[0]), self._labels.take(*shapes[1])

        def fill(i: int) -> None:
            clip, words = loaded(i) if i else first
            if (made := self._shapes(clip, words)) != shapes:
                raise DataError(
                    f"video {words[0]}: makes a clip of {_by(made[0][1:])}, but the first of the batch {_by(shapes[0][1:])}; "
                    "videos of different sizes need new_height, new_width or crop_size"
                )
            self._transform(clip, random[i], images[i])
            labels[i] = self._label(words)

        return [images, labels], [functools.partial(fill, i) for i in range(self.batch_size)]


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
