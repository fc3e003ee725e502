"""DenseNet and other backbones."""

from ..fork import Fork

FORK = Fork(
    name="densenet",
    title="DenseNet and other backbones",
    source="shicai/DenseNet-Caffe, soeaver/caffe-model",
    types="Axpy DepthwiseConvolution",
)
