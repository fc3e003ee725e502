"""Video-caffe."""

from ..fork import Fork

FORK = Fork(
    name="video_caffe",
    title="Video-caffe",
    source="chuckcho/video-caffe",
    types="NdConvolution NdPooling VideoData",
)
