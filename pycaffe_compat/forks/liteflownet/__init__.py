"""LiteFlowNet, built on FlowNet2's Caffe."""

from ..fork import Fork

FORK = Fork(
    name="liteflownet",
    title="LiteFlowNet",
    source="twhui/LiteFlowNet",
    types=(
        "ChannelNorm Correlation Correlation1D CustomData DataAugmentation DisparityData Downsample ExpMax FLOWriter "
        "FloatReader FloatWriter FlowAugmentation GenerateAugmentationParameters Grid ImgReader ImgWriter L1Loss Mean "
        "NegReLU NegSquare PFMWriter Resample Warp"
    ),
    speed={
        "DataParameter.disk_reader_threads": "how many threads read and prepare records",
        "DataParameter.verbose": "what is logged",
        "LayerParameter.reshape_every_iter": "whether shapes are recomputed in each iteration",
    },
    refused={"LRNParameter.shift": "is added before a division"},
)
