"""SphereFace+."""

from ..fork import Fork

FORK = Fork(
    name="sphereface_plus",
    title="SphereFace+",
    source="wy1iu/sphereface-plus",
    types="InterClass MarginInnerProduct Normalize",
)
