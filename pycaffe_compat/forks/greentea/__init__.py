"""Greentea, Caffe on OpenCL with layers for segmentation."""

from ..fork import Fork

FORK = Fork(
    name="greentea",
    title="Caffe on OpenCL (Greentea)",
    source="naibaf7/caffe",
    types="Affinity ConnectedComponent MalisLoss MergeCrop",
)
