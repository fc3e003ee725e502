"""Region proposals of py-faster-rcnn's Python layer, for nets without its Python 2 (rbgirshick/py-faster-rcnn, lib/rpn)."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...layers.base import Shape, untraced
from ...layers.python_layer import STAND_INS, stands_in
from ...layers.registry import register
from .anchors import moved, placed
from .nms import suppress
from .proposals import Proposals

log = logging.getLogger(__name__)
BASE = 16  # the side of the square that anchors are made from
THRESHOLD, MIN_SIZE = 0.7, 16
IN_TRAINING, IN_TESTS = (12000, 2000), (6000, 300)  # how many boxes before and after suppression
DEFAULTS: dict[str, tuple[float, ...]] = {"scales": (8, 16, 32), "ratios": (0.5, 1, 2)}
_ENTRY = re.compile(r"""['"]?(\w+)['"]?\s*:\s*(?:!!python/tuple\s*)?(\[[^\]]*\]|\([^)]*\)|[^,}\s]+)\s*,?""")

STAND_INS["rpn.proposal_layer", "ProposalLayer"] = 3


@register("Python", fork=("fast_rcnn", "rfcn"))
class PythonProposal(Proposals):
    """Regions of interest as in ``rpn.proposal_layer.ProposalLayer``, with its default configuration.

    It runs where that module is not in ``PYTHONPATH``, or may not run. The bottoms are scores (1, 2 A, H, W), of which the
    second half counts; shifts (1, 4 A, H, W); and height, width and scale of the image. The tops are regions (R, 5) of 0, x1,
    y1, x2, y2, and their scores (R, 1). ``param_str`` gives ``feat_stride``, and may give ``scales`` and ``ratios``. Of equal
    scores the first counts, where numpy's sort has no rule. No gradient flows.
    """

    options = ("python_param",)
    inert_options = frozenset({"share_in_parallel"})

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        given = self._read(param.python_param.param_str)
        self.stride = int(given.pop("feat_stride")[0])
        values = DEFAULTS | given
        self.anchors = _anchors(values["ratios"], values["scales"])
        self.before, self.after = IN_TRAINING if self.training else IN_TESTS
        self.check_shapes(*bottom_shapes)
        log.warning(
            'layer "%s": proposals are made as by py-faster-rcnn\'s rpn.proposal_layer, with its default configuration: the '
            "best %d of %d boxes. Its own code runs where it is in PYTHONPATH and Python layers are allowed",
            self.name,
            self.after,
            self.before,
        )

    @classmethod
    def fits(cls, param: Any) -> bool:
        return stands_in(param, "ProposalLayer")

    def _read(self, text: str) -> dict[str, tuple[float, ...]]:
        """The entries of ``param_str``, the keys and numbers of a YAML mapping."""
        found: dict[str, tuple[float, ...]] = {}
        rest = text.replace("\\'", "'").strip().strip("{}")
        for key, value in _ENTRY.findall(rest):
            try:
                found[key] = tuple(float(each) for each in value.strip("[]()").split(",") if each.strip())
            except ValueError:
                raise self.error(
                    f"python_param.param_str: {key}: {value} is not a number or a list of numbers"
                ) from None
        odd = [key for key in found if key not in ("feat_stride", *DEFAULTS)]
        if odd or _ENTRY.sub("", rest).strip():
            raise self.error(
                f"python_param.param_str: {text!r} is not of py-faster-rcnn's rpn.proposal_layer, which takes feat_stride, "
                "scales and ratios; put the net's own folder into PYTHONPATH"
            )
        if not found.get("feat_stride") or not all(n > 0 for values in found.values() for n in values):
            raise self.error(f"python_param.param_str: {text!r} needs feat_stride, and numbers above 0")
        return found

    @untraced
    def propose(self, scores: Tensor, shifts: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`forward`, for tensors with memory; both tops."""
        height, width = scores.shape[2:]
        values = scores[0, len(self.anchors) :].permute(1, 2, 0).flatten()
        codes = shifts[0].permute(1, 2, 0).reshape(-1, 4)
        boxes = moved(placed(self.anchors, self.stride, height, width, codes), codes)
        tall, wide, scale = sizes.tolist()[:3]
        boxes = torch.minimum(boxes, boxes.new_tensor((wide, tall, wide, tall)) - 1).clamp(min=0)
        large = (boxes[:, 2:] - boxes[:, :2] + 1 >= MIN_SIZE * scale).all(1).nonzero().squeeze(1)
        order = large[values[large].argsort(descending=True, stable=True)][: self.before]
        order = order[suppress(boxes[order], THRESHOLD, self.after, touching=True)]
        return torch.nn.functional.pad(boxes[order], (1, 0)), values[order, None]


def _anchors(ratios: Sequence[float], scales: Sequence[float]) -> np.ndarray:
    """The boxes (A, 4) around a square at 0, by ratio and scale; sides by ratio are rounded, halves to even."""
    widths = np.round(np.sqrt(BASE * BASE / np.array(ratios)))
    heights = np.round(widths * np.array(ratios))
    sides = np.stack((widths, heights), 1)[:, None] * np.array(scales)[:, None]
    half, centre = 0.5 * (sides.reshape(-1, 2) - 1), 0.5 * (BASE - 1)
    return np.hstack((centre - half, centre + half))
