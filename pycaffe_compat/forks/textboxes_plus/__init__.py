"""TextBoxes++, and its layers for connectionist temporal classification."""

from ..fork import Fork

FORK = Fork(
    name="textboxes_plus",
    title="TextBoxes++",
    source="MhLiao/TextBoxes_plusplus",
    types=(
        "AnnotatedData CTCGreedyDecoder CTCLoss DetectionEvaluate DetectionOutput MultiBoxLoss Normalize Permute PriorBox "
        "ROIPooling Reverse SmoothL1Loss VideoData"
    ),
    refused={
        "TransformationParameter.distort_param": "changes the colours of pictures, only in AnnotatedData",
        "TransformationParameter.expand_param": "puts pictures into larger ones, only in AnnotatedData",
        "TransformationParameter.emit_constraint": "says which boxes a crop keeps, only in AnnotatedData",
    },
)
