"""SegNet."""

from ..fork import Fork

FORK = Fork(
    name="segnet",
    title="SegNet",
    source="alexgkendall/caffe-segnet",
    types="BN DenseImageData Upsample",
    refused={
        "LossParameter.weight_by_label_freqs": "weights classes",
        "LossParameter.class_weighting": "weights classes",
        "DropoutParameter.sample_weights_test": "drops out in the TEST phase too",
    },
)
