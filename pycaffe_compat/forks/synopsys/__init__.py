"""synopsys-caffe, which gathers layers of many forks."""

from ..fork import Fork

FORK = Fork(
    name="synopsys",
    title="synopsys-caffe",
    source="foss-for-synopsys-dwc-arc-processors/synopsys-caffe",
    types=(
        "Add Axpy BN BatchToSpaceND ConvolutionDepthwise DetectionOutput HardSwish Interp L1Loss Mish Mul Normalize Pad Permute "
        "PriorBox Proposal ResizeBilinear ResizeNearestNeighbor SpaceToBatchND "
        "ROIAlign ROIPooling ReLU6 Reorg ShuffleChannel SmoothL1Loss Squeeze Upsample UpsampleDarknet "
        "Yolov3DetectionOutput"
    ),
)
