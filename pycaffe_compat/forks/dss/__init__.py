"""Salient objects with short connections."""

from ..fork import Fork

FORK = Fork(
    name="dss",
    title="Salient object detection with short connections",
    source="Andrew-Qibin/caffe_dss",
    types="ImageLabelmapData",
)
