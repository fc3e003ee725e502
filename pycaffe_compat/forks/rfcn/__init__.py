"""R-FCN."""

from ..fork import Fork

FORK = Fork(
    name="rfcn",
    title="R-FCN",
    source="daijifeng001/caffe-rfcn",
    types="BoxAnnotatorOHEM PSROIPooling ROIPooling SmoothL1Loss SmoothL1LossOHEM SoftmaxWithLossOHEM",
    refused={
        "LossParameter.pre_fixed_normalizer": "is what the loss is divided by",
    },
)
