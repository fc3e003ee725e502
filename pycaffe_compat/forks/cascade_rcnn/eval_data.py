"""EvalData of Cascade R-CNN (zhaoweicai/cascade-rcnn, eval_data_layer.cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...data.window_file import nearest_integer
from ...errors import prefixed
from ...layers.base import Shape
from ...layers.registry import register
from ..mscnn.scene_data import SceneData, given_size
from ..mscnn.scene_reader import SceneReader
from ..mscnn.scenes import Scene, Size, read_scenes
from ..mscnn.views import Cut, View, open_scene
from .detection_data import BLOCK


class EvalReader(SceneReader):
    """Batches of whole pictures, resized, with their boxes and sizes."""

    def __init__(
        self,
        scenes: Sequence[Scene],
        batch_size: int,
        mean: Sequence[float],
        scale: float,
        *,
        fixed: Size | None,
        sides: tuple[int, int] | None,
    ) -> None:
        super().__init__(scenes, batch_size, mean, scale)
        self._fixed, self._sides = fixed, sides

    def size(self, scene: Scene, words: Sequence[int]) -> Size:
        return self._of(scene.size)

    def _of(self, size: Size) -> Size:
        if self._fixed is not None:
            size = self._fixed
        elif self._sides is not None:
            factor, most = self._sides[0] / min(size), self._sides[1]
            size = min(nearest_integer(size[0] * factor), most), min(nearest_integer(size[1] * factor), most)
        return in_blocks(size)

    def shown(self, scene: Scene, size: Size, words: Sequence[int], colours: Sequence[float]) -> tuple[View, Cut]:
        view = open_scene(scene, self._file, check=True)
        with prefixed(scene.image):
            return view.resized(size), Cut(0, 0, size[1], size[0])

    def more(self, size: Size) -> list[np.ndarray]:
        return [np.full((self.batch_size, 2, 1, 1), np.array(size, np.float32)[:, None, None])]


@register("EvalData", fork="cascade_rcnn")
class EvalData(SceneData):
    """Images of a window file in order, with their boxes (n, 8) and, with a third top, their heights and widths (N, 2).

    The file and the boxes are those of DetectionData. Pictures are resized to ``resize_width`` and ``resize_height``, or one by
    one so that the shorter side is ``short_size``, the longer one at most ``long_size``; and then to multiples of 32.
    """

    options = ("eval_data_param", "transform_param")
    tops = (2, 3)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        """As if each batch had one box and were high."""
        options = param.eval_data_param
        size = given_size(options, "resize")
        if size is None and options.HasField("short_size") and options.HasField("long_size"):
            size = options.long_size, options.short_size
        if size is None:
            return None
        batch = options.batch_size
        shapes: list[Shape] = [(batch, 3, *in_blocks(size)), (1, 8, 1, 1), (batch, 2, 1, 1)]
        return shapes[: len(param.top)]

    def make_reader(self, param: Any) -> SceneReader:
        options, transform = param.eval_data_param, param.transform_param
        self.check_transform(param)
        size, batch = given_size(options, "resize"), self.batch_size(options)
        if size is None and batch != 1:
            raise self.error(
                f"batch_size: {batch} must be 1 without resize_width and resize_height: pictures differ in size"
            )
        has_sides = options.HasField("short_size") and options.HasField("long_size")
        if (size or has_sides) and min(size or (options.short_size, options.long_size)) < BLOCK / 2:
            raise self.error(
                f"makes pictures of a size that is a multiple of {BLOCK}: the size that is given is too small"
            )
        with prefixed("eval_data_param.source"):
            scenes = read_scenes(options.source, options.root_folder, has_difficult=True)
        sides = (options.short_size, options.long_size) if has_sides else None
        return EvalReader(scenes, batch, transform.mean_value, transform.scale, fixed=size, sides=sides)


def in_blocks(size: Size) -> Size:
    """A size in whole blocks, the nearest."""
    return nearest_integer(size[0] / BLOCK) * BLOCK, nearest_integer(size[1] / BLOCK) * BLOCK
