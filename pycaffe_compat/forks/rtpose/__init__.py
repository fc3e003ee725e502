"""Poses of several people in real time."""

from ..fork import Fork

FORK = Fork(
    name="rtpose",
    title="Realtime multi-person pose estimation",
    source="CMU-Perceptual-Computing-Lab/caffe_rtpose",
    types="ImResize Nms",
)
