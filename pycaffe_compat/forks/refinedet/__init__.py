"""RefineDet."""

from ..fork import Fork

FORK = Fork(
    name="refinedet",
    title="RefineDet",
    source="sfzhang15/RefineDet",
    types=(
        "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox SmoothL1Loss VideoData"
    ),
)
