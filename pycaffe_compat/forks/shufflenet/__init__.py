"""ShuffleNet."""

from ..fork import Fork

FORK = Fork(
    name="shufflenet",
    title="ShuffleNet",
    source="farmingyard/ShuffleNet",
    types="ConvolutionDepthwise ShuffleChannel",
)
