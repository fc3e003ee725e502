"""The Caffe that became that of temporal segment networks, as it was in 2015."""

from ..fork import Fork

FORK = Fork(
    name="tsn_v1",
    title="yjxiong's Caffe of 2015",
    source="yjxiong/caffe",
    types="BN",
)
