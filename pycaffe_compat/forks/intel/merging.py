"""What Intel's Caffe does to a net before it builds it."""

from __future__ import annotations

from typing import Any

# fields that say that a BatchNorm has a scale of its own, and that only Intel's Caffe has
SAYING = ("use_weight_bias", "bias_term", "filler")


def merge_scales(net: Any) -> None:
    """Leave the scale and bias of BatchNorm layers to the Scale layers behind them (``CompilationRuleRemoveScale``).

    The fork makes one layer of such a pair, so that the scale and bias are there once; here they are those of the Scale layer.

    Args:
        net: the ``NetParameter``, filtered; it is changed.
    """
    for index, layer in enumerate(net.layer):
        if layer.type != "BatchNorm" or not any(layer.batch_norm_param.HasField(name) for name in SAYING):
            continue
        reader = next((each for each in list(net.layer)[index + 1 :] if layer.top[0] in each.bottom), None)
        if reader is not None and reader.type == "Scale" and len(reader.bottom) == 1:
            layer.batch_norm_param.use_weight_bias = False
