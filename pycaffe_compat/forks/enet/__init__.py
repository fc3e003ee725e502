"""ENet, and SegNet on cuDNN 5."""

from ..fork import Fork

FORK = Fork(
    name="enet",
    title="ENet",
    source="TimoSaemann/caffe-segnet-cudnn5",
    types="BN DenseImageData Upsample",
)
