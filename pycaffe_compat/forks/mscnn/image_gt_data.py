"""ImageGtData of MS-CNN (zhaoweicai/mscnn, image_gt_data_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import draws
from ...data.window_file import nearest_integer
from ...errors import prefixed
from ...layers.base import Shape
from ...layers.data_layers import BatchSource
from ...layers.registry import register
from .scenes import (
    MIRROR,
    SCALE,
    SCALED,
    SIDE,
    STRETCH,
    STRETCHED,
    Cut,
    Scene,
    SceneReader,
    Sight,
    Size,
    choose_centre,
    open_scene,
    placed,
    read_scenes,
    rescaled,
)
from .truth import COLUMNS, TruthMaker, read_fields

OCTAVE = 2  # steps of scale that double the size
STEP = 0.05  # of the ratio of width to height
SPARE = (0.8, 1.2)  # a box that is stretched may leave the range of scales by this much
LEFT_ALONE, PICKUP = 0.4, 0.2


@dataclass(frozen=True)
class Scales:
    """Scales a picture so that a box of it gets a side from ``least`` to ``most``, and, with ``ratios``, another ratio."""

    least: int
    most: int
    ratios: tuple[float, float] | None

    def choose(self, box: Sequence[float], words: Sequence[int]) -> tuple[float, float]:
        """The factors, x and y, for a box of corners; 1 half of the time."""
        if not words[SCALED] & 1:
            return 1, 1
        width, height = box[2] - box[0], box[3] - box[1]
        number = nearest_integer(OCTAVE * math.log2(self.most / self.least) + 1)
        steps = [step / OCTAVE for step in range(number)]
        area, areas = width * height, [(self.least * 2**step) ** 2 for step in steps]
        nearness = [min(area, other) / max(area, other) for other in areas]
        own = steps[nearness.index(max(nearness))] if max(nearness) > 0 else 0
        x = y = 2 ** (steps[words[SCALE] % number] - own)
        if self.ratios is None or not words[STRETCHED] & 1 or min(width, height) <= 0:
            return x, y
        low, high = self.ratios
        ratio = (words[STRETCH] % nearest_integer((high - low) / STEP)) * STEP + low
        stretch = ratio / (width / height)
        fits = (self.least * SPARE[0], self.most * SPARE[1])
        if words[SIDE] & 1:
            return (x * stretch if fits[0] <= width * x * stretch <= fits[1] else x), y
        return x, (y / stretch if fits[0] <= height * y / stretch <= fits[1] else y)


class ImageGtReader(SceneReader):
    """Batches of pictures, mirrored, resized, scaled and cut, with maps of truth and boxes."""

    columns = 7
    nothing = (0, 1, 1, 2, 2, 1, 1)

    def __init__(
        self,
        scenes: Sequence[Scene],
        batch_size: int,
        mean: Sequence[float],
        scale: float,
        cache: bool,
        *,
        truth: TruthMaker,
        template: Size | None,
        size: Size | None,
        least: Size,
        scales: Scales | None,
        mirror: bool,
        shuffle: bool,
    ) -> None:
        super().__init__(scenes, batch_size, mean, scale, cache)
        self._truth, self._template, self._size, self._least = truth, template or scenes[-1].size, size, least
        self._scales, self._mirror = scales, mirror
        self._order = draws.Order(len(scenes), shuffle)

    def index(self, seed: int, position: int) -> int:
        return self._order.index(seed, position)

    def size(self, scene: Scene, words: Sequence[int]) -> Size:
        return self._template

    def shown(self, scene: Scene, size: Size, words: Sequence[int], colours: Sequence[float]) -> tuple[Sight, Cut]:
        sight = open_scene(scene, self._file)
        if self._mirror and words[MIRROR] & 1:
            sight = sight.mirrored()
        if self._size is not None:
            sight = sight.resized(self._size)
        x, y, box = choose_centre(sight, size, words)
        factor = (1.0, 1.0)
        if self._scales is not None and box is not None:
            factor = self._scales.choose(sight.boxes[box].tolist(), words)
        sight, centre = rescaled(sight, factor, (x, y))
        return placed(sight, size, centre, words)

    def ignored(self, sight: Sight, scene: Scene, size: Size) -> np.ndarray:
        return scene.ignored | too_small_or_outside(sight.boxes, size, self._least)

    def more(self, size: Size) -> list[np.ndarray]:
        return self._truth.memory(self.batch_size, size)

    def fill(self, tops: Sequence[np.ndarray], sight: Sight, scene: Scene, ignored: np.ndarray, cut: Cut) -> None:
        self._truth.fill(tops, sight, scene, ignored, cut)

    def order(self, pictures: np.ndarray, boxes: np.ndarray, more: list[np.ndarray]) -> list[np.ndarray]:
        return [pictures, *more, boxes]


def too_small_or_outside(boxes: np.ndarray, size: Size, least: Sequence[float]) -> np.ndarray:
    """Which boxes (n, 4) have their centre outside of a picture, or a side below ``least``, height and width; (n,)."""
    centre, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2] + 1
    outside = (centre < 0) | (centre >= np.array(size[::-1], np.float32))
    return (outside | (sides < np.array(least[::-1], np.float32))).any(1)


@register("ImageGtData", fork="mscnn")
class ImageGtData(BatchSource):
    """Pictures of a window file, cut to a size, maps of what is at their places, and with ``output_gt_boxes`` the boxes.

    The file has ``# INDEX``, path, channels, height, width, the number of boxes, each LABEL IGNORE X1 Y1 X2 Y2, and the number
    of regions to leave alone, each X1 Y1 X2 Y2. There is a map (N, 6, h, w) for each ``downsample_rate``: label, centre, width,
    height and overlap of the box that a field of ``field_w`` x ``field_h`` there overlaps by more than ``fg_threshold``. Boxes
    are rows (n, 7) of picture, corners, label and whether to ignore it. Pictures with an object come ``fg_img_multiple`` times.
    What is random has the fork's distributions, not the numbers of its generator.
    """

    options = ("image_gt_data_param", "transform_param")
    inert_options = frozenset({"mean_file"})
    tops = (2, None)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        """As if each batch had one box."""
        options = param.image_gt_data_param
        size = template(options)
        if size is None or not options.downsample_rate or min(options.downsample_rate) < 1:
            return None
        maps = [tuple(nearest_integer(side / rate) for side in size) for rate in options.downsample_rate]
        batch = options.batch_size
        return [(batch, 3, *size), *((batch, COLUMNS, *places) for places in maps), (1, 7, 1, 1)][: len(param.top)]

    def make_reader(self, param: Any) -> SceneReader:
        options, transform = param.image_gt_data_param, param.transform_param
        check_transform(self, transform, scale="image_gt_data_param.scale")
        fields = read_fields(self, options, options.downsample_rate, "downsample_rate")
        if not fields or options.coord_num != 4:
            raise self.error(f"coord_num: {options.coord_num} must be 4, and downsample_rate be given")
        check_tops(self, len(fields), options.output_gt_boxes)
        scales = None
        has_ratios = options.HasField("min_whaspect") and options.HasField("max_whaspect")
        if options.do_multiple_scale and options.HasField("min_scale") and options.HasField("max_scale"):
            ratios = (options.min_whaspect, options.max_whaspect) if has_ratios else None
            if not 0 < options.min_scale <= options.max_scale:
                raise self.error(
                    f"min_scale: {options.min_scale} must be above 0 and not above max_scale: {options.max_scale}"
                )
            if ratios and (ratios[0] <= 0 or nearest_integer((ratios[1] - ratios[0]) / STEP) < 1):
                raise self.error(
                    f"min_whaspect: {ratios[0]:g} must be above 0, and max_whaspect: {ratios[1]:g} above it by {STEP}"
                )
            scales = Scales(options.min_scale, options.max_scale, ratios)
        with prefixed("image_gt_data_param.source"):
            scenes = read_scenes(options.source, options.root_folder, has_difficult=False)
        multiple = options.fg_img_multiple
        scenes = [scene for scene in scenes for _ in range(1 if scene.ignored.all() else multiple)]
        if not scenes:
            raise self.error(f"fg_img_multiple: {multiple} leaves no picture")
        return ImageGtReader(
            scenes,
            self.batch_size(options),
            transform.mean_value,
            options.scale,
            options.cache_images,
            truth=TruthMaker(fields, options.fg_threshold, LEFT_ALONE, PICKUP, inclusive=False),
            template=template(options, scenes[-1].size),
            size=given(options, "resize"),
            least=(options.min_gt_height, options.min_gt_width),
            scales=scales,
            mirror=transform.mirror,
            shuffle=options.shuffle,
        )


def given(options: Any, name: str) -> Size | None:
    """``NAME_height`` and ``NAME_width``, if both are given."""
    both = f"{name}_height", f"{name}_width"
    if not all(map(options.HasField, both)):
        return None
    return getattr(options, both[0]), getattr(options, both[1])


def template(options: Any, own: Size | None = None) -> Size | None:
    """The size of pictures in a batch: what is cut, or what they are resized to, or their ``own``."""
    crop, size = given(options, "crop"), given(options, "resize") or own
    if crop is None or size is None:
        return size if crop is None else (crop if min(crop) else None)
    return crop[0] or size[0], crop[1] or size[1]


def check_transform(layer: BatchSource, transform: Any, scale: str) -> None:
    """Check that ``transform_param`` sets only fields that the fork supports.

    Args:
        scale: the option that scales pixels.

    Raises:
        LayerError: it has.
    """
    supported = {"mean_value", "mirror"} | ({"scale"} if scale == "transform_param.scale" else set())
    other = [field.name for field, _ in transform.ListFields() if field.name not in supported]
    if other == ["scale"]:
        raise layer.error(f"does not support transform_param.scale; give {scale}")
    if other:
        raise layer.error(
            f"does not support transform_param.{other[0]}; it supports only {', '.join(sorted(supported))}"
        )


def check_tops(layer: BatchSource, maps: int, boxes: bool) -> None:
    """Check that there are as many tops as the options say.

    Raises:
        LayerError: there are not.
    """
    want = 1 + maps + boxes
    if layer.n_tops != want:
        raise layer.error(
            f"has {layer.n_tops} tops, but makes {want}: pictures, {maps} maps{' and boxes' if boxes else ''} (output_gt_boxes)"
        )
