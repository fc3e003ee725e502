"""DetectionOutput, as SSD's Caffe has it (weiliu89/caffe, branch ssd, detection_output_layer.cpp)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape, count
from ...layers.registry import register
from ...tables import dims
from . import boxes as bx
from .results import results_of

log = logging.getLogger(__name__)


@register(
    "DetectionOutput",
    fork=("ssd", "ssd_focal", "faceboxes", "nvidia", "intel", "yolo", "openvino", "synopsys", "xilinx"),
)
class DetectionOutput(Layer):
    """The detections of each image: boxes decoded from priors, with scores, after non-maximum suppression per class.

    Bottoms: codes (N, priors · 4), or (N, priors · classes · 4) where each class has boxes of its own; scores
    (N, priors · classes), taken as they are; priors (1, 2, priors · 4). The top is (1, 1, K, 7): image, label, score, xmin,
    ymin, xmax, ymax, by image, then label, then falling score. Without any detection it is (1, 1, N, 7): the image and -1.
    K is known after a pass only. ``save_output_param`` writes detections to files; ``visualize``, which draws them on a
    fourth bottom, shows nothing here: a fourth bottom counts for nothing. There is no gradient.
    """

    options = ("detection_output_param",)
    head = True
    bottoms = (3, 4)
    differentiable = (False,)
    open_axes = (2,)
    traceable = False
    code_size = 4  # numbers of each box: codes, and columns of the top after the score
    more_columns = 0  # of the top after these

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.detection_output_param
        if not options.num_classes:
            raise self.error(
                "detection_output_param.num_classes is missing; give the number of classes, the background included"
            )
        self.classes: int = options.num_classes
        background: int = options.background_label_id
        self.labels = [label for label in range(self.classes) if label != background]
        self.share_location: bool = options.share_location
        self.code_type: int = options.code_type
        self.variance_in_target: bool = options.variance_encoded_in_target
        self.keep_top_k: int = options.keep_top_k
        self.least_score = -3.4028234663852886e38  # of floats: the fork's, if none is given
        if options.HasField("confidence_threshold"):
            self.least_score = options.confidence_threshold
        nms = options.nms_param
        self.top_k: int = nms.top_k if nms.HasField("top_k") else -1
        self.overlap, self.eta = nms.nms_threshold, nms.eta
        if not self.overlap >= 0:
            raise self.error(f"nms_param.nms_threshold: {self.overlap:g} must not be negative")
        if not 0 < self.eta <= 1:
            raise self.error(f"nms_param.eta: {self.eta:g} must be above 0 and at most 1")
        if options.visualize:
            log.warning("%s", self.error("visualize: detections are not shown here; nets run as without it"))
        self.results = results_of(self, options, self.labels)
        self.check_bottoms(bottom_shapes)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) <= 4

    def check_bottoms(self, shapes: Sequence[Shape]) -> int:
        """Return the number of priors, after a check that all bottoms are of that number.

        Raises:
            LayerError: they are not.
        """
        loc, conf, prior = shapes[:3]
        if len(prior) < 3 or not prior[0] or prior[1] != 2 or prior[2] % 4 or count(prior, 3) != 1:
            raise self.error(f"its third bottom must be the priors, (1, 2, number * 4), not of shape {dims(prior)}")
        priors = prior[2] // 4
        size = self.code_size
        codes = f"{size}" if self.share_location else f"{self.classes} classes * {size}"
        for shape, which, each, words in (
            (
                loc,
                "first",
                size if self.share_location else size * self.classes,
                f"codes of the boxes, {codes} for each",
            ),
            (conf, "second", self.classes, f"scores, {self.classes} (num_classes) for each"),
        ):
            if not shape or count(shape, 1) != priors * each:
                raise self.error(
                    f"there are {priors} priors, so its {which} bottom, the {words}, must have {priors * each} numbers an image, "
                    f"but has shape {dims(shape)}"
                )
        if loc[0] != conf[0]:
            raise self.error(f"it has codes of {loc[0]} images and scores of {conf[0]}")
        return priors

    @torch.no_grad()
    def forward(self, loc: Tensor, conf: Tensor, prior: Tensor, *more: Tensor) -> Tensor:
        priors = self.check_bottoms([blob.shape for blob in (loc, conf, prior, *more)])
        if loc.is_meta:
            return loc.new_empty((1, 1, 1, 3 + self.code_size + self.more_columns))
        images = loc.shape[0]
        each = 1 if self.share_location else self.classes
        boxes = self.decode(loc.reshape(images, priors, each, self.code_size), *prior[0].view(2, priors, 1, 4), *more)
        scores = self.scores(conf.reshape(images, priors, self.classes), *more)
        rows = self._detect(boxes, scores)
        if self.results is not None:
            self.results.add(rows, images)
        if not len(rows):
            rows = self.nothing(images, loc)
        return rows[None, None]

    def nothing(self, images: int, like: Tensor) -> Tensor:
        """The rows of a top without any detection, (K, columns of the top), of the kind of ``like``."""
        rows = like.new_full((images, 3 + self.code_size + self.more_columns), -1)
        rows[:, 0] = torch.arange(images, device=rows.device)
        return rows

    def decode(self, codes: Tensor, prior: Tensor, variance: Tensor, *more: Tensor) -> Tensor:
        """The boxes of ``codes`` (N, priors, 1 or classes, 4), of that shape; ``prior`` and ``variance`` are broadcast to it."""
        return bx.decode(self.code_type, self.variance_in_target, self.with_area(prior), variance, codes)

    def with_area(self, prior: Tensor) -> Tensor:
        """Return ``prior``; a ``LayerError`` is raised if it has no area, but the code is by its size."""
        if self.code_type != bx.CORNER and not bool((good := bx.have_area(prior)).all()):
            bad = prior[~good][0].tolist()
            raise self.error(
                f"the prior {', '.join(f'{side:g}' for side in bad)} has no area, but this code_type divides by its size; check "
                "min_size and the picture's size of the layers that make priors"
            )
        return prior

    def scores(self, conf: Tensor, *more: Tensor) -> Tensor:
        """The scores that count, (N, priors, classes)."""
        return conf

    def _detect(self, boxes: Tensor, scores: Tensor) -> Tensor:
        """The rows of the top, (K, 3 + n), of scores (N, priors, classes) and boxes (N, priors, 1 or classes, n).

        The first 4 of the n numbers are the box by which others are suppressed.
        """
        images, priors = scores.shape[:2]
        size = boxes.shape[3]
        labels = torch.tensor(self.labels, dtype=torch.long, device=scores.device)
        classes = len(labels)
        grouped = scores.transpose(1, 2).index_select(1, labels).view(images * classes, priors)
        place, candidates = self._best(grouped)
        grouped = grouped.gather(1, place)
        if boxes.shape[2] == 1:  # of all classes of an image
            index, boxes = place.reshape(images, classes * place.shape[1]), boxes[:, :, 0]
        else:
            index, boxes = place, boxes[:, :, labels].transpose(1, 2).reshape(images * classes, priors, size)
        boxes = boxes.gather(1, index[..., None].expand(-1, -1, size)).view(*place.shape, size)
        most = self.keep_top_k

        def may_be_kept(keep: Tensor) -> Tensor:
            stay = grouped.masked_fill(~keep, -math.inf).view(images, classes * keep.shape[1])
            if stay.shape[1] <= most:
                return candidates
            bar = stay.topk(most + 1).values[:, -1]
            return grouped >= bar.repeat_interleave(classes)[:, None]

        keep = bx.suppress(boxes[..., :4], candidates, self.overlap, self.eta, may_be_kept if most > -1 else None)
        if most > -1:
            keep = self._strongest(keep.view(images, -1), grouped.view(images, -1), most).view_as(keep)
        group, rank = keep.nonzero(as_tuple=True)
        heads = torch.stack((group // classes, labels[group % classes]), 1).to(scores.dtype)
        return torch.cat((heads, grouped[group, rank, None], boxes[group, rank]), 1)

    @staticmethod
    def _strongest(keep: Tensor, scores: Tensor, most: int) -> Tensor:
        """Those of ``keep`` (images, n) that are among the ``most`` highest of their image; of equals the first."""
        place, filled = bx.in_front(keep)
        ranked = scores.gather(1, place).masked_fill_(~filled, -math.inf)
        order = ranked.argsort(dim=1, descending=True, stable=True)[:, :most]
        image, rank = filled.gather(1, order).nonzero(as_tuple=True)
        strongest = torch.zeros_like(keep)
        strongest[image, place.gather(1, order)[image, rank]] = True
        return strongest

    def _best(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The candidates of each row of ``scores`` (groups, n), best first: their places, and which of these are filled."""
        chosen = scores > self.least_score
        most = scores.shape[1] if self.top_k < 0 else self.top_k
        if len(chosen) and most < int(chosen.sum(1).max()):
            ranked = scores.masked_fill(~chosen, -math.inf)
            # at least as good as the last that is taken; with equals, these may be too many
            chosen &= scores >= ranked.topk(max(most, 1), sorted=False).values.amin(1, keepdim=True)
        place, filled = bx.in_front(chosen)
        ranked = scores.gather(1, place).masked_fill_(~filled, -math.inf)
        order = ranked.argsort(dim=1, descending=True, stable=True)[:, :most]
        return place.gather(1, order), filled.gather(1, order)
