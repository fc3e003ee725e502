"""PSPNet and ICNet."""

from ..fork import Fork

FORK = Fork(
    name="pspnet",
    title="PSPNet and ICNet",
    source="hszhao/PSPNet",
    types=(
        "AdaptiveBiasChannel BN BiasChannel DenseCRF DomainTransform DomainTransformForwardOnly ImageSegData "
        "Interp MatRead MatWrite SegAccuracy SpatialProduct UniqueLabel"
    ),
)
