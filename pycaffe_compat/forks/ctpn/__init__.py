"""CTPN."""

from ..fork import Fork

FORK = Fork(
    name="ctpn",
    title="CTPN",
    source="tianzhi0549/CTPN",
    types="Lstm ROIPooling Reverse SmoothL1Loss Transpose",
)
