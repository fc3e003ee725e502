"""Caffe for faces and Windows."""

from ..fork import Fork

FORK = Fork(
    name="happynear",
    title="Caffe for faces and Windows",
    source="happynear/caffe-windows",
    types=(
        "Arccos Axpy BN BatchContrastiveLoss CenterLoss ChannelScale ConfidencePenaltyLoss CorrelationLoss "
        "Cosine FCNAccuracy Flip FocalLoss GeneralContrastiveLoss GeneralTripletLoss GlobalLSEMargin Gram "
        "Hotspot InnerDistance Insanity LabelSpecificAdd LargeMarginInnerProduct Local MarginInnerProduct "
        "MovingNormalize MultiLabelImageData NCALoss Noise Normalize PSROIPooling Pairwise Permute PredictBox "
        "Proposal ROIPooling Resize Slope SmoothL1Loss SoftContrastiveLoss SoftTruncation SubRegion "
        "Transformer TripletLoss Truncation"
    ),
)
