"""SSD."""

from ..fork import Fork

FORK = Fork(
    name="ssd",
    title="SSD",
    source="weiliu89/caffe, branch ssd",
    types=(
        "AnnotatedData DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox SmoothL1Loss VideoData"
    ),
    speed={
        "SolverParameter.ap_version": "how eval_type detection averages precision",
        "SolverParameter.show_per_class_result": "what eval_type detection logs",
        # steps that AnnotatedDataLayer takes before the transformer, which no other layer does
        "TransformationParameter.distort_param": "the colours of pictures, in AnnotatedData only",
        "TransformationParameter.expand_param": "which pictures are put into larger ones, in AnnotatedData only",
        "TransformationParameter.emit_constraint": "which boxes a crop keeps, in AnnotatedData only",
    },
)
