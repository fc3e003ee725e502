"""YOLO's first version."""

from ..fork import Fork

FORK = Fork(
    name="yolo_v1",
    title="YOLO v1",
    source="yeahkun/caffe-yolo",
    types="BoxData DetectionLoss EvalDetection",
)
