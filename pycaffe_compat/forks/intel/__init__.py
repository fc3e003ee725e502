"""Intel Caffe."""

from ..fork import Fork

FORK = Fork(
    name="intel",
    title="Intel Caffe",
    source="intel/caffe",
    types=(
        "AnnotatedData Axpy BoxAnnotatorOHEM BoxData DetectionEvaluate DetectionOutput EvalDetection "
        "MKLBatchNorm MnActivation MultiBoxLoss Normalize PSROIPooling Permute PriorBox ROIPooling RegionLoss "
        "Reorg SmoothL1Loss SmoothL1LossOHEM SoftmaxWithLossOHEM SpatialDropout VideoData"
    ),
)
