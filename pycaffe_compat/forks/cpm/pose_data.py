"""CPMData of convolutional pose machines (shihenw/caffe, cpm_data_layer.cpp and data_transformer.cpp)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...data.poses import Person, PoseReader, Skeleton, add_hill
from ...layers.base import Shape
from ...layers.data_layers import BatchSource
from ...layers.registry import register
from ..rtpose_train.pose_data import UNREAD, VISIBLE, read_options

_LIMBS = [9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5]
SKELETONS = {  # by num_parts; of another number the joints are those of the record
    9: Skeleton(right=[0, 1, 2, 6], left=[3, 4, 5, 7]),
    14: Skeleton(first=_LIMBS, second=_LIMBS, right=[2, 3, 4, 8, 9, 10], left=[5, 6, 7, 11, 12, 13]),
    28: Skeleton(
        first=[*_LIMBS, 7, 6, 9, 8, 12, 11, 8, 13, 14, 2, 1, 3, 4, 6],
        second=[*_LIMBS, 7, 6, 8, 12, 11, 10, 13, 14, 15, 1, 0, 4, 5, 7],
        right=[2, 3, 4, 8, 9, 10, 17, 18, 19, 23, 24],
        left=[5, 6, 7, 11, 12, 13, 20, 21, 22, 25, 26],
    ),
}


@register("CPMData", fork="cpm")
class CPMData(BatchSource):
    """Pictures of a person, resized, turned, cut and mirrored at random, and maps of the joints, 1 / ``stride`` as large.

    The fourth channel of the first top, without ``put_gaussian: false``, has a hill where the person is. The second top has
    2 * (``num_parts`` + 1) maps: one with a hill at each joint of the person, and the background; the same with everybody's.
    ``num_parts`` 14 and 28 make joints of MPI's. Values of pictures are ``(x - 128) / 256``. What is random has the fork's
    distributions, not the numbers of its generator.
    """

    options = ("cpmdata_param", "transform_param")
    inert_options = UNREAD | {"prefetch", "rand_skip", "lbl_source", "force_encoded_color", "visualize_label"}
    tops = (2, 2)

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        transform, size = param.transform_param, param.cpmdata_param.batch_size
        height, width = transform.crop_size_y, transform.crop_size_x
        stride = max(transform.stride, 1)
        maps = (size, 2 * (transform.num_parts + 1), height // stride, width // stride)
        return [(size, 3 + transform.put_gaussian, height, width), maps]

    def make_reader(self, param: Any) -> PoseReader:
        transform = param.transform_param
        parts = transform.num_parts
        options = read_options(self, transform, "transform_param", self_marks=False)
        if not transform.sigma_center > 0:
            raise self.error(f"transform_param.sigma_center: {transform.sigma_center} must be above 0")
        skeleton = SKELETONS.get(parts, Skeleton()) if transform.transform_body_joint else Skeleton()
        needed = max(skeleton.first, default=parts - 1) + 1
        if parts < 1 or options.joints < needed:
            raise self.error(
                f"transform_param.num_parts: {parts} must be at least 1, and np_in_lmdb: {options.joints} at least {needed}"
            )

        def fill(picture: np.ndarray, maps: np.ndarray, people: list[Person], mask: np.ndarray | None) -> None:
            if transform.put_gaussian:
                add_hill(picture[3], people[0].place, 1, transform.sigma_center)
            own, everybody = maps[: parts + 1], maps[parts + 1 :]
            for number, person in enumerate(people):
                for joint in np.flatnonzero(person.seen[:parts] <= VISIBLE):
                    if not number:
                        add_hill(own[joint], person.joints[joint], options.stride, options.sigma)
                    add_hill(everybody[joint], person.joints[joint], options.stride, options.sigma)
            for group in (own, everybody):
                group[-1] = np.maximum(1 - group[:-1].max(0), 0)

        return PoseReader(
            param.cpmdata_param.source,
            self.batch_size(param.cpmdata_param),
            options,
            skeleton,
            channels=(4, 6),
            masked=False,
            tops=(3 + transform.put_gaussian, 2 * (parts + 1)),
            fill=fill,
        )
