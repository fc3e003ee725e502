"""NVIDIA Caffe."""

from ..fork import Fork

NUMBERS = "the number types of NVIDIA's kernels; everything is computed in float32 here, or as --amp says"
SCALE = "a factor on float16 gradients, taken out again before the update; --amp float16 scales the loss here"
THREADS = "how many threads read and prepare records"

FORK = Fork(
    name="nvidia",
    title="NVIDIA Caffe",
    source="NVIDIA/caffe 0.17",
    types=(
        "Axpy DetectNetTransformation DetectionEvaluate DetectionOutput L1Loss MultiBoxLoss Normalize Permute "
        "PriorBox SmoothL1Loss TRT"
    ),
    speed={
        "NetParameter.default_forward_type": NUMBERS,
        "NetParameter.default_backward_type": NUMBERS,
        "NetParameter.default_forward_math": NUMBERS,
        "NetParameter.default_backward_math": NUMBERS,
        "LayerParameter.forward_type": NUMBERS,
        "LayerParameter.backward_type": NUMBERS,
        "LayerParameter.forward_math": NUMBERS,
        "LayerParameter.backward_math": NUMBERS,
        "SolverParameter.solver_data_type": NUMBERS,
        "NetParameter.global_grad_scale": SCALE,
        "NetParameter.global_grad_scale_adaptive": SCALE,
        "NetParameter.default_conv_algos_override": "which algorithms cuDNN uses",
        "ConvolutionParameter.conv_algos_override": "which algorithms cuDNN uses",
        "ConvolutionParameter.cudnn_convolution_algo_seeker": "how an algorithm of cuDNN is chosen",
        "NetParameter.default_cudnn_math_override": "whether cuDNN uses tensor cores",
        "LayerParameter.cudnn_math_override": "whether cuDNN uses tensor cores",
        "NetParameter.reduce_buckets": "in how many parts gradients travel between GPUs",
        "NetParameter.eltwise_mem_sharing": "whether Eltwise layers share memory",
        "LayerParameter.debug": "what is logged",
        "SolverParameter.store_blobs_in_old_format": "the form of numbers in NVIDIA's snapshots; they are Caffe's own here",
        "DataParameter.threads": THREADS,
        "DataParameter.parser_threads": THREADS,
        "DataParameter.cache": "whether records stay in memory",
        "DataParameter.precache": "whether records stay in memory",
        "DataParameter.shuffle": "in which order cached records come; they come in the order of the database here, in each epoch",
        "ImageDataParameter.threads": THREADS,
        "ImageDataParameter.cache": "whether pictures stay in memory",
        "ImageDataParameter.precache": "whether pictures stay in memory",
        "ImageDataParameter.dataset_share_per_node": "how lists are divided among machines",
        "TransformationParameter.use_gpu_transform": "where pictures are transformed; --device-transform decides here",
        "TransformationParameter.forward_packing": "how pictures lie in memory",
        "TransformationParameter.display": "whether pictures are shown",
        "BatchNormParameter.engine": "which library computes",
        "DropoutParameter.engine": "which library computes",
        "SolverParameter.test_and_snapshot_last_epochs": "further tests and snapshots in the last epochs",
    },
    refused={
        "LossParameter.label_smoothing": "shares a part of each label among all classes",
        "PoolingParameter.torch_pooling": "counts windows as Torch does",
    },
)
