"""Compact bilinear pooling."""

from ..fork import Fork

FORK = Fork(
    name="compact_bilinear",
    title="compact bilinear pooling",
    source="gy20073/compact_bilinear_pooling, caffe-20160312",
    types="Bilinear CompactBilinear L2Normalize SignedSqrt",
)
