"""SSD with focal loss."""

from ..fork import Fork

FORK = Fork(
    name="ssd_focal",
    title="SSD with focal loss",
    source="canteen-man/MobileNet-SSD-Focal-loss",
    types=(
        "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxFocalLoss MultiBoxLoss Normalize Permute PriorBox "
        "SmoothL1Loss"
    ),
)
