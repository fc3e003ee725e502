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
    },
    refused={
        "TransformationParameter.distort_param": "changes the colours of pictures, in AnnotatedData only",
        "TransformationParameter.expand_param": "puts pictures into larger ones, in AnnotatedData only",
        "TransformationParameter.emit_constraint": "says which boxes a crop keeps, in AnnotatedData only",
    },
)
