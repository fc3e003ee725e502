"""Temporal segment networks."""

from ..fork import Fork

FORK = Fork(
    name="tsn",
    title="Temporal segment networks",
    source="yjxiong/caffe",
    types="BN BatchReduction Gather Normalize ROIPooling Scatter SegData SmoothL1Loss SyncBN VideoData",
    speed={
        "SolverParameter.group_id": "which GPUs work together",
        "SolverParameter.richness": "what is logged",
        "NetParameter.mem_param": "how memory is shared",
    },
)
