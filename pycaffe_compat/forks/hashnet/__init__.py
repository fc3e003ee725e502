"""HashNet: codes for finding pictures again."""

from ..fork import Fork

FORK = Fork(
    name="hashnet",
    title="HashNet",
    source="thuml/HashNet",
    types="PairwiseLoss ScaleTanH",
)
