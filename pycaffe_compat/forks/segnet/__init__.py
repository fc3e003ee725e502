"""SegNet."""

from ..fork import Fork

FORK = Fork(
    name="segnet",
    title="SegNet",
    source="alexgkendall/caffe-segnet",
    types="BN DenseImageData Upsample",
)
