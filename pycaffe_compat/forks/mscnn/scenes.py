"""Pictures and the boxes in them, as MS-CNN's and Cascade R-CNN's window files list them, cut to a size for training.

Sources: zhaoweicai/mscnn, image_gt_data_layer.cpp, and zhaoweicai/cascade-rcnn, detection_data_layer.cpp.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ...data import draws
from ...data.batches import Shape, Shard
from ...data.datum import decode_image
from ...data.distortion import Distortion
from ...data.image_list import read_file, resize
from ...data.loader import Buffers, Job
from ...data.mean import require_mean_values
from ...data.window_file import Tokens, nearest_integer
from ...errors import DataError, prefixed, require_file
from ...proto.kinds import LISTS, told_apart

Size = tuple[int, int]  # height, width
NOISE = 10  # pixels that a picture is moved at most, at random
ENLARGED = 1.5  # a picture that grows by more is cut first
CONTEXT = 1.2  # to this part of what will be seen

MIRROR, BOX, ACROSS, DOWN, SCALED, SCALE, STRETCHED, STRETCH, SIDE, NOISE_X, NOISE_Y, TEMPLATE, COLOURS, WORDS = range(
    14
)


class Scene(NamedTuple):
    """A picture and its boxes, of corners, float32.

    Attributes:
        size: height and width, as the file says.
        boxes: (n, 4) with their ``labels``, and which are ``ignored`` or ``difficult``, (n,) each.
        others: (m, 4), regions where nothing is to be learned.
    """

    image: str
    size: Size
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    difficult: np.ndarray
    others: np.ndarray


def read_scenes(path: str | os.PathLike[str], root: str, has_difficult: bool) -> list[Scene]:
    """Read a window file of pictures with boxes.

    For each picture, the file has ``# INDEX``, path, channels, height, width, the number of boxes, for each
    ``LABEL IGNORE X1 Y1 X2 Y2``, the number of regions to leave alone, and for each ``X1 Y1 X2 Y2``.

    Args:
        path: the file.
        root: a prefix of every picture's path; text, not a folder.
        has_difficult: boxes are ``LABEL IGNORE DIFFICULT X1 Y1 X2 Y2``.

    Raises:
        MissingFileError, DataError: the file is missing, malformed or of another kind; the message names file and line.
    """
    name = require_file(path, "window file")
    form = f"LABEL IGNORE {'DIFFICULT ' if has_difficult else ''}X1 Y1 X2 Y2"
    with told_apart(name, LISTS, f"a window file: a text file of pictures and boxes, {form}"):
        with open(name, encoding="utf-8", errors="surrogateescape") as file:
            tokens = Tokens.of(name, file)
            scenes = []
            while (mark := tokens.next(None)) is not None:
                if mark != "#":
                    raise tokens.error(f'"{mark}", where "#" and the index of a picture should be; a box is {form}')
                tokens.number("the index of a picture", int)
                image = root + tokens.text("the path of a picture")
                channels, height, width = (tokens.number(what, int) for what in ("channels", "height", "width"))
                if channels != 3 or min(height, width) < 1:
                    raise tokens.error(
                        f"{channels} channels, height {height} and width {width}; pictures have 3 channels, and a size"
                    )
                boxes = _rows(tokens, "boxes", form.split())
                others = _rows(tokens, "regions to leave alone", ["X1", "Y1", "X2", "Y2"])
                if (boxes[:, 0] < 1).any():
                    raise tokens.error(f"label {boxes[:, 0].min()} of a box of {image}; labels are from 1 on")
                difficult = boxes[:, 2] != 0 if has_difficult else np.zeros(len(boxes), bool)
                scenes.append(
                    Scene(
                        image,
                        (height, width),
                        boxes[:, -4:].astype(np.float32),
                        boxes[:, 0].astype(np.float32),
                        boxes[:, 1] != 0,
                        difficult,
                        others.astype(np.float32),
                    )
                )
        if not scenes:
            raise DataError(f"window file {name} has no pictures")
    return scenes


def _rows(tokens: Tokens, what: str, form: Sequence[str]) -> np.ndarray:
    number = tokens.number(f"the number of {what}", int)
    if number < 0:
        raise tokens.error(f"the number of {what} is {number}; it must be 0 or more")
    return np.array([[tokens.number(word, int) for word in form] for _ in range(number)], np.int64).reshape(
        -1, len(form)
    )


class Sight(NamedTuple):
    """A picture in memory, H×W×3, and the boxes (n, 4) and other regions (m, 4) that belong to it."""

    picture: np.ndarray
    boxes: np.ndarray
    others: np.ndarray

    @property
    def size(self) -> Size:
        """Height and width of the picture."""
        return self.picture.shape[0], self.picture.shape[1]

    def moved(self, factor: Sequence[float], shift: Sequence[float]) -> Sight:
        """Scale boxes and regions by ``factor`` and add ``shift``, x and y each; the picture stays."""
        by, add = np.array([*factor] * 2, np.float32), np.array([*shift] * 2, np.float32)
        return self._replace(boxes=self.boxes * by + add, others=self.others * by + add)

    def mirrored(self) -> Sight:
        """Left for right."""
        width = self.picture.shape[1]
        turned = (
            np.column_stack((width - x[:, 2], x[:, 1], width - x[:, 0], x[:, 3])) for x in (self.boxes, self.others)
        )
        return Sight(np.ascontiguousarray(self.picture[:, ::-1]), *turned)

    def resized(self, size: Size) -> Sight:
        """Of another size."""
        have = self.size
        if size == have:
            return self
        if min(size) < 1:
            raise DataError(f"would be resized to {size[0]} × {size[1]} pixels (height × width)")
        return self._replace(picture=resize(self.picture, size)).moved((size[1] / have[1], size[0] / have[0]), (0, 0))


def open_scene(scene: Scene, file: Callable[[str], bytes] = read_file, check: bool = False) -> Sight:
    """Read and decode the picture of a scene.

    Args:
        check: whether its size must be the one that the window file says.

    Raises:
        MissingFileError, DataError: it is missing, or does not decode, or has another size.
    """
    data = file(scene.image)
    with prefixed(scene.image):
        sight = Sight(decode_image(data, True), scene.boxes, scene.others)
        if check and sight.size != scene.size:
            have, said = (" × ".join(map(str, size)) for size in (sight.size, scene.size))
            raise DataError(f"is {have} pixels (height × width), but the window file says {said}")
        return sight


class Cut(NamedTuple):
    """What is shown of a picture: where it begins in the batch's picture (left, top), and how wide and high it is."""

    left: int
    top: int
    width: int
    height: int


