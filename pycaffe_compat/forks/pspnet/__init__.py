"""PSPNet, ICNet and PSANet."""

from ..fork import Fork

FORK = Fork(
    name="pspnet",
    title="PSPNet, ICNet and PSANet",
    source="hszhao/PSPNet",
    types=(
        "AdaptiveBiasChannel BN BiasChannel DenseCRF DomainTransform DomainTransformForwardOnly ImageSegData "
        "Interp MatRead MatWrite PointwiseSpatialAttention SegAccuracy SpatialProduct UniqueLabel"
    ),
)
