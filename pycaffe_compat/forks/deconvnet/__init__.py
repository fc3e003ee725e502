"""DeconvNet."""

from ..fork import Fork

FORK = Fork(
    name="deconvnet",
    title="DeconvNet",
    source="HyeonwooNoh/caffe",
    types=(
        "BN BinAccuracy DropoutChannel EltwiseAccuracy ImageSegData RedAccuracy RedSoftmaxLoss "
        "SelectSegBinary Unpooling WindowClsData WindowInstSegData WindowSegBinary WindowSegData"
    ),
)
