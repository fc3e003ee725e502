"""Center loss."""

from ..fork import Fork

FORK = Fork(
    name="caffe_face",
    title="Center loss",
    source="ydwen/caffe-face",
    types="CenterLoss",
)
