"""Person search: online instance matching."""

from ..fork import Fork

FORK = Fork(
    name="person_search",
    title="Person search",
    source="Cysu/caffe, branch faster-rcnn",
    types=(
        "BN BatchReduction Gather HybridSoftmaxLoss LabeledMatching Normalize ROIPooling RandomSamplingSoftmaxLoss Scatter "
        "SegData SmoothL1Loss TargetSampling UnlabeledMatching VideoData"
    ),
    speed={
        "SolverParameter.group_id": "which GPUs work together",
        "SolverParameter.richness": "what is logged",
        "NetParameter.mem_param": "how memory is shared",
    },
)
