"""Cascade R-CNN."""

from ..fork import Fork

FORK = Fork(
    name="cascade_rcnn",
    title="Cascade R-CNN",
    source="zhaoweicai/cascade-rcnn",
    types=(
        "BboxAccuracy BoxGroupOutput DecodeBBox DetectionData DetectionEvaluate DetectionGroupAccuracy DetectionGroupLoss "
        "EvalData FrcnnOutput HardMining PSROIPooling ProposalTarget ROIAlign ROIPooling ScaleRoute SmoothL1Loss"
    ),
)
