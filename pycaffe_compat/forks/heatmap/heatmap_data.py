"""DataHeatmap, as Caffe-heatmap has it (tpfister/caffe-heatmap, data_heatmap.cpp)."""

from __future__ import annotations

from typing import Any

from ...data.joints import JointOptions, JointReader, read_joints
from ...errors import prefixed
from ...layers.data_layers import BatchSource
from ...layers.registry import register


@register("DataHeatmap", fork="heatmap")
class DataHeatmap(BatchSource):
    """RGB images, and a map for each joint with a peak at its position, from lines IMAGE X,Y,X,Y,… CROP CLASS.

    ``random_crop`` cuts ``cropsize`` pixels at a random place, mirrors half of the pictures and turns them by up to
    ``angle_max`` degrees; else the middle is cut. The result is resized to ``outsize``. Mirroring exchanges joints: the first
    with the second and so on, or the second with the third with ``dont_flip_first``. ``labelinds`` picks numbers of a line,
    counted from 1. ``segmentation`` blackens what lies outside of the person, by pictures in ``segs/``.
    """

    options = ("heatmap_data_param",)
    inert_options = frozenset({"crop_meanfile", "num_channels"})
    tops = (2, 2)

    def make_reader(self, param: Any) -> JointReader:
        options = param.heatmap_data_param
        if options.batchsize < 1 or options.cropsize < 1 or options.outsize < 1:
            raise self.error(
                f"batchsize is {options.batchsize}, cropsize {options.cropsize} and outsize {options.outsize}; all must be at "
                "least 1"
            )
        if options.label_width != options.label_height or not options.label_width:
            raise self.error(
                f"label_width is {options.label_width} and label_height {options.label_height}; they must be equal and at least "
                "1, as the fork supports only square maps"
            )
        for name in ("meanfile", "sample_per_cluster"):
            if getattr(options, name):
                raise self.error(f"heatmap_data_param.{name} is not supported: leave it out")
        if not options.multfact:
            raise self.error("heatmap_data_param.multfact is 0; it must be at least 1")
        picks = [word.strip() for word in options.labelinds.split(",") if word.strip()]
        if not all(word.isdigit() and int(word) for word in picks):
            raise self.error(f'labelinds is "{options.labelinds}"; expected numbers from 1 with commas between them')
        with prefixed("heatmap_data_param.source"):
            people = read_joints(options.source, [int(word) for word in picks])
        return JointReader(
            people,
            options.batchsize,
            JointOptions(
                root=options.root_img_dir,
                crop=options.cropsize,
                size=options.outsize,
                map_size=options.label_width,
                factor=options.multfact,
                scale=options.scale,
                at_random=options.random_crop,
                angle=options.angle_max,
                swap=options.flip_joint_labels,
                first_swapped=2 if options.dont_flip_first else 0,
                masked=options.segmentation,
            ),
        )
