"""CPMData of the training of realtime pose estimation (caffe_train, cpm_data_layer.cpp and cpm_data_transformer.cpp)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from ...data.poses import KNOWN, UNMARKED, Person, PoseOptions, PoseReader, Skeleton, add_hill, draw_limb
from ...layers.base import Layer
from ...layers.data_layers import BatchSource
from ...layers.registry import register
from ...proto import caffe_pb2

UNREAD = frozenset(  # what the forks' layers do not look at
    {
        *("scale", "mirror", "mean_file", "mean_value", "scale_cvg", "max_cvg_len", "min_cvg_len", "opaque_coverage"),
        *("coverage", "bbox_norm_factor", "img_header", "force_color", "force_gray", "num_total_augs", "visualize"),
    }
)
VISIBLE = 1  # what is known of a joint that counts, at most
COCO = Skeleton(
    first=[0, 5, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3],
    second=[0, 6, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3],
    right=[2, 3, 4, 8, 9, 10, 14, 16],
    left=[5, 6, 7, 11, 12, 13, 15, 17],
    limbs=[
        *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 2), (2, 3), (3, 4), (2, 16)),
        *((1, 5), (5, 6), (6, 7), (5, 17), (1, 0), (0, 14), (0, 15), (14, 16), (15, 17)),
    ],
)
MPI = Skeleton(
    first=[9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5, 7],
    second=[9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5, 6],
    right=[2, 3, 4, 8, 9, 10],
    left=[5, 6, 7, 11, 12, 13],
    limbs=[
        *((0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 14), (14, 8), (8, 9), (9, 10), (14, 11)),
        *((11, 12), (12, 13)),
    ],
)
SKELETONS = {56: COCO, 43: MPI}  # by num_parts: two maps for each limb, and one for each joint


def read_options(layer: Layer, options: Any, where: str, self_marks: bool) -> PoseOptions:
    """Read what both forks' layers have in ``options``, the field ``where``.

    Raises:
        LayerError: a value that cannot be, or TEST, for which the forks make no batches.
    """
    if layer.phase != caffe_pb2.TRAIN:
        raise layer.error(
            "makes batches only for training, as in the fork: give it include { phase: TRAIN }, and another source for TEST"
        )

    def check(name: str, fits: bool, valid: str) -> Any:
        value = getattr(options, name)
        if not fits:
            raise layer.error(f"{where}.{name}: {value} must be {valid}")
        return value

    check("crop_size", not options.crop_size, "left out; crop_size_x and crop_size_y say what is cut")
    check("aug_way", options.aug_way == "rand", '"rand"; tables of transformations are not read here')
    stride = check("stride", options.stride >= 1, "at least 1")
    size = (
        check("crop_size_y", options.crop_size_y >= stride, f"at least stride: {stride}"),
        check("crop_size_x", options.crop_size_x >= stride, f"at least stride: {stride}"),
    )
    least = check("scale_min", 0 < options.scale_min <= options.scale_max, "above 0 and not above scale_max")
    tiles = check("clahe_tile_size", not options.do_clahe or int(options.clahe_tile_size) >= 1, "at least 1")
    return PoseOptions(
        size=size,
        stride=stride,
        scale=(options.scale_prob, least, options.scale_max),
        target=check("target_dist", options.target_dist > 0, "above 0"),
        degrees=options.max_rotate_degree,
        reach=options.center_perterb_max,
        mirrored=options.flip_prob,
        sigma=check("sigma", options.sigma > 0, "above 0"),
        tiles=int(tiles) if options.do_clahe else 0,
        limit=int(options.clahe_clip_limit),
        grey=options.gray == 1,
        joints=check("np_in_lmdb", options.np_in_lmdb >= 1, "at least 1"),
        self_marks=self_marks,
    )


@register("CPMData", fork="rtpose_train")
class CPMData(BatchSource):
    """Pictures of people, resized, turned, cut and mirrored at random, with maps of joints and limbs, 1 / ``stride`` as large.

    The first top has the channels of the records; those behind the picture are 0. The second has 2 * (``num_parts`` + 1): first
    what each map counts, by a mask of people that nobody has marked; then two maps for each limb, which hold its direction, one
    for each joint, with a hill at each person's, and the background. ``num_parts: 56`` is for COCO's joints, 43 for MPI's. Values
    of pictures are ``(x - 128) / 256``. What is random has the fork's distributions, not the numbers of its generator.
    """

    options = ("data_param", "cpm_transform_param")
    inert_options = UNREAD | {"prefetch", "sigma_center"}
    tops = (2, 2)

    def make_reader(self, param: Any) -> PoseReader:
        transform = param.cpm_transform_param
        parts = transform.num_parts
        if parts not in SKELETONS or not transform.transform_body_joint:
            raise self.error(
                f"cpm_transform_param.num_parts: {parts} must be 56 (COCO) or 43 (MPI), and transform_body_joint true: the fork "
                "makes no maps otherwise"
            )
        skeleton = SKELETONS[parts]
        options = read_options(self, transform, "cpm_transform_param", self_marks=True)
        needed = max(*skeleton.first, *skeleton.second) + 1
        if options.joints < needed:
            raise self.error(
                f"cpm_transform_param.np_in_lmdb: {options.joints} must be at least {needed} for num_parts: {parts}"
            )
        return PoseReader(
            param.data_param.source,
            self.batch_size(param.data_param),
            options,
            skeleton,
            channels=(5, 6),
            masked=True,
            tops=(0, 2 * (parts + 1)),
            fill=filler(options, skeleton, parts),
        )


def filler(
    options: PoseOptions, skeleton: Skeleton, parts: int
) -> Callable[[np.ndarray, np.ndarray, list[Person], np.ndarray | None], None]:
    """What writes the maps of a picture."""

    def fill(picture: np.ndarray, maps: np.ndarray, people: list[Person], mask: np.ndarray | None) -> None:
        assert mask is not None
        small = cv2.resize(mask, None, fx=1 / options.stride, fy=1 / options.stride, interpolation=cv2.INTER_CUBIC)
        counted = small[: maps.shape[1], : maps.shape[2]].astype(np.float32) / KNOWN
        # The fork looks at the joints of the first person by the numbers of maps, which are those of limbs first.
        kept = [i for i in range(parts) if i >= len(people[0].seen) or people[0].seen[i] != UNMARKED]
        maps[kept] = counted
        maps[parts] = counted
        made = maps[parts + 1 :]
        hills = made[2 * len(skeleton.limbs) : -1]
        for person in people:
            for joint in np.flatnonzero(person.seen <= VISIBLE):
                add_hill(hills[joint], person.joints[joint], options.stride, options.sigma)
            for number, (one, other) in enumerate(skeleton.limbs):
                if max(person.seen[one], person.seen[other]) <= VISIBLE:
                    draw_limb(made[2 * number : 2 * number + 2], person.joints[one], person.joints[other])
        made[-1] = np.maximum(1 - hills.max(0), 0)

    return fill
