"""Caffe with Baidu's warp-ctc."""

from ..fork import Fork

FORK = Fork(
    name="warpctc",
    title="Caffe with warp-ctc",
    source="xmfbit/warpctc-caffe",
    types="ContinuationIndicator CtcLoss LabelsequenceAccuracy Permute",
)
