"""The softmax loss in which one class has a weight."""

from ..fork import Fork

FORK = Fork(
    name="weighted_softmax",
    title="the weighted softmax loss",
    source="silver-rush/Weighted_Softmax_Loss",
    types="WeightedSoftmaxWithLoss",
)
