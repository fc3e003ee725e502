"""SSDH: supervised semantics-preserving deep hashing."""

from ..fork import Fork

FORK = Fork(
    name="ssdh",
    title="SSDH",
    source="kevinlin311tw/Caffe-DeepBinaryCode",
    types="K1_EuclideanLoss K2_EuclideanLoss MultiLabelAccuracy MultiLabelSigmoidLoss",
)
