"""DeepDetect's Caffe.

Its numbers are SSD's but for ``distort_param``. There 2, 4, 7 and 9 are floats in SSD and bools in this fork, which tells
binary nets of the two apart; one that sets none of these four reads as either, and is refused until ``fork=`` names one.
``Datum.label``, a float in this fork, stays BVLC's whole number.
"""

from ..fork import Fork

FORK = Fork(
    name="deepdetect",
    title="DeepDetect's Caffe",
    source="jolibrain/caffe",
    types=(
        "AnnotatedData Axpy BroadcastMul ContinuationIndicator ConvolutionDepthwise CtcLoss DenseImageData DetectionEvaluate "
        "DetectionOutput DiceCoefLoss FocalLoss Interp LabelsequenceAccuracy MemorySparseData MultiBoxFocalLoss MultiBoxLoss "
        "MultiLabelAccuracy MultiLabelSigmoidLoss Normalize Permute PriorBox ROIPooling ReLU6 Reverse SeLu SeLuDropout "
        "ShuffleChannel SmoothL1Loss SoftmaxWithInfogainLoss SparseData SparseInnerProduct Upsample VideoData"
    ),
    speed={"ConvolutionParameter.cudnn_flavor": "which algorithm of cuDNN runs a convolution"},
    refused={
        "TransformationParameter.geometry_param": "changes the perspective and zoom of pictures",
        "SoftmaxParameter.scaling_temperature": "scales the scores before the softmax",
        "HDF5DataParameter.image": "reads pictures from HDF5 files",
    },
)
