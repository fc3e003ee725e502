"""Center loss of MNIST, whose centers move in the forward pass."""

from ..fork import Fork

FORK = Fork(
    name="center_loss_mnist",
    title="center loss of MNIST",
    source="hsmyy/CenterLoss_Caffe_Mnist",
    types="CenterLoss",
)
