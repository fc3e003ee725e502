"""Multi-task network cascades."""

from ..fork import Fork

FORK = Fork(
    name="mnc",
    title="Multi-task network cascades",
    source="daijifeng001/caffe-mnc",
    types="MaskPooling MaskResize ROIPooling ROIWarping SmoothL1Loss",
)
