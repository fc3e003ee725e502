"""Ristretto."""

from ..fork import Fork

FORK = Fork(
    name="ristretto",
    title="Ristretto",
    source="pmgysel/caffe",
    types="ConvolutionRistretto DeconvolutionRistretto FcRistretto LRNRistretto",
)
