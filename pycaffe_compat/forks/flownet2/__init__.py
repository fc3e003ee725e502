"""FlowNet 2."""

from ..fork import Fork

FORK = Fork(
    name="flownet2",
    title="FlowNet 2",
    source="lmb-freiburg/flownet2",
    types=(
        "Accum BlackAugmentation ChannelNorm Correlation Correlation1D CustomData DataAugmentation "
        "DisparityData Downsample FLOWriter FloatReader FloatWriter FlowAugmentation FlowWarp "
        "GenerateAugmentationParameters ImgReader ImgWriter L1Loss LpqLoss Mean NegReLU PFMWriter Resample"
    ),
    speed={
        "DataParameter.disk_reader_threads": "how many threads read and prepare records",
        "DataParameter.verbose": "what is logged",
        "LayerParameter.reshape_every_iter": "whether shapes are recomputed in each iteration",
    },
)
