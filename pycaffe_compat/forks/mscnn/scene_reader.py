"""Batches of scenes, as MS-CNN's and Cascade R-CNN's data layers make them.

Sources: zhaoweicai/mscnn, image_gt_data_layer.cpp, and zhaoweicai/cascade-rcnn, detection_data_layer.cpp and
eval_data_layer.cpp.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ...data import draws
from ...data.batches import Shape, Shard
from ...data.distortion import Distortion
from ...data.image_list import read_file
from ...data.loader import Buffers, Job
from ...data.mean import require_mean_values
from ...errors import prefixed
from .scenes import Scene, Size
from .truth import TruthMaker
from .views import COLOURS, MIRROR, TEMPLATE, WORDS, Cut, View, choose_centre, open_scene, placed, rescaled


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

    def shown(self, scene: Scene, size: Size, words: Sequence[int], colours: Sequence[float]) -> tuple[View, Cut]:
        """Open a scene for a batch of pictures of ``size``."""
        raise NotImplementedError

    def more(self, size: Size) -> list[np.ndarray]:
        """Memory for the further tops, each with the batch as its first axis, that are made by :meth:`fill`."""
        return []

    def fill(self, tops: Sequence[np.ndarray], view: View, scene: Scene, ignored: np.ndarray, cut: Cut) -> None:
        """Fill those of one scene."""

    def ignored(self, view: View, scene: Scene, size: Size) -> np.ndarray:
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
            view, cut = self.shown(scene, size, drawn, colours)
            ignored = self.ignored(view, scene, size)
            rows, columns = slice(cut.top, cut.top + cut.height), slice(cut.left, cut.left + cut.width)
            pictures[i] = 0
            pictures[i, :, rows, columns] = (view.picture.transpose(2, 0, 1) - self._mean) * self._scale
            true = np.column_stack((np.full(len(ignored), i), view.boxes, scene.labels, ignored, scene.difficult))
            boxes[ends[i] : ends[i + 1]] = true[:, : self.columns]
            self.fill([top[i] for top in more], view, scene, ignored, cut)

        rows = boxes if len(boxes) else np.array([self.nothing], np.float32)
        return self.order(pictures, rows[..., None, None], more), [
            functools.partial(fill, i) for i in range(self.batch_size)
        ]


class Sizing(Protocol):
    """What pictures are resized to, and the size that batches have."""

    def of_picture(self, size: Size, words: Sequence[int]) -> Size:
        """The height and width that a picture of this size is resized to."""
        ...

    def of_batch(self, first: Size, words: Sequence[int]) -> Size:
        """The height and width of a batch whose first picture was resized to ``first``."""
        ...


class Scaling(Protocol):
    """How pictures are scaled at random."""

    def choose(self, box: Sequence[float] | None, words: Sequence[int]) -> tuple[float, float]:
        """The factors, x and y, for the box of corners that will be in the middle, or a picture without boxes."""
        ...


class Ordering(Protocol):
    """The order in which scenes are read."""

    def index(self, seed: int, position: int) -> int:
        """The number of the scene at ``position`` of the endless sequence of epochs."""
        ...


class TruthReader(SceneReader):
    """Batches for training: pictures that are mirrored, resized, scaled and cut, maps of truth, and the boxes.

    Args:
        scenes, batch_size, mean, scale, cache: as :class:`SceneReader` has them.
        truth: makes the maps.
        sizing: what pictures are resized and cut to.
        scaling: how they are scaled in between; None not at all.
        least: boxes that are less high or wide are ignored.
        mirror: mirror pictures half of the time.
        order: of the scenes.
        distortion: of the colours; None leaves them.

    Attributes:
        checks_size: whether pictures must have the size that the window file says.
    """

    checks_size = True

    def __init__(
        self,
        scenes: Sequence[Scene],
        batch_size: int,
        mean: Sequence[float],
        scale: float,
        cache: bool,
        *,
        truth: TruthMaker,
        sizing: Sizing,
        scaling: Scaling | None,
        least: Size,
        mirror: bool,
        order: Ordering,
        distortion: Distortion | None = None,
    ) -> None:
        super().__init__(scenes, batch_size, mean, scale, cache)
        self._truth, self._sizing, self._scaling, self._least = truth, sizing, scaling, least
        self._mirror, self._order, self._distortion = mirror, order, distortion

    def index(self, seed: int, position: int) -> int:
        return self._order.index(seed, position)

    def size(self, scene: Scene, words: Sequence[int]) -> Size:
        return self._sizing.of_batch(self._sizing.of_picture(scene.size, words), words)

    def shown(self, scene: Scene, size: Size, words: Sequence[int], colours: Sequence[float]) -> tuple[View, Cut]:
        view = open_scene(scene, self._file, check=self.checks_size)
        with prefixed(scene.image):
            if self._distortion is not None:
                view = view._replace(picture=self._distortion(view.picture, colours))
            if self._mirror and words[MIRROR] & 1:
                view = view.mirrored()
            view = view.resized(self._sizing.of_picture(view.size, words))
            x, y, box = choose_centre(view, size, words)
            factor = (1.0, 1.0)
            if self._scaling is not None:
                factor = self._scaling.choose(None if box is None else view.boxes[box].tolist(), words)
            view, centre = rescaled(view, factor, (x, y))
        return placed(view, size, centre, words)

    def ignored(self, view: View, scene: Scene, size: Size) -> np.ndarray:
        return scene.ignored | too_small_or_outside(view.boxes, size, self._least)

    def more(self, size: Size) -> list[np.ndarray]:
        return self._truth.memory(self.batch_size, size)

    def fill(self, tops: Sequence[np.ndarray], view: View, scene: Scene, ignored: np.ndarray, cut: Cut) -> None:
        self._truth.fill(tops, view, scene, ignored, cut)

    def order(self, pictures: np.ndarray, boxes: np.ndarray, more: list[np.ndarray]) -> list[np.ndarray]:
        return [pictures, *more, boxes]


def too_small_or_outside(boxes: np.ndarray, size: Size, least: Sequence[float]) -> np.ndarray:
    """Which boxes (n, 4) have their centre outside of a picture, or a side below ``least``, height and width; (n,)."""
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2] + 1
    outside = (centre < 0) | (centre >= np.array(size[::-1], np.float32))
    return (outside | (sides < np.array(least[::-1], np.float32))).any(1)
