"""Intel Caffe."""

from ..fork import Fork
from .merging import merge_scales

FORK = Fork(
    name="intel",
    title="Intel Caffe",
    source="intel/caffe",
    types=(
        "AnnotatedData Axpy BoxAnnotatorOHEM BoxData DetectionEvaluate DetectionOutput EvalDetection "
        "MKLBatchNorm MnActivation MultiBoxLoss Normalize PSROIPooling Permute PriorBox ROIPooling RegionLoss "
        "Reorg SmoothL1Loss SmoothL1LossOHEM SoftmaxWithLossOHEM SpatialDropout VideoData"
    ),
    speed={
        "NetParameter.engine": "which library computes",
        "LayerParameter.engine": "which library computes",
        "SolverParameter.engine": "which library computes",
        "NetParameter.compile_net_state": "which layers Intel's Caffe fuses or leaves out; results are the same",
        "NetParameter.multinode": "how the work is divided among machines",
        "NetParameter.bn_stats_batch_size": "over how many pictures a machine takes statistics; the whole batch here",
        "BatchNormParameter.engine": "which library computes",
        "ConcatParameter.engine": "which library computes",
        "EltwiseParameter.engine": "which library computes",
        "InnerProductParameter.engine": "which library computes",
        "ConvolutionParameter.conv_algorithm": "which algorithm computes convolutions",
        "ReLUParameter.fuse": "whether ReLU runs inside of the layer before it",
        "LayerParameter.quantization_param": "how 8-bit kernels scale numbers; everything is computed in float32 here",
        "DataParameter.shuffle": "in which order records come",
        "SolverParameter.disabled_update": "which layers are not updated by other machines",
    },
    prepare=merge_scales,
)
