"""The training of poses of several people."""

from ..fork import Fork

FORK = Fork(
    name="rtpose_train",
    title="the training of realtime pose estimation",
    source="CMU-Perceptual-Computing-Lab/caffe_train",
    types="CPMData",
)
