"""Dynamic network surgery: weights that are cut and grow again during training."""

from ..fork import Fork

FORK = Fork(
    name="surgery",
    title="Dynamic network surgery",
    source="yiwenguo/Dynamic-Network-Surgery",
    types="CConvolution CInnerProduct",
)
