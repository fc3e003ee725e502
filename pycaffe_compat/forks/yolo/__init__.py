"""YOLO."""

from ..fork import Fork

FORK = Fork(
    name="yolo",
    title="YOLO",
    source="eric612/MobileNet-YOLO",
    types=(
        "AnnotatedData AssistedExcitation Axpy DepthwiseConvolution DetectionEvaluate DetectionOutput "
        "GaussianYolov3 LaneData MultiBoxLoss Normalize Permute PriorBox ReLU6 RegionLoss Reorg "
        "SegmentationEvaluate SmoothL1Loss Upsample YoloDetectionOutput YoloSeg Yolov3 Yolov3DetectionOutput"
    ),
)
