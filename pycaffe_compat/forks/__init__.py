"""The forks of Caffe whose files are read here: a folder each, with its messages, layers and notes on its fields.

Importing this package loads only facts; ``pycaffe_compat.layers`` imports the layers.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from ..errors import UnknownNameError, nearest
from .fork import Fork

# Where two forks give a name different defaults, the first one's is the message's; a layer gets that of its own fork.
NAMES = (
    "ssd",
    "fast_rcnn",
    "rfcn",
    "psroi_align",
    "segnet",
    "enet",
    "deconvnet",
    "pspnet",
    "deeplab",
    "densenet",
    "senet",
    "shufflenet",
    "yolo",
    "yolo_v1",
    "nvidia",
    "intel",
    "happynear",
    "sphereface",
    "sphereface_plus",
    "caffe_face",
    "tsn",
    "c3d",
    "c3d_v10",
    "deeplab_v1",
    "dilation",
    "hed",
    "osvos",
    "dice",
    "crfasrnn",
    "ctpn",
    "mscnn",
    "cascade_rcnn",
    "refinedet",
    "openvino",
    "flownet2",
    "ristretto",
    "synopsys",
    "warpctc",
    "video_caffe",
    "greentea",
    "rtpose",
    "domain_guided",
    "lisa",
    "dss",
    "pmls",
    "heatmap",
    "rcf",
    "ssd_focal",
    "textboxes",
    "textboxes_plus",
    "xilinx",
    "dann",
    "xlearn",
    "hashnet",
    "lifted_struct",
    "person_search",
    "ssdh",
    "surgery",
    "mnc",
    "faceboxes",
    "stn",
    "caffe_ocr",
    "liteflownet",
    "pwcnet",
    "caffe_on_spark",
    "tsn_v1",
    "weighted_softmax",
    "joint_regressor",
    "compact_bilinear",
    "noisy_label",
    "center_loss_mnist",
    "deepdetect",
    "rtpose_train",
    "cpm",
    "conv_lstm",
)


BVLC = Fork(name="bvlc", title="BVLC's Caffe", source="BVLC/caffe")


_own: dict[str, tuple[Fork, Any]] = {}  # forks that the user or a plug-in brought, and their files


@cache
def all_forks() -> tuple[Fork, ...]:
    """Every fork, in the order of :data:`NAMES`; those that were added come last."""
    known = (importlib.import_module(f"{__name__}.{name}").FORK for name in NAMES)
    return (*known, *(fork for fork, _ in _own.values()))


def add_fork(fork: Fork, file: Any) -> None:
    """Add a fork, or replace one that was added; ``file`` is what it has besides BVLC's messages (a ``FileDescriptorProto``)."""
    _own[fork.name] = (fork, file)
    all_forks.cache_clear()


def added_file(name: str) -> Any | None:
    """The file of a fork that was added; None for the others."""
    return _own[name][1] if name in _own else None


def fork_named(name: str) -> Fork:
    """Return the fork called ``name``; :data:`BVLC` is BVLC's Caffe.

    Raises:
        UnknownNameError: there is none; the message lists them.
    """
    found = next((fork for fork in (*all_forks(), BVLC) if fork.name == name), None)
    if found is None:
        names = sorted(fork.name for fork in (*all_forks(), BVLC))
        raise UnknownNameError(
            f'unknown fork of Caffe "{name}"{nearest(name, names)}; known: {", ".join(names)}. '
            "A fork of your own needs its caffe.proto: --proto or proto="
        )
    return found


__all__ = ["BVLC", "NAMES", "Fork", "add_fork", "added_file", "all_forks", "fork_named"]
