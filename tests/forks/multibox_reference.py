"""MultiBoxLoss one box at a time, in numpy: bbox_util.cpp and multibox_loss_layer.cpp of SSD's Caffe and of RefineDet's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from box_reference import overlap, size

from pycaffe_compat.proto import caffe_pb2

P = caffe_pb2.MultiBoxLossParameter
CORNER, CENTER_SIZE = caffe_pb2.PriorBoxParameter.CORNER, caffe_pb2.PriorBoxParameter.CENTER_SIZE


class Result(NamedTuple):
    loss: float
    loc_diff: np.ndarray
    conf_diff: np.ndarray
    matches: int
    negatives: int


def crosses(box: np.ndarray) -> bool:
    return any(side < 0 or side > 1 for side in box)


def encode(o: Any, prior: np.ndarray, variance: np.ndarray, box: np.ndarray) -> np.ndarray:
    sides = prior[2:] - prior[:2]
    if o.code_type == CENTER_SIZE:
        centre = ((box[:2] + box[2:]) / 2 - (prior[:2] + prior[2:]) / 2) / sides
        code = np.concatenate((centre, np.log((box[2:] - box[:2]) / sides)))
    else:
        code = (box - prior) / (1 if o.code_type == CORNER else np.tile(sides, 2))
    return code if o.encode_variance_in_target else code / variance


def decode(o: Any, prior: np.ndarray, variance: np.ndarray, code: np.ndarray) -> np.ndarray:
    code = code if o.encode_variance_in_target else code * variance
    sides = prior[2:] - prior[:2]
    if o.code_type == CENTER_SIZE:
        centre, half = code[:2] * sides + (prior[:2] + prior[2:]) / 2, np.exp(code[2:]) * sides / 2
        return np.concatenate((centre - half, centre + half))
    return prior + code * (1 if o.code_type == CORNER else np.tile(sides, 2))


def match_boxes(o: Any, truth: list[np.ndarray], boxes: np.ndarray, label: int) -> tuple[list[int], list[float]]:
    """MatchBBox: the index of the truth for each box, -1, or -2 for one that is left out; and its largest overlap."""
    index, most = [-1] * len(boxes), [0.0] * len(boxes)
    chosen = [g for g, row in enumerate(truth) if label in (-1, int(row[1]))]
    if not chosen:
        return index, most
    overlaps: dict[int, dict[int, float]] = {}
    for i, box in enumerate(boxes):
        if o.ignore_cross_boundary_bbox and crosses(box):
            index[i] = -2
            continue
        for g in chosen:
            value = overlap(box, truth[g][3:7])
            if value > 1e-6:
                most[i] = max(most[i], value)
                overlaps.setdefault(i, {})[g] = value
    pool = list(chosen)
    while pool:
        pairs = [(-v, i, g) for i, row in overlaps.items() if index[i] == -1 for g, v in row.items() if g in pool]
        if not pairs:
            break
        _, i, g = min(pairs)
        index[i] = g
        pool.remove(g)
    if o.match_type == P.PER_PREDICTION:
        for i, row in overlaps.items():
            best = max(row.values())
            if index[i] == -1 and best >= o.overlap_threshold:
                index[i] = next(g for g, v in row.items() if v == best)
    return index, most


def losses_of(o: Any, difference: np.ndarray) -> np.ndarray:
    if o.loc_loss_type == P.L2:
        return difference**2 / 2
    return np.where(abs(difference) < 1, difference**2 / 2, abs(difference) - 0.5)


def logistic(x: np.ndarray, target: np.ndarray) -> np.ndarray:
    return -(x * (target - (x >= 0)) - np.log1p(np.exp(x - 2 * x * (x >= 0))))


def suppressed(boxes: list[np.ndarray], losses: list[float], threshold: float, top_k: int) -> list[int]:
    """ApplyNMS: the indices that stay, by loss."""
    left = sorted(range(len(losses)), key=lambda i: -losses[i])
    left = left[:top_k] if top_k > -1 else left
    keep: list[int] = []
    while left:
        best = left.pop(0)
        if size(boxes[best]) < 1e-5:
            continue
        keep.append(best)
        left = [i for i in left if size(boxes[i]) >= 1e-5 and overlap(boxes[best], boxes[i]) <= threshold]
    return keep


def multibox_loss(
    param: Any,
    loc: np.ndarray,
    conf: np.ndarray,
    prior: np.ndarray,
    label: np.ndarray,
    *more: np.ndarray,
    by_objects: bool = False,
) -> Result:
    """The loss of a ``LayerParameter``, its gradients, and how many matches and negatives it counts.

    RefineDet's further bottoms are scores and codes of priors; with 2 classes the labels must be 1. ``by_objects`` ranks
    negatives as TextBoxes does (GetMaxConfidenceScores of its bbox_util.cpp).
    """
    o, images, classes = param.multibox_loss_param, len(loc), param.multibox_loss_param.num_classes
    background = o.background_label_id if o.background_label_id < 2**31 else o.background_label_id - 2**32
    priors, variances = prior.reshape(2, -1, 4)
    places, kinds = len(priors), 1 if o.share_location else classes
    loc, conf = loc.reshape(images, places, kinds, 4), conf.reshape(images, places, classes)
    loc_diff, conf_diff = np.zeros_like(loc), np.zeros_like(conf)
    refined = [priors] * images
    if len(more) > 1:
        moves = more[1].reshape(images, places, 4)
        refined = [np.array([decode(o, *each) for each in zip(priors, variances, row, strict=True)]) for row in moves]
    truths: dict[int, list[np.ndarray]] = {}
    for row in label.reshape(-1, 8):
        if int(row[0]) != -1 and (o.use_difficult_gt or not row[7]):
            truths.setdefault(int(row[0]), []).append(row)

    def found(i: int, kind: int, prior: np.ndarray, j: int, g: int) -> tuple[np.ndarray, np.ndarray]:
        """The difference of a code and its target, and where it has a gradient."""
        code, target = loc[i, j, kind], encode(o, prior, variances[j], truths[i][g][3:7])
        passes = np.ones(4, bool)
        if o.bp_inside:
            box = prior if o.use_prior_for_matching else decode(o, prior, variances[j], code)
            passes = ~((box < 0) | (box > 1))
        difference = np.where(passes, code - target, 0)
        return difference / (variances[j] if o.encode_variance_in_target else 1), passes

    matched: dict[tuple[int, int], tuple[list[int], list[float]]] = {}  # by image and location class
    for i in truths:
        for kind in range(kinds):
            name = -1 if o.share_location else kind
            if o.use_prior_for_matching:
                index, most = match_boxes(o, truths[i], refined[i], -1)
                if not o.share_location:
                    index = [g if g >= 0 and int(truths[i][g][1]) == kind else -1 for g in index]
            else:
                boxes = np.array([decode(o, *each) for each in zip(priors, variances, loc[i, :, kind], strict=True)])
                index, most = match_boxes(o, truths[i], boxes, name)
            matched[i, kind] = (index, most)

    negatives: list[tuple[int, int]] = []
    if o.mining_type != P.NONE:
        hard = o.mining_type == P.HARD_EXAMPLE
        for i in truths:
            index, most = matched[i, 0]
            loss = []
            for j in range(places):
                own = int(truths[i][index[j]][1]) if index[j] > -1 else background
                if by_objects:
                    powers = np.exp(conf[i, j] - conf[i, j].max())
                    chances = 1 / (1 + np.exp(-conf[i, j])) if o.conf_loss_type == P.LOGISTIC else powers / powers.sum()
                    loss.append(max(chance for c, chance in enumerate(chances) if c != background))
                elif o.conf_loss_type == P.LOGISTIC:
                    loss.append(logistic(conf[i, j], np.where(np.arange(classes) == own, 1, 0)).sum())
                else:
                    powers = np.exp(conf[i, j] - conf[i, j].max())
                    loss.append(-np.log(powers[own] / powers.sum()))
                if hard and index[j] > -1:
                    loss[j] += losses_of(o, found(i, 0, priors[j], j, index[j])[0]).sum()
            able = [j for j in range(places) if hard or (index[j] == -1 and most[j] < o.neg_overlap)]
            if more:
                able = [j for j in able if more[0].reshape(images, places, 2)[i, j, 1] >= o.objectness_score]
            limit = o.sample_size if hard else int(np.float32(sum(g > -1 for g in index)) * np.float32(o.neg_pos_ratio))
            limit = max(0, limit)
            if o.HasField("nms_param") and o.nms_param.nms_threshold > 0:
                boxes = [
                    priors[j] if o.use_prior_for_nms else decode(o, priors[j], variances[j], loc[i, j, 0]) for j in able
                ]
                ranked = suppressed(boxes, [loss[j] for j in able], o.nms_param.nms_threshold, o.nms_param.top_k)
                chosen = {able[n] for n in ranked[:limit]}
            else:
                chosen = set(sorted(able, key=lambda j: -loss[j])[:limit])
            for j in range(places):
                if index[j] > -1 and hard and j not in chosen:
                    index[j] = -1
                elif index[j] == -1 and j in chosen:
                    negatives.append((i, j))

    def pairs() -> Iterator[tuple[int, int, int, int]]:
        for (i, kind), (index, _) in sorted(matched.items()):
            for j, g in enumerate(index):
                if g > -1:
                    yield i, kind, j, g

    positives = list(pairs())
    normal = max(1, len(positives))
    total = 0.0
    for i, kind, j, g in positives:
        difference, passes = found(i, kind, refined[i][j], j, g)
        total += o.loc_weight * losses_of(o, difference).sum()
        slope = difference if o.loc_loss_type == P.L2 else difference.clip(-1, 1)
        loc_diff[i, j, kind] = o.loc_weight * slope * passes / normal
    target_of = {
        (i, j): background + 1 if o.map_object_to_agnostic else int(truths[i][g][1]) for i, _, j, g in positives
    }
    if o.mining_type == P.NONE:
        counted = [(i, j) for i in range(images) for j in range(places)]
    else:
        counted = sorted({(i, j) for i, _, j, _ in positives} | set(negatives))
    targets = np.full_like(conf, background)
    for i, _, j, g in positives:
        own = background + 1 if o.map_object_to_agnostic else int(truths[i][g][1])
        if o.mining_type == P.NONE:
            targets.reshape(-1)[i * places + j * classes + own] = 1
        else:
            targets[i, j, own] = 1
    for i, j in negatives:
        if 0 <= background < classes:
            targets[i, j, background] = 1
    for i, j in counted:
        if o.conf_loss_type == P.LOGISTIC:
            total += logistic(conf[i, j], targets[i, j]).sum()
            conf_diff[i, j] = (1 / (1 + np.exp(-conf[i, j])) - targets[i, j]) / normal
        else:
            own = target_of.get((i, j), background)
            powers = np.exp(conf[i, j] - conf[i, j].max())
            total -= np.log(powers[own] / powers.sum())
            conf_diff[i, j] = (powers / powers.sum() - (np.arange(classes) == own)) / normal
    shape = (images, -1)
    return Result(total / normal, loc_diff.reshape(shape), conf_diff.reshape(shape), len(positives), len(negatives))
