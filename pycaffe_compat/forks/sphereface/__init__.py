"""SphereFace."""

from ..fork import Fork

FORK = Fork(
    name="sphereface",
    title="SphereFace",
    source="wy1iu/sphereface",
    types="MarginInnerProduct",
)
