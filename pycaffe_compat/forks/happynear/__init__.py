"""Caffe for faces and Windows."""

from ..fork import Fork

FORK = Fork(
    name="happynear",
    title="Caffe for faces and Windows",
    source="happynear/caffe-windows",
    types=(
        "Arccos Axpy BN BatchContrastiveLoss CenterLoss ChannelScale ConfidencePenaltyLoss CorrelationLoss "
        "Cosine FCNAccuracy Flip FocalLoss GeneralContrastiveLoss GeneralTripletLoss GlobalLSEMargin Gram "
        "Hotspot InnerDistance Insanity LabelSpecificAdd LabelSpecificRescale LargeMarginInnerProduct Local MarginInnerProduct "
        "MovingNormalize MultiLabelImageData NCALoss Noise Normalize PSROIPooling Pairwise Permute PredictBox "
        "Proposal ROIPooling Resize Slope SmoothL1Loss SoftContrastiveLoss SoftTruncation SubRegion "
        "Transformer TripletLoss Truncation"
    ),
    speed={
        "BatchNormParameter.engine": "which library computes",
        "ConvolutionParameter.cudnn_convolution_algo_seeker": "how an algorithm of cuDNN is chosen",
    },
    refused={
        "SolverParameter.clip_weights": "limits weights",
        "SolverParameter.clamp_weights_lower": "limits weights",
        "SolverParameter.clamp_weights_upper": "limits weights",
        "SoftmaxParameter.label_smooth_factor": "shares a part of each label among all classes",
    },
)
