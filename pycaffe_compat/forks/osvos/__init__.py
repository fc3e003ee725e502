"""One-shot video object segmentation."""

from ..fork import Fork

FORK = Fork(
    name="osvos",
    title="OSVOS",
    source="kmaninis/OSVOS-caffe",
    types="SigmoidCrossEntropyBalanceLoss",
)
