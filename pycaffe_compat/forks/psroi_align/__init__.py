"""R-FCN with PSROIAlign."""

from ..fork import Fork

FORK = Fork(
    name="psroi_align",
    title="R-FCN with PSROIAlign",
    source="afantideng/R-FCN-PSROIAlign",
    types="BoxAnnotatorOHEM PSROIAlign PSROIPooling ROIPooling SmoothL1Loss SmoothL1LossOHEM SoftmaxWithLossOHEM",
)
