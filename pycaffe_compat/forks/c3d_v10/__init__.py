"""C3D 1.0."""

from ..fork import Fork

FORK = Fork(
    name="c3d_v10",
    title="C3D 1.0",
    source="facebookarchive/C3D, C3D-v1.0",
    types="Convolution3D Deconvolution3D Pooling3D Unpooling3D VideoData",
)
