"""Convolutional pose machines."""

from ..fork import Fork

FORK = Fork(
    name="cpm",
    title="Convolutional pose machines",
    source="shihenw/caffe",
    types="CPMData ROIPooling",
    speed={"HDF5DataParameter.debug": "what is logged"},
)
