"""Lifted structures: embeddings whose loss takes all pairs of a batch."""

from ..fork import Fork

FORK = Fork(
    name="lifted_struct",
    title="Lifted structures",
    source="rksltnl/Caffe-Deep-Metric-Learning-CVPR16",
    types="LiftedStructSimilaritySoftmaxLoss",
)
