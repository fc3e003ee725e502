"""BN, as the Caffe of temporal segment networks has it (yjxiong/caffe, bn_layer.cpp)."""

from __future__ import annotations

from ...layers.registry import register
from ..pspnet.bn import RunningBN


@register("BN", fork=("tsn", "person_search"))
class FlatRunningBN(RunningBN):
    """PSPNet's BN, with blobs of shape 1 x channels."""

    fork_options = frozenset()
    blob_axes = 2