def share(word: int) -> float:
    """A number in [0, 1) of a random word."""
    return (word >> 11) * 2.0**-53


def choose_centre(sight: Sight, size: Size, words: Sequence[int]) -> tuple[float, float, int | None]:
    """The point to have in the middle, x and y: that of a box, and which; or where there is none, any.

    Args:
        size: of what will be cut.
    """
    if len(sight.boxes):
        box = words[BOX] % len(sight.boxes)
        x1, y1, x2, y2 = sight.boxes[box].tolist()
        return (x1 + x2) / 2, (y1 + y2) / 2, box
    have, want = sight.size[::-1], size[::-1]
    x, y = (
        words[at] % (h - w + 1) + w / 2 if h >= w else h / 2
        for at, h, w in zip((ACROSS, DOWN), have, want, strict=True)
    )
    return x, y, None


def rescaled(
    sight: Sight, factor: tuple[float, float], centre: tuple[float, float]
) -> tuple[Sight, tuple[float, float]]:
    """Scale a picture by ``factor``, x and y, and return it with where its centre came to lie.

    One that grows much is cut around its centre first.
    """
    if factor == (1, 1):
        return sight, centre
    if max(factor) > ENLARGED:
        have = sight.size[::-1]
        cut = [min(nearest_integer(CONTEXT * h / f), h) for h, f in zip(have, factor, strict=True)]
        left, top = (
            max(nearest_integer(c - w * 0.5), 0) - max(max(nearest_integer(c - w * 0.5), 0) + w - h, 0)
            for c, w, h in zip(centre, cut, have, strict=True)
        )
        part = sight.picture[top : top + cut[1], left : left + cut[0]]
        sight = sight._replace(picture=part).moved((1, 1), (-left, -top))
        centre = centre[0] - left, centre[1] - top
    rows, columns = sight.size
    size = nearest_integer(rows * factor[1]), nearest_integer(columns * factor[0])
    if min(size) < 1:
        raise DataError(f"would be scaled to {size[0]} × {size[1]} pixels (height × width)")
    sight = sight._replace(picture=resize(sight.picture, size)).moved(factor, (0, 0))
    return sight, (centre[0] * factor[0], centre[1] * factor[1])


def placed(sight: Sight, size: Size, centre: Sequence[float], words: Sequence[int]) -> tuple[Sight, Cut]:
    """Cut a picture to ``size`` around a centre, or lay a smaller one in the middle: not far from there, at random."""
    parts, begins, lengths, shift = [], [], [], []
    for have, want, c, word in zip(sight.size[::-1], size[::-1], centre, (words[NOISE_X], words[NOISE_Y]), strict=True):
        noise, start, begin = word % (2 * NOISE) - NOISE, 0, 0
        if have < want:
            begin = min(max(nearest_integer((want - have) / 2) + noise, 0), want - have)
        elif have > want:
            start = min(max(nearest_integer(c) + noise - nearest_integer(want / 2), 0), have - want)
        length = min(have, want)
        parts.append(slice(start, start + length))
        begins.append(begin)
        lengths.append(length)
        shift.append(begin - start)
    return sight._replace(picture=sight.picture[parts[1], parts[0]]).moved((1, 1), shift), Cut(*begins, *lengths)


