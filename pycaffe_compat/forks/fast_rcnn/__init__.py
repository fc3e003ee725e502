"""Fast and Faster R-CNN."""

from ..fork import Fork

FORK = Fork(
    name="fast_rcnn",
    title="Fast and Faster R-CNN",
    source="rbgirshick/caffe-fast-rcnn",
    types="ROIPooling SmoothL1Loss",
)
