"""Long-term recurrent convolutional networks."""

from ..fork import Fork

FORK = Fork(
    name="lisa",
    title="Long-term recurrent convolutional networks",
    source="LisaAnne/lisa-caffe-public",
)
