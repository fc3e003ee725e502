"""MultiBoxLoss, as SSD's Caffe has it (weiliu89/caffe, branch ssd, multibox_loss_layer.cpp and bbox_util.cpp)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...layers.base import Shape, count, untraced
from ...layers.loss import FLT_MIN, LossLayer, floored, precise
from ...layers.registry import register
from ...layers.slope import WithSlope
from ...proto import caffe_pb2
from ...tables import dims
from . import boxes as bx
from .matching import UNMATCHED, match
from .truth import Truth, label_id, labels_table, read_truth

Options = caffe_pb2.MultiBoxLossParameter
SMALLEST = 1e-5  # boxes of less area have no part in the suppression before mining

log = logging.getLogger(__name__)


class Priors(NamedTuple):
    """Prior boxes (1, P, 4), or (N, P, 4) where each image has its own, and their variances (P, 4)."""

    boxes: Tensor
    variances: Tensor


class Found(NamedTuple):
    """Codes that a net predicts where boxes are matched, and what it should have predicted.

    Attributes:
        at: image, location class and prior of each match: three of (K).
        code, target: (K, 4).
    """

    at: tuple[Tensor, ...]
    code: Tensor
    target: Tensor


@register("MultiBoxLoss", fork=("ssd", "ssd_focal", "faceboxes", "intel", "yolo", "xilinx"))
class MultiBoxLoss(LossLayer):
    """The loss of predicted boxes and classes against the ground truth, which is matched to prior boxes.

    Bottoms: codes of boxes (N, P L 4) with L 1, or the number of classes without ``share_location``; scores (N, P classes);
    prior boxes (1, 2, P 4); labels (1, 1, G, 8). The first two get gradients.

    Prior boxes, or what the net predicts without ``use_prior_for_matching``, are matched (:func:`.matching.match`). Codes of
    the matched ones lose smoothed L1 or L2; scores of the matched and of the mined negatives lose softmax or logistic
    cross entropy. Mining ranks by that, and by the loss of the codes too where it is of hard examples.

    Where these quirks of the fork are not errors, they are kept: an image without truth has no negatives;
    ``nms_param`` without ``top_k`` mines nothing; codes divided by variances (``encode_variance_in_target``) have the
    gradient of the quotient; LOGISTIC fills its targets with ``background_label_id``, and without mining puts those of image i
    at row ``i P`` of numbers and not of classes; ``propagate_down: false`` leaves a term out of the loss.
    """

    options: ClassVar[tuple[str, ...] | None] = ("multibox_loss_param", "loss_param")
    bottoms: ClassVar[tuple[int, int | None]] = (4, 4)
    differentiable: ClassVar[tuple[bool, ...]] = (True, True, False)
    traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.multibox_loss_param
        self.classes: int = options.num_classes
        self.shared: bool = options.share_location
        self.background = label_id(options.background_label_id)
        self.mining = self.mining_of(options)
        self.logistic = options.conf_loss_type == Options.LOGISTIC
        self.agnostic: bool = options.map_object_to_agnostic
        self.squared = options.loc_loss_type == Options.L2
        self.loc_weight: float = options.loc_weight
        self.threshold: float | None = (
            options.overlap_threshold if options.match_type == Options.PER_PREDICTION else None
        )
        self.match_priors: bool = options.use_prior_for_matching
        self.inside_only: bool = options.ignore_cross_boundary_bbox
        self.use_difficult: bool = options.use_difficult_gt
        self.code_type: int = options.code_type
        self.in_target: bool = options.encode_variance_in_target
        self.slope_inside: bool = options.bp_inside
        self.ratio: float = options.neg_pos_ratio
        self.neg_overlap: float = options.neg_overlap
        self.sample_size: int = options.sample_size
        nms = options.nms_param
        self.suppresses = options.HasField("nms_param") and nms.nms_threshold > 0
        self.nms_threshold: float = nms.nms_threshold
        self.top_k: int = nms.top_k
        self.suppress_priors: bool = options.use_prior_for_nms
        # the fork asks propagate_down, which then says what counts in the loss
        self.counts = tuple(param.propagate_down[:2]) or (True, True)
        self._check_options(options)

    @classmethod
    def fits(cls, param: Any) -> bool:
        return len(param.bottom) <= 4

    def mining_of(self, options: Any) -> int:
        """How negatives are mined, a ``MiningType``.

        Raises:
            LayerError: the older ``do_neg_mining`` says otherwise.
        """
        mining: int = options.mining_type
        if options.HasField("do_neg_mining") and options.do_neg_mining != (mining != Options.NONE):
            raise self.error(
                f"do_neg_mining: {str(options.do_neg_mining).lower()} contradicts mining_type: "
                f"{Options.MiningType.Name(mining)}; leave do_neg_mining out, and say mining_type: NONE for no mining. Alone it "
                "decides in TextBoxes (textboxes)"
            )
        return mining

    def _check_options(self, options: Any) -> None:
        if not options.HasField("num_classes") or self.classes < 1:
            raise self.error("needs multibox_loss_param.num_classes, 1 or more, the background included")
        mines = self.mining != Options.NONE
        if mines and not self.shared:
            raise self.error("share_location: false needs mining_type: NONE")
        if (mines or not self.logistic) and self.background >= self.classes:
            raise self.error(
                f"background_label_id: {self.background} is not one of the {self.classes} classes (num_classes)"
            )
        if not self.logistic and self.background < 0:
            raise self.error(
                f"background_label_id: {self.background} must be one of the classes with conf_loss_type: SOFTMAX"
            )
        if self.mining == Options.HARD_EXAMPLE and self.sample_size < 1:
            raise self.error(f"sample_size: {self.sample_size} must be above 0 with mining_type: HARD_EXAMPLE")
        if self.agnostic and (self.background > 0 or self.classes != self.background + 2):
            raise self.error(
                "map_object_to_agnostic needs num_classes: 2 and background_label_id: 0, not "
                f"num_classes: {self.classes} and background_label_id: {self.background}"
            )
        if mines and self.suppresses and self.top_k == 0:
            words = "nms_param: top_k is 0, as it is in SSD's Caffe if not given: nothing is mined. Say top_k: -1 for no limit"
            log.warning("%s", self.error(words))

    @untraced
    def forward(self, loc: Tensor, conf: Tensor, prior: Tensor, label: Tensor, *more: Tensor) -> Tensor:
        """Return the loss as a tensor without axes."""
        images, places = self.sizes(loc, conf, prior, *more)
        table = labels_table(self, label)
        codes = precise(loc).reshape(images, places, -1, 4).transpose(1, 2)
        scores = precise(conf).reshape(images, places, self.classes)
        if loc.is_meta:
            return codes.new_zeros(())
        boxes, variances = precise(prior.detach())[0].reshape(2, places, 4)
        priors = Priors(boxes[None], variances)
        any_label = self.agnostic and self.mining == Options.NONE
        classes = None if any_label else self.classes
        truth = read_truth(self, table, images, self.relabel, self.background, classes, self.use_difficult)
        truth = truth._replace(boxes=truth.boxes.to(boxes.dtype))
        with torch.no_grad():
            refined = self.refined(priors, *more)
            index, most = self._match(codes, priors, refined, truth)
            used = None
            if self.mining != Options.NONE:
                eligible = self.minable(index[:, 0], most[:, 0], *more) & truth.exists.any(1, keepdim=True)
                index, used = self._mine(index, eligible, codes, scores, priors, truth)
        loss = codes.new_zeros(())
        if self.counts[0]:
            found = self._found(index, codes, refined, truth)
            loss = loss + self.loc_weight * self._location_losses(found).sum()
        if self.counts[1]:
            loss = loss + self._confidence_loss(index, used, scores, truth)
        return loss / self.normalizer(index >= 0, images, images * places)

    def relabel(self, labels: Tensor) -> Tensor:
        """The labels of true boxes, floats, as they are read: int64, :data:`.truth.LEFT_OUT` for boxes that are left out."""
        return labels.long()

    def refined(self, priors: Priors, *more: Tensor) -> Priors:
        """The priors that are matched and that codes are against, by the bottoms from the fifth on."""
        return priors

    def minable(self, index: Tensor, most: Tensor, *more: Tensor) -> Tensor:
        """Which priors mining may choose, (N, P), by their matches and largest overlaps, and the bottoms from the fifth on."""
        if self.mining == Options.HARD_EXAMPLE:
            return torch.ones_like(index, dtype=torch.bool)
        return (index == UNMATCHED) & (most < self.neg_overlap)

    def sizes(self, loc: Tensor, conf: Tensor, prior: Tensor, *more: Tensor) -> tuple[int, int]:
        """Return N and P.

        Raises:
            LayerError: the bottoms do not fit together.
        """
        images = self.batch_size(loc, conf)
        if prior.dim() < 3 or prior.shape[1] != 2 or count(prior.shape, 2) % 4:
            raise self.error(f"needs prior boxes of shape 1×2×(4 P), as PriorBox makes them, not {dims(prior.shape)}")
        places = count(prior.shape, 2) // 4
        kinds = 1 if self.shared else self.classes
        for what, blob, each in (("locations", loc, 4 * kinds), ("confidences", conf, self.classes)):
            if count(blob.shape, 1) != places * each:
                raise self.error(
                    f"needs {places * each} {what} an image, {each} for each of the {places} prior boxes, but its bottom has "
                    f"shape {dims(blob.shape)}"
                )
        return images, places

    def _match(self, codes: Tensor, priors: Priors, refined: Priors, truth: Truth) -> tuple[Tensor, Tensor]:
        """The true box of each location class and prior, and the largest overlap of each, both (N, L, P)."""
        images, kinds, places, _ = codes.shape
        kind = torch.arange(kinds, device=codes.device)[:, None]
        if self.match_priors:
            index, most = match(refined.boxes, truth.boxes, truth.exists, self.threshold, self.inside_only)
            index, most = index[:, None], most[:, None]
            if not self.shared:  # a match counts only for the true box's class
                mine = (index >= 0) & (self._labels(index, truth) == kind)
                index = torch.where(mine, index, UNMATCHED)
            return index, most.expand_as(index)
        exists = truth.exists[:, None].expand(-1, kinds, -1)
        if not self.shared:
            exists = exists & (truth.labels[:, None] == kind)
        boxes = self.decode(codes, priors)
        index, most = match(
            boxes.reshape(images * kinds, places, 4),
            truth.boxes.repeat_interleave(kinds, 0),
            exists.reshape(images * kinds, -1),
            self.threshold,
            self.inside_only,
        )
        return index.reshape(images, kinds, places), most.reshape(images, kinds, places)

    def _mine(
        self, index: Tensor, eligible: Tensor, codes: Tensor, scores: Tensor, priors: Priors, truth: Truth
    ) -> tuple[Tensor, Tensor]:
        """Choose among the ``eligible`` (N, P): return the matches (N, 1, P) that stay, and which scores (N, P) count."""
        before, places = index[:, 0], index.shape[2]
        losses = self._ranking_losses(before, scores, truth)
        if hard := self.mining == Options.HARD_EXAMPLE:
            found = self._found(index, codes, priors, truth)
            losses = losses.index_put(found.at[::2], self._location_losses(found).sum(1), accumulate=True)
            limit = eligible.sum(1).clamp(max=self.sample_size)
        else:
            wanted = ((before >= 0).sum(1).float() * self.ratio).clamp(0, places).long()
            limit = torch.minimum(wanted, eligible.sum(1))
        order = torch.sort(losses.masked_fill(~eligible, -torch.inf), dim=1, descending=True, stable=True).indices
        chosen = torch.arange(places, device=order.device).expand_as(order) < eligible.sum(1, keepdim=True)
        if self.suppresses:
            chosen = self._suppress(order, chosen, codes, priors)
        chosen &= chosen.cumsum(1) <= limit[:, None]
        selected = torch.zeros_like(chosen).scatter(1, order, chosen)
        after = before.masked_fill((before >= 0) & ~selected, UNMATCHED) if hard else before
        return after[:, None], (after >= 0) | (selected & (before == UNMATCHED))

    def _suppress(self, order: Tensor, candidates: Tensor, codes: Tensor, priors: Priors) -> Tensor:
        """Which of the ``candidates`` (N, P), which stand in ``order``, stay after a suppression of their boxes."""
        limit = order.shape[1] if self.top_k < 0 else min(self.top_k, order.shape[1])
        keep = torch.zeros_like(candidates)
        if not limit:
            return keep
        order, candidates = order[:, :limit], candidates[:, :limit]
        boxes = priors.boxes.expand(len(order), -1, -1) if self.suppress_priors else self.decode(codes, priors)[:, 0]
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        candidates = candidates & ~(bx.sizes(boxes) < SMALLEST)
        keep[:, :limit] = bx.suppress(boxes, candidates, self.nms_threshold)
        return keep

    def _ranking_losses(self, index: Tensor, scores: Tensor, truth: Truth) -> Tensor:
        """What each prior's scores lose against its match's label or the background, (N, P), as the fork ranks by it."""
        labels = torch.where(index >= 0, self._labels(index[:, None], truth)[:, 0], self.background)[..., None]
        if self.logistic:
            target = (torch.arange(self.classes, device=scores.device) == labels).to(scores.dtype)
            return F.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(2)
        # not by log_softmax, so that probabilities that are rounded to the same number tie as in the fork
        powers = (scores - scores.amax(2, keepdim=True)).exp()
        return -(powers.gather(2, labels)[..., 0] / powers.sum(2)).clamp(min=FLT_MIN).log()

    def _found(self, index: Tensor, codes: Tensor, priors: Priors, truth: Truth) -> Found:
        """The codes of matched priors and their targets."""
        at = (index >= 0).nonzero(as_tuple=True)
        image, _, place = at
        near = Priors(priors.boxes.expand(len(index), -1, -1)[image, place], priors.variances[place])
        box = truth.boxes[image, index[at]]
        self._check_codable(near, box, place)
        code, target = codes[at], bx.encode(self.code_type, self.in_target, near.boxes, near.variances, box)
        if self.slope_inside:
            bounds = near.boxes
            if not self.match_priors:
                bounds = bx.decode(self.code_type, self.in_target, near.boxes, near.variances, code.detach())
            code = torch.where((bounds < 0) | (bounds > 1), target, code)
        if self.in_target:
            code = WithSlope.apply(code, code.detach() / near.variances, None)
            target = target / near.variances
        return Found(at, code, target)

    def _location_losses(self, found: Found) -> Tensor:
        """What each coordinate of the codes loses, (K, 4)."""
        if self.squared:
            return 0.5 * (found.code - found.target).square()
        return F.smooth_l1_loss(found.code, found.target, reduction="none")

    def _confidence_loss(self, index: Tensor, used: Tensor | None, scores: Tensor, truth: Truth) -> Tensor:
        """What the scores lose in sum: those ``used`` (N, P), or all."""
        labels = torch.full_like(index, self.background + 1) if self.agnostic else self._labels(index, truth)
        if self.logistic and used is None:
            return self._unmined_logistic_loss(index, labels, scores)
        # where several location classes match a prior, the last one stands
        labels = labels.masked_fill(index < 0, -1).amax(1)
        labels = torch.where(labels < 0, self.background, labels)[..., None]
        if used is not None:
            scores, labels = scores[used], labels[used]
        if self.logistic:
            target = torch.full_like(scores, self.background)
            target = target.masked_fill(torch.arange(self.classes, device=scores.device) == labels, 1)
            return F.binary_cross_entropy_with_logits(scores, target, reduction="sum")
        return self.entropy(F.log_softmax(scores, -1).gather(-1, labels))

    def entropy(self, logarithms: Tensor) -> Tensor:
        """What scores lose in sum by the logarithms of the probabilities of their labels."""
        return -floored(logarithms, FLT_MIN).sum()

    def _unmined_logistic_loss(self, index: Tensor, labels: Tensor, scores: Tensor) -> Tensor:
        target = torch.full_like(scores, self.background)
        at = (index >= 0).nonzero(as_tuple=True)
        image, _, place = at
        target.view(-1)[image * scores.shape[1] + place * self.classes + labels[at]] = 1
        return F.binary_cross_entropy_with_logits(scores, target, reduction="sum")

    def _labels(self, index: Tensor, truth: Truth) -> Tensor:
        """The labels of the true boxes with these indices (N, L, P), in the same shape; any where the index is none."""
        return truth.labels[:, None].expand(-1, index.shape[1], -1).gather(2, index.clamp(min=0))

    def decode(self, codes: Tensor, priors: Priors) -> Tensor:
        """The boxes of codes (N, L, P, 4), without a gradient."""
        self._check_areas(priors.boxes[0], torch.arange(codes.shape[2]))
        return bx.decode(self.code_type, self.in_target, priors.boxes[:, None], priors.variances, codes.detach())

    def _check_areas(self, boxes: Tensor, place: Tensor) -> None:
        """Raise a ``LayerError`` where prior boxes (K, 4), the ``place``-th (K) of an image, have no codes."""
        if self.code_type != bx.CORNER and bool((bad := ~bx.have_area(boxes)).any()):
            at = int(bad.nonzero()[0])
            raise self.error(f"prior box {int(place[at])} ({_numbers(boxes[at])}) has no area, which code_type needs")

    def _check_codable(self, priors: Priors, box: Tensor, place: Tensor) -> None:
        """Raise a ``LayerError`` where a matched box has no code."""
        self._check_areas(priors.boxes, place)
        if self.code_type == bx.CENTER_SIZE and bool((bad := ~bx.have_area(box)).any()):
            raise self.error(f"a true box ({_numbers(box[bad.nonzero()[0]])}) has no area, which CENTER_SIZE needs")
        if bool((bad := ~(priors.variances > 0).all(1)).any()):
            at = int(bad.nonzero()[0])
            raise self.error(
                f"the variances of prior box {int(place[at])} ({_numbers(priors.variances[at])}) must be above 0"
            )


def _numbers(row: Tensor) -> str:
    return ", ".join(f"{number:g}" for number in row.flatten().tolist())
