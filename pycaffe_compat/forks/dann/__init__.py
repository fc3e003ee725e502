"""DANN: domain adaptation by reversed gradients."""

from ..fork import Fork

FORK = Fork(
    name="dann",
    title="DANN",
    source="ddtm/caffe, branch grl",
    types="GradientScaler",
    speed={"DataParameter.cursor": "in which order records come; they come in the order of the database here"},
)
