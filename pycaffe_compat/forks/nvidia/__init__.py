"""NVIDIA Caffe."""

from ..fork import Fork

FORK = Fork(
    name="nvidia",
    title="NVIDIA Caffe",
    source="NVIDIA/caffe 0.17",
    types=(
        "Axpy DetectNetTransformation DetectionEvaluate DetectionOutput L1Loss MultiBoxLoss Normalize Permute "
        "PriorBox SmoothL1Loss TRT"
    ),
)
