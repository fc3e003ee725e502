"""DeepLab v2."""

from ..fork import Fork

FORK = Fork(
    name="deeplab",
    title="DeepLab v2",
    source="xmyqsh/deeplab-v2",
    types=(
        "AdaptiveBiasChannel BiasChannel DenseCRF DomainTransform DomainTransformForwardOnly ImageSegData "
        "Interp MatRead MatWrite SegAccuracy SpatialProduct UniqueLabel"
    ),
)
