"""Learning from noisy labels."""

from ..fork import Fork

FORK = Fork(
    name="noisy_label",
    title="the Caffe of noisy labels",
    source="Cysu/caffe, commit 6c4da017",
    types="BN MPIGather MPIScatter SmoothL1Loss SoftmaxWithNoisyLabelLoss",
    speed={
        "NetParameter.richness": "how much memory convolutions take",
        "DataParameter.shuffle_pool_size": "in which order records come; they come in the order of the database here",
    },
)
