"""DetectionData of Cascade R-CNN (zhaoweicai/cascade-rcnn, detection_data_layer.cpp)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data import draws
from ...data.distortion import Distortion
from ...data.window_file import nearest_integer
from ...errors import prefixed
from ...layers.base import Shape
from ...layers.registry import register
from ..mscnn.scene_data import SceneData, given_size, truth_shapes
from ..mscnn.scene_reader import Ordering, TruthReader
from ..mscnn.scenes import Scene, Size, read_scenes
from ..mscnn.truth import TruthMaker, read_fields
from ..mscnn.views import SCALE, SCALED, STRETCH, TEMPLATE, share

CHOICES = (  # one of each, or none
    (("resize_width", "resize_height"), ("resize_ratio",), ("short_size", "long_size")),
    (("crop_width", "crop_height"), ("crop_short_size", "crop_long_size")),
    (("min_scale", "max_scale"), ("low_scale_ratio", "high_scale_ratio")),
)
SHUFFLES = ("random", "random_aspect", "random_mix_aspect")
BLOCK = 32  # sides of pictures of different ratios are multiples of it


class AspectOrder:
    """The order of high and wide pictures: one kind after the other, or in turns, a new one in every epoch.

    Args:
        high: which pictures are at least as high as wide.
        group: how many of a kind come in turn; None for all.
    """

    def __init__(self, high: np.ndarray, group: int | None) -> None:
        self._high, self._group = high, group
        self._epoch = functools.lru_cache(maxsize=2)(self._make)

    def index(self, seed: int, position: int) -> int:
        """The index of the picture at ``position`` of the endless sequence of epochs."""
        epoch, at = divmod(position, len(self._high))
        return int(self._epoch(seed, epoch)[at])

    def _make(self, seed: int, epoch: int) -> np.ndarray:
        mixed = draws.permutation(seed, epoch, len(self._high))
        first, second = mixed[self._high[mixed]], mixed[~self._high[mixed]]
        if not draws.draw(seed, epoch, 2, draws.SKIP):
            first, second = second, first
        if self._group is None:
            return np.concatenate((first, second))
        order: list[int] = []
        kinds = [first.tolist(), second.tolist()]
        while all(kinds):  # the fork's turns end with one kind, within a group
            kind = kinds[len(order) // self._group % 2]
            order.append(kind.pop(0))
        return np.array(order + kinds[0] + kinds[1])


@dataclass(frozen=True)
class Factors:
    """Scales pictures with a probability: by a factor, or so that a box gets a scale, in a range; and stretches them.

    Attributes:
        by_box: the range is of the scale of a box, the root of its area, and not of the factor.
        ratios: the range of factors of width by height; None stretches nothing.
    """

    probability: float
    low: float
    high: float
    by_box: bool
    ratios: tuple[float, float] | None

    def choose(self, box: Sequence[float] | None, words: Sequence[int]) -> tuple[float, float]:
        """The factors, x and y, for a box of corners, or a picture without boxes."""
        if share(words[SCALED]) >= self.probability:
            return 1, 1
        low, high = math.log2(self.low), math.log2(self.high)
        if self.by_box:
            scale = math.sqrt(max((box[2] - box[0] + 1) * (box[3] - box[1] + 1), 1e-12)) if box is not None else 1
            low, high = (low - math.log2(scale), high - math.log2(scale)) if box is not None else (1, 1)
        factor = 2 ** (low + (high - low) * share(words[SCALE]))
        if self.ratios is None:
            return factor, factor
        narrow, wide = map(math.log2, self.ratios)
        stretch = 2 ** ((narrow + (wide - narrow) * share(words[STRETCH])) / 2)
        return factor * stretch, factor / stretch


@dataclass(frozen=True)
class Sizes:
    """What pictures are resized to, and what batches are made of.

    Attributes:
        fixed: height and width that every picture is resized to.
        ratio: or the factor that it is resized by.
        sides: or the shorter side that it gets, and the longer one that a batch has.
        crop: height and width that are cut.
        crop_sides: or the shorter and longer side of that, turned as the first picture of a batch is.
        ratios: of the shorter side and of the batch, one of them by chance for each batch.
    """

    fixed: Size | None
    ratio: float | None
    sides: tuple[int, int] | None
    crop: Size | None
    crop_sides: tuple[int, int] | None
    ratios: Sequence[float]

    def of_picture(self, size: Size, words: Sequence[int]) -> Size:
        """What a picture of this size is resized to."""
        if self.fixed is not None:
            return self.fixed
        factor = self.ratio
        if factor is None and self.sides is not None:
            factor = nearest_integer(self.sides[0] * self._ratio(words) / BLOCK) * BLOCK / min(size)
        return size if factor is None else (nearest_integer(size[0] * factor), nearest_integer(size[1] * factor))

    def of_batch(self, first: Size, words: Sequence[int]) -> Size:
        """The size of a batch whose first picture has this one, as it was resized."""
        if (fixed := self.crop or self.fixed) is not None:
            return fixed
        sides = self.crop_sides or self.sides
        if sides is None:
            return first
        if self.crop_sides is None:
            ratio = self._ratio(words)
            sides = nearest_integer(sides[0] * ratio / BLOCK) * BLOCK, nearest_integer(sides[1] * ratio / BLOCK) * BLOCK
        return sides[::-1] if first[0] >= first[1] else sides

    def _ratio(self, words: Sequence[int]) -> float:
        return self.ratios[words[TEMPLATE] % len(self.ratios)] if self.ratios else 1.0


@register("DetectionData", fork="cascade_rcnn")
class DetectionData(SceneData):
    """Crops of a window file's images, maps of their targets, and with ``output_gt_boxes`` the boxes.

    The file is that of MS-CNN's ImageGtData, but a box is LABEL IGNORE DIFFICULT X1 Y1 X2 Y2. There is a map (N, 6, h, w) for
    each ``stride``: label, centre, width, height and overlap of the box that a field of ``field_w`` x ``field_h`` there overlaps
    by more than ``fg_threshold``. Boxes are rows (n, 8) of picture, corners, label, and whether to ignore it, and whether it is
    difficult. The first picture of a batch decides whether the batch is high or wide. What is random has the fork's
    distributions, not the numbers of its generator.
    """

    options = ("detection_data_param", "transform_param")
    inert_options = frozenset({"resize_param"})
    tops = (1, None)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        """As if each batch had one box and were high."""
        options = param.detection_data_param
        sizes = read_sizes(options)
        if (sizes.crop or sizes.crop_sides or sizes.fixed or sizes.sides) is None:
            return None
        size = sizes.of_batch((2, 1), [0] * (TEMPLATE + 1))
        shapes = truth_shapes(options.batch_size, size, options.stride, TruthReader.columns)
        return shapes and shapes[: len(param.top)]

    def make_reader(self, param: Any) -> TruthReader:
        options, transform = param.detection_data_param, param.transform_param
        self.check_transform(param)
        fields = read_fields(self, options, options.stride, "stride")
        if options.coord_num != 4:
            raise self.error(f"coord_num: {options.coord_num} must be 4")
        self.check_tops(len(fields), options.output_gt_boxes)
        self._check_sizes(options)
        factors = self._factors(options)
        distortion = None
        if options.HasField("distort_param"):
            with self._named():
                distortion = Distortion(options.distort_param, "detection_data_param.distort_param")
        with prefixed("detection_data_param.source"):
            scenes = read_scenes(options.source, options.root_folder, has_difficult=True)
        has = options.HasField
        return TruthReader(
            scenes,
            self.batch_size(options),
            transform.mean_value,
            transform.scale,
            options.cache_images,
            truth=TruthMaker(
                fields,
                options.fg_threshold,
                options.ignore_fg_threshold,
                options.pickup_iou_thr,
                inclusive=True,
                margin=options.anchor_ignore_margin_ratio if has("anchor_ignore_margin_ratio") else None,
                within=options.anchor_ignore_iou_thr if has("anchor_ignore_iou_thr") else None,
            ),
            sizing=read_sizes(options),
            least=(options.min_gt_height, options.min_gt_width),
            scaling=factors,
            distortion=distortion,
            mirror=transform.mirror,
            order=self._order(options, scenes),
        )

    def _check_sizes(self, options: Any) -> None:
        for kind in CHOICES:
            used = [name for names in kind for name in names if options.HasField(name)]
            if not used:
                continue
            if tuple(used) not in kind:
                choices = ", or ".join(" and ".join(names) for names in kind)
                raise self.error(f"is given {', '.join(used)}; give {choices}")
            low, high = getattr(options, used[0]), getattr(options, used[-1])
            if min(low, high) <= 0:
                raise self.error(f"{' and '.join(used)} must be above 0")
            if (used[0].endswith("short_size") and low >= high) or ("scale" in used[0] and low > high):
                raise self.error(f"{used[0]}: {low:g} must be below {used[1]}: {high:g}")
        if any(ratio <= 0 for ratio in options.template_ratio):
            raise self.error("template_ratio must be above 0")

    def _factors(self, options: Any) -> Factors | None:
        has = options.HasField
        by_box = has("min_scale")
        if not by_box and not has("low_scale_ratio"):
            return None
        low, high = (
            (options.min_scale, options.max_scale) if by_box else (options.low_scale_ratio, options.high_scale_ratio)
        )
        ratios = None
        if has("min_whaspect") and has("max_whaspect"):
            ratios = options.min_whaspect, options.max_whaspect
            if not 0 < ratios[0] < ratios[1]:
                raise self.error(f"min_whaspect: {ratios[0]:g} must be above 0 and below max_whaspect: {ratios[1]:g}")
        return Factors(options.multiscale_prob, low, high, by_box, ratios)

    def _order(self, options: Any, scenes: Sequence[Scene]) -> Ordering:
        if not options.HasField("shuffle"):
            return draws.Order(len(scenes))
        if options.shuffle not in SHUFFLES:
            raise self.error(f'shuffle: "{options.shuffle}" is not one of {", ".join(SHUFFLES)}')
        if options.shuffle == "random":
            return draws.Order(len(scenes), shuffle=True)
        mixed = options.shuffle == "random_mix_aspect"
        if mixed and not options.mix_group_size:
            raise self.error("mix_group_size must be at least 1")
        high = np.array([scene.size[0] >= scene.size[1] for scene in scenes])
        return AspectOrder(high, options.mix_group_size if mixed else None)


def read_sizes(options: Any) -> Sizes:
    """The sizes that the options of a DetectionData say."""
    has = options.HasField

    def both(short: str, long: str) -> tuple[int, int] | None:
        return (getattr(options, short), getattr(options, long)) if has(short) and has(long) else None

    return Sizes(
        fixed=given_size(options, "resize"),
        ratio=options.resize_ratio if has("resize_ratio") else None,
        sides=both("short_size", "long_size"),
        crop=given_size(options, "crop"),
        crop_sides=both("crop_short_size", "crop_long_size"),
        ratios=tuple(options.template_ratio),
    )
