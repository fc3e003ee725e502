"""DeepLab v1."""

from ..fork import Fork

FORK = Fork(
    name="deeplab_v1",
    title="DeepLab v1",
    source="TheLegendAli/DeepLab-Context",
    types=(
        "AdaptiveBiasChannel BiasChannel CensorLabel ChannelAggregator DenseCRF DominantChannel GainChannel Histogram "
        "IgnoreOverlay ImageSegData Interp MatRead MatWrite OneHot Padding RelativeError SegAccuracy UniqueLabel"
    ),
    speed={
        "LayerParameter.strict_dim": "whether weights of another shape and the same number are loaded; here they are"
    },
)
