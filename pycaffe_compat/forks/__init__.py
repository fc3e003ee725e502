"""The forks of Caffe whose files are read here: a folder each, with its messages, layers and notes on its fields.

Importing this package loads facts alone; ``pycaffe_compat.layers`` imports the layers.
"""

from __future__ import annotations

import importlib
from functools import cache

from ..errors import UnknownNameError, nearest
from .fork import Fork

# Where two forks give a name different defaults, the first one's is the default of the message.
NAMES = (
    "ssd",
    "fast_rcnn",
    "rfcn",
    "segnet",
    "enet",
    "deconvnet",
    "pspnet",
    "deeplab",
    "densenet",
    "senet",
    "shufflenet",
    "yolo",
    "nvidia",
    "intel",
    "happynear",
    "sphereface",
    "caffe_face",
    "tsn",
    "c3d",
    "c3d_v10",
    "hed",
    "crfasrnn",
    "ctpn",
    "mscnn",
    "refinedet",
    "openvino",
    "flownet2",
    "ristretto",
    "synopsys",
)


BVLC = Fork(name="bvlc", title="BVLC's Caffe", source="BVLC/caffe")


@cache
def all_forks() -> tuple[Fork, ...]:
    """Every fork, in the order of :data:`NAMES`."""
    return tuple(importlib.import_module(f"{__name__}.{name}").FORK for name in NAMES)


def fork_named(name: str) -> Fork:
    """Return the fork called ``name``; :data:`BVLC` is BVLC's Caffe.

    Raises:
        UnknownNameError: there is none; the message lists them.
    """
    found = next((fork for fork in (*all_forks(), BVLC) if fork.name == name), None)
    if found is None:
        names = sorted((*NAMES, BVLC.name))
        raise UnknownNameError(f'unknown fork of Caffe "{name}"{nearest(name, names)}; known: {", ".join(names)}')
    return found


__all__ = ["BVLC", "NAMES", "Fork", "all_forks", "fork_named"]