class SceneReader:
    """Batches of scenes: pictures (N, 3, H, W), and what a subclass makes of their boxes.

    Args:
        scenes: the pictures and boxes.
        batch_size: how many there are in a batch.
        mean: the ``mean_value`` of ``transform_param``.
        scale: what pixels are multiplied by.
        cache: keep the files in memory.

    Attributes:
        columns: of a true box: number of the picture, corners, label, ignored, and difficult with 8.
        nothing: the one true box of a batch without any.
    """

    columns = 8
    nothing: Sequence[float] = (-1,) * 8

    def __init__(
        self, scenes: Sequence[Scene], batch_size: int, mean: Sequence[float], scale: float, cache: bool = False
    ) -> None:
        self.batch_size = batch_size
        self.scenes = scenes
        if mean:
            require_mean_values(len(mean), 3)
        self._mean = np.array(mean or (0,), np.float32)[:, None, None]
        self._scale = np.float32(scale)
        self._file = functools.cache(read_file) if cache else read_file
        self._buffers = Buffers()

    def __len__(self) -> int:
        return len(self.scenes)

    def index(self, seed: int, position: int) -> int:
        """The number of the scene at a position."""
        return position % len(self.scenes)

    def size(self, scene: Scene, words: Sequence[int]) -> Size:
        """The height and width of a batch whose first scene is this."""
        raise NotImplementedError

    def shown(self, scene: Scene, size: Size, words: Sequence[int], colours: Sequence[float]) -> tuple[Sight, Cut]:
        """Open a scene for a batch of pictures of ``size``."""
        raise NotImplementedError

    def more(self, size: Size) -> list[np.ndarray]:
        """Memory for the further tops, each with the batch as its first axis, that are made by :meth:`fill`."""
        return []

    def fill(self, tops: Sequence[np.ndarray], sight: Sight, scene: Scene, ignored: np.ndarray, cut: Cut) -> None:
        """Fill those of one scene."""

    def ignored(self, sight: Sight, scene: Scene, size: Size) -> np.ndarray:
        """Which boxes are ignored, (n,)."""
        return scene.ignored

    def order(self, pictures: np.ndarray, boxes: np.ndarray, more: list[np.ndarray]) -> list[np.ndarray]:
        """The tops in their order."""
        return [pictures, boxes, *more]

    def shapes(self) -> list[Shape]:
        size = self.size(self.scenes[0], [0] * WORDS)
        rows = max(len(self.scenes[0].boxes), 1), self.columns, 1, 1
        tops = self.order(np.empty((self.batch_size, 3, *size)), np.empty(rows), self.more(size))
        return [x.shape for x in tops]

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        """Return the arrays of the batch at ``position`` and the jobs that fill them."""
        positions = shard.positions(position, self.batch_size)
        scenes = [self.scenes[self.index(shard.seed, int(at))] for at in positions]
        words = draws.words(shard.seed, positions, WORDS).tolist()
        size = self.size(scenes[0], words[0])
        pictures = self._buffers.take(self.batch_size, 3, *size)
        ends = np.cumsum([0] + [len(scene.boxes) for scene in scenes])
        boxes = np.empty((ends[-1], self.columns), np.float32)
        more = self.more(size)

        def fill(i: int) -> None:
            scene, drawn = scenes[i], words[i][:TEMPLATE] + words[0][TEMPLATE : TEMPLATE + 1] + words[i][TEMPLATE + 1 :]
            colours = draws.shares(words[i][COLOURS], 0, Distortion.DRAWS, draws.PICTURES).tolist()
            sight, cut = self.shown(scene, size, drawn, colours)
            ignored = self.ignored(sight, scene, size)
            rows, columns = slice(cut.top, cut.top + cut.height), slice(cut.left, cut.left + cut.width)
            pictures[i] = 0
            pictures[i, :, rows, columns] = (sight.picture.transpose(2, 0, 1) - self._mean) * self._scale
            true = np.column_stack((np.full(len(ignored), i), sight.boxes, scene.labels, ignored, scene.difficult))
            boxes[ends[i] : ends[i + 1]] = true[:, : self.columns]
            self.fill([top[i] for top in more], sight, scene, ignored, cut)

        rows = boxes if len(boxes) else np.array([self.nothing], np.float32)
        return self.order(pictures, rows[..., None, None], more), [
            functools.partial(fill, i) for i in range(self.batch_size)
        ]
