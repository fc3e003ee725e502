"""Heat maps of poses."""

from ..fork import Fork

FORK = Fork(
    name="heatmap",
    title="Caffe-heatmap",
    source="tpfister/caffe-heatmap",
    types="DataHeatmap EuclideanLossHeatmap",
    speed={
        "LayerParameter.visualise": "whether windows show what a layer does",
        "LayerParameter.visualise_channel": "what windows show",
    },
)
