"""Xlearn: deep adaptation, residual transfer and joint adaptation networks."""

from ..fork import Fork

FORK = Fork(
    name="xlearn",
    title="Xlearn",
    source="thuml/Xlearn, zhuhan1236/transfer-caffe",
    types="EntropyLoss GradientScaler JMMDLoss MMDLoss OuterProduct",
)
