"""CustomData, as FlowNet2's Caffe has it (lmb-freiburg/flownet2, custom_data_layer.cpp)."""

from __future__ import annotations

from typing import Any, ClassVar

from ...data.mean import read_mean
from ...data.slices import Selection, SliceReader
from ...errors import prefixed
from ...layers.data_layers import BatchSource
from ...layers.registry import register
from ...proto import caffe_pb2


@register("CustomData", fork=("flownet2", "liteflownet", "pwcnet"))
class CustomData(BatchSource):
    """Slices of the channels of an LMDB's Datums, as of two images and the flow between them: a top for each.

    ``slice_point`` cuts, and ``encoding`` says how each slice is stored. Without cuts a second top holds labels. The order is
    that of the numbers in the keys; ``rand_permute`` changes it once, with ``rand_permute_seed`` as on Linux, so that a published
    split stays what it is, and again every ``permute_every_iter`` batches. ``preselection_file`` and the range choose records.
    """

    options = ("data_param",)
    inert_options = frozenset(
        {"prefetch", "disk_reader_threads", "verbose", "huge_video_dataset", "limit_samples", "force_encoded_color"}
    )
    tops: ClassVar[tuple[int, int | None]] = (1, None)

    def make_reader(self, param: Any) -> SliceReader:
        options = param.data_param
        size = self.batch_size(options) if options.HasField("batch_size") else 1
        cuts = list(options.slice_point)
        labelled = not cuts and self.n_tops == 2
        if self.n_tops != len(cuts) + 1 + labelled:
            raise self.error(
                f"has {self.n_tops} tops; {len(cuts)} data_param.slice_point make {len(cuts) + 1} slices, a top for each"
            )
        for name, why in (
            ("crop_size", "the fork does not crop here; a DataAugmentation layer does"),
            ("mirror", "the fork does not mirror here; a DataAugmentation layer does"),
            ("rand_skip", "the fork has none here; range_start leaves records out"),
        ):
            if getattr(options, name):
                raise self.error(f"data_param.{name}: {why}")
        if options.HasField("preselection_file") and not options.HasField("preselection_label"):
            raise self.error(
                "data_param.preselection_file needs preselection_label, the number of the records that are read"
            )
        mean = None
        if options.HasField("mean_file"):
            with prefixed("data_param.mean_file"):
                mean = read_mean(options.mean_file)
        return SliceReader(
            options.source,
            size,
            cuts,
            list(options.encoding),
            Selection(
                labels=options.preselection_file,
                label=options.preselection_label,
                start=options.range_start,
                stop=options.range_end,
                shuffle=options.rand_permute,
                shuffle_first=options.rand_permute_order == caffe_pb2.DataParameter.FIRST_PERMUTE_THEN_RANGE,
                seed=options.rand_permute_seed,
                every=options.permute_every_iter,
                block=options.block_size,
            ),
            mean if mean is not None or not options.subtract else list(options.subtract),
            options.scale,
        )
