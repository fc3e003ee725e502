"""Xilinx's Caffe, of Vitis AI."""

from ..fork import Fork

FORK = Fork(
    name="xilinx",
    title="Xilinx's Caffe",
    source="Xilinx/Vitis-AI",
    types=(
        "AlignmentAccuracy AnnotatedData CenterLoss ConvolutionFixed DeconvolutionFixed DeephiResize "
        "DenseboxMapEvaluation DetectionEvaluate DetectionEvaluateRefine DetectionOutput "
        "DetectionOutputRefine DrivingData DrivingData2 EnhancedImageData FixedNeuron GSTiling ImageSegData "
        "InnerProductFixed L1Loss MultiBoxLoss Normalize NormalizeFixed PAFData Permute PriorBox Proposal "
        "ROIPooling ReLU6 Reorg ReshapeLabel SmoothL1Loss Tiling VideoData YoloEvalDetection"
    ),
    speed={
        "SolverParameter.per_parameter_reduce": "when processes exchange gradients",
        "TransformationParameter.use_gpu_transform": "where pictures are transformed",
        "BatchNormParameter.engine": "which library computes",
        "ConvolutionParameter.cudnn_convolution_algo_seeker": "how cuDNN's algorithm is chosen",
        "DataParameter.threads": "how many threads read",
        "DataParameter.multi_gpu_testing": "how records are read for several GPUs",
        "NetParameter.copyright": "nothing: a note",
    },
    refused={
        "DetectionOutputParameter.has_segmap": "passes a map of segments through",
        "MultiBoxLossParameter.ori_flag": "learns the orientation of boxes",
    },
)
