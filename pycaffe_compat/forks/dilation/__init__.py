"""Dilated convolutions."""

from ..fork import Fork

FORK = Fork(
    name="dilation",
    title="Dilated convolutions",
    source="fyu/caffe-dilation",
    types="BinLabelData ImageLabelData",
    refused={"FillerParameter.num_groups": "fills groups of filters alike"},
)
