"""OpenVINO's training toolbox."""

from ..fork import Fork

FORK = Fork(
    name="openvino",
    title="OpenVINO's training toolbox",
    source="openvinotoolkit/training_toolbox_caffe",
    types=(
        "AnchorEmbeddingExtractor AnnotatedData ConvolutionDepthwise DetectionEvaluate DetectionOutput "
        "DetectionOutputExtended GRN LabelSpecificAdd MultiBoxLoss Normalize Permute PriorBox "
        "PriorBoxClustered ScaleFilter SmoothL1Loss"
    ),
)
