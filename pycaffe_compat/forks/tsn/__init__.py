"""Temporal segment networks."""

from ..fork import Fork

FORK = Fork(
    name="tsn",
    title="Temporal segment networks",
    source="yjxiong/caffe",
    types="BN BatchReduction Gather Normalize ROIPooling Scatter SegData SmoothL1Loss SyncBN VideoData",
)
