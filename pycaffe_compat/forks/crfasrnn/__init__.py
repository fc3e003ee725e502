"""CRF as RNN."""

from ..fork import Fork

FORK = Fork(
    name="crfasrnn",
    title="CRF as RNN",
    source="torrvision/crfasrnn",
    types="MultiStageMeanfield",
)
