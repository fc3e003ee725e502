"""SSD."""

from ..fork import Fork

FORK = Fork(
    name="ssd",
    title="SSD",
    source="weiliu89/caffe, branch ssd",
    types=(
        "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox SmoothL1Loss VideoData"
    ),
)
