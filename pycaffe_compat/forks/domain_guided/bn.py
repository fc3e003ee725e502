"""BN, as the Caffe of domain guided dropout has it (Cysu/caffe, branch domain-guided-dropout, bn_layer.cpp)."""

from __future__ import annotations

from ...layers.registry import register
from ..happynear.bn import InverseBN


@register("BN", fork=("domain_guided", "noisy_label"))
class StartedInverseBN(InverseBN):
    """happynear's BN, with a last blob that starts at 1."""

    starts_at_one = True
