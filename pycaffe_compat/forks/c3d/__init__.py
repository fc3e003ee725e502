"""C3D 1.1."""

from ..fork import Fork

FORK = Fork(
    name="c3d",
    title="C3D 1.1",
    source="facebookarchive/C3D, C3D-v1.1",
    types="BlackHole Convolution3D Deconvolution3D L2Normalize Pooling3D VideoData",
)
