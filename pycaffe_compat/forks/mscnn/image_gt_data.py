"""ImageGtData of MS-CNN (zhaoweicai/mscnn, image_gt_data_layer.cpp)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...data import draws
from ...data.window_file import nearest_integer
from ...errors import prefixed
from ...layers.base import Shape
from ...layers.registry import register
from .scene_data import SceneData, given_size, truth_shapes
from .scene_reader import TruthReader
from .scenes import Size, read_scenes
from .truth import TruthMaker, read_fields
from .views import SCALE, SCALED, SIDE, STRETCH, STRETCHED

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

    def choose(self, box: Sequence[float] | None, words: Sequence[int]) -> tuple[float, float]:
        """The factors, x and y, for a box of corners; 1 half of the time, and without a box."""
        if box is None or not words[SCALED] & 1:
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


@dataclass(frozen=True)
class FixedSizes:
    """Every picture is resized to one size, if ``resized`` is given, and every batch has another."""

    batch: Size
    resized: Size | None

    def of_picture(self, size: Size, words: Sequence[int]) -> Size:
        """The height and width that a picture of this size is resized to."""
        return self.resized or size

    def of_batch(self, first: Size, words: Sequence[int]) -> Size:
        """The height and width of a batch."""
        return self.batch


class ImageGtReader(TruthReader):
    """Batches whose boxes do not say whether they are difficult."""

    columns = 7
    nothing = (0, 1, 1, 2, 2, 1, 1)
    checks_size = False


@register("ImageGtData", fork="mscnn")
class ImageGtData(SceneData):
    """Crops of a window file's images, maps of their targets, and with ``output_gt_boxes`` the boxes.

    The file has ``# INDEX``, path, channels, height, width, the number of boxes, each LABEL IGNORE X1 Y1 X2 Y2, and the number
    of regions to leave alone, each X1 Y1 X2 Y2. There is a map (N, 6, h, w) for each ``downsample_rate``: label, centre, width,
    height and overlap of the box that a field of ``field_w`` x ``field_h`` there overlaps by more than ``fg_threshold``. Boxes
    are rows (n, 7) of picture, corners, label and whether to ignore it. Pictures with an object come ``fg_img_multiple`` times.
    What is random has the fork's distributions, not the numbers of its generator.
    """

    options = ("image_gt_data_param", "transform_param")
    inert_options = frozenset({"mean_file"})
    tops = (2, None)
    own_scale = True

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        """As if each batch had one box."""
        options = param.image_gt_data_param
        size = template(options)
        if size is None or not options.downsample_rate:
            return None
        shapes = truth_shapes(options.batch_size, size, options.downsample_rate, ImageGtReader.columns)
        return shapes and shapes[: len(param.top)]

    def make_reader(self, param: Any) -> TruthReader:
        options, transform = param.image_gt_data_param, param.transform_param
        self.check_transform(param)
        fields = read_fields(self, options, options.downsample_rate, "downsample_rate")
        if not fields or options.coord_num != 4:
            raise self.error(f"coord_num: {options.coord_num} must be 4, and downsample_rate be given")
        self.check_tops(len(fields), options.output_gt_boxes)
        scales = self._scales(options)
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
            sizing=FixedSizes(template(options, scenes[-1].size) or scenes[-1].size, given_size(options, "resize")),
            scaling=scales,
            least=(options.min_gt_height, options.min_gt_width),
            mirror=transform.mirror,
            order=draws.Order(len(scenes), options.shuffle),
        )

    def _scales(self, options: Any) -> Scales | None:
        has = options.HasField
        if not (options.do_multiple_scale and has("min_scale") and has("max_scale")):
            return None
        if not 0 < options.min_scale <= options.max_scale:
            raise self.error(
                f"min_scale: {options.min_scale} must be above 0 and not above max_scale: {options.max_scale}"
            )
        if not (has("min_whaspect") and has("max_whaspect")):
            return Scales(options.min_scale, options.max_scale, None)
        low, high = options.min_whaspect, options.max_whaspect
        if low <= 0 or nearest_integer((high - low) / STEP) < 1:
            raise self.error(f"min_whaspect: {low:g} must be above 0, and max_whaspect: {high:g} above it by {STEP}")
        return Scales(options.min_scale, options.max_scale, (low, high))


def template(options: Any, own: Size | None = None) -> Size | None:
    """The size of pictures in a batch: what is cut, or what they are resized to, or their ``own``."""
    crop, size = given_size(options, "crop"), given_size(options, "resize") or own
    if crop is None or size is None:
        return size if crop is None else (crop if min(crop) else None)
    return crop[0] or size[0], crop[1] or size[1]
