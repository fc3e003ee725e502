"""PWC-Net: FlowNet2's Caffe with one more layer."""

from typing import Any

from ..flownet2 import FORK as FLOWNET2
from ..fork import Fork


def _warps_by_flow(net: Any) -> bool:
    """Whether a net has Warp layers, but none that makes the places that LiteFlowNet's read."""
    types = {layer.type for layer in net.layer}
    return "Warp" in types and "Grid" not in types


FORK = Fork(
    name="pwcnet",
    title="PWC-Net",
    source="NVlabs/PWC-Net",
    types=FLOWNET2.types + " Warp",
    speed=FLOWNET2.speed,
    sign=_warps_by_flow,
)
