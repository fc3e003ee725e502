"""Domain guided dropout, for finding persons again."""

from ..fork import Fork

FORK = Fork(
    name="domain_guided",
    title="Domain guided dropout",
    source="Cysu/caffe",
    types="BN GuidedDropout MPIGather MPIScatter SmoothL1Loss",
    speed={
        "NetParameter.richness": "how much memory convolutions take",
        "DataParameter.shuffle_pool_size": "in which order records come; they come in the order of the database here",
    },
)
