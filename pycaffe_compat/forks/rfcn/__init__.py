"""R-FCN."""

from ..fork import Fork

FORK = Fork(
    name="rfcn",
    title="R-FCN",
    source="daijifeng001/caffe-rfcn",
    types="BoxAnnotatorOHEM PSROIPooling ROIPooling SmoothL1Loss SmoothL1LossOHEM SoftmaxWithLossOHEM",
)
