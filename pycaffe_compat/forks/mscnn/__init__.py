"""MS-CNN."""

from ..fork import Fork

FORK = Fork(
    name="mscnn",
    title="MS-CNN",
    source="zhaoweicai/mscnn",
    types=(
        "BboxAccuracy BoxOutput DecodeBBox DetectionAccuracy DetectionLoss ImageGtData ProposalTarget "
        "ROIAlign ROIPooling SmoothL1Loss"
    ),
)
