"""SENet."""

from ..fork import Fork

FORK = Fork(
    name="senet",
    title="SENet",
    source="hujie-frank/SENet",
    types="Axpy",
)
