"""Richer convolutional features for edges."""

from ..fork import Fork

FORK = Fork(
    name="rcf",
    title="Richer convolutional features",
    source="yun-liu/rcf",
    types="AutoCrop ImageLabelmapData",
)
