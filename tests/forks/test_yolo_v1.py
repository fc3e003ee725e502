"""YOLO v1's loss, and the scores of YOLO's tests, against loops over cells and boxes as in their sources."""

from __future__ import annotations

import math
import pickle

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError

SIDE, CLASSES, BOXES = 3, 4, 2
CELLS = SIDE**2
DRAW = np.random.default_rng(5)


def iou(a, b) -> float:
    """Of boxes of centre, width and height."""
    width, height = (
        min(a[k] + a[2 + k] / 2, b[k] + b[2 + k] / 2) - max(a[k] - a[2 + k] / 2, b[k] - b[2 + k] / 2) for k in (0, 1)
    )
    if width < 0 or height < 0:
        return 0
    return width * height / (a[2] * a[3] + b[2] * b[3] - width * height)


def labels_of(n: int) -> np.ndarray:
    """Difficult, there, label, box, by cell; half of the cells have a box."""
    labels = np.zeros((n, 7, CELLS))
    labels[:, 2] = -1
    for image in range(n):
        for cell in range(0, CELLS, 2):
            box = [(cell % SIDE + DRAW.random()) / SIDE, (cell // SIDE + DRAW.random()) / SIDE, *DRAW.random(2) * 0.5]
            labels[image, :3, cell] = DRAW.random() < 0.2, 1, DRAW.integers(CLASSES)
            labels[image].reshape(-1)[3 * CELLS + 4 * cell : 3 * CELLS + 4 * cell + 4] = box
    return labels.reshape(n, -1)


def split(row, cell: int) -> tuple:
    rows = row.reshape(-1, CELLS)[:, cell]
    return rows[:CLASSES], rows[CLASSES : CLASSES + BOXES], rows[CLASSES + BOXES :].reshape(BOXES, 4)


def in_image(box, cell: int, roots: bool, inside: bool) -> list[float]:
    x, y, w, h = box
    if inside:
        x, y = (cell % SIDE + x) / SIDE, (cell // SIDE + y) / SIDE
    return [x, y, w**2, h**2] if roots else [x, y, w, h]


@pytest.mark.parametrize(("roots", "inside"), [(True, True), (False, False), (True, False)])
def test_detection_loss_and_its_own_gradient(roots: bool, inside: bool) -> None:
    n, scales = 2, {"object": 1.5, "noobject": 0.5, "class": 2.0, "coord": 5.0}
    x, labels = DRAW.random((n, CELLS * (CLASSES + 5 * BOXES))), labels_of(n)
    x.reshape(n, -1, CELLS)[:, -8:-6] *= (
        0.01  # first boxes without area, so that no box overlaps and the nearest counts
    )
    losses, grad, objects = dict.fromkeys(("class", "xy", "wh", "object", "noobject"), 0.0), np.zeros_like(x), 0
    for image in range(n):
        rows, slopes = x[image].reshape(-1, CELLS), grad[image].reshape(-1, CELLS)
        label = labels[image].reshape(7, CELLS)
        for cell in range(CELLS):
            scores, sure, boxes = split(x[image], cell)
            losses["noobject"] += (sure**2).sum()
            slopes[CLASSES : CLASSES + BOXES, cell] = scales["noobject"] * sure
            if not label[1, cell]:
                continue
            objects += 1
            wanted = np.eye(CLASSES)[int(label[2, cell])]
            losses["class"] += ((scores - wanted) ** 2).sum()
            slopes[:CLASSES, cell] = scales["class"] * (scores - wanted)
            true = label.reshape(-1)[3 * CELLS + 4 * cell : 3 * CELLS + 4 * cell + 4].copy()
            best, best_iou, best_far = 0, 0.0, 20.0
            for k in range(BOXES):
                box = in_image(boxes[k], cell, roots, inside)
                far = math.dist(box, true)
                if best_iou > 0 or iou(box, true) > 0:
                    if iou(box, true) > best_iou:
                        best, best_iou = k, iou(box, true)
                elif far < best_far:
                    best, best_far = k, far
            losses["noobject"] -= sure[best] ** 2
            losses["object"] += (sure[best] - 1) ** 2
            slopes[CLASSES + best, cell] = scales["object"] * (sure[best] - best_iou)
            if inside:
                true[:2] = true[0] * SIDE - cell % SIDE, true[1] * SIDE - cell // SIDE
            if roots:
                true[2:] = np.sqrt(true[2:])
            at = CLASSES + BOXES + 4 * best
            slopes[at : at + 4, cell] = scales["coord"] * (rows[at : at + 4, cell] - true)
            losses["xy"] += ((rows[at : at + 4, cell] - true) ** 2).sum()
    want = (
        scales["class"] * losses["class"] / objects
        + scales["coord"] * losses["xy"] / objects
        + scales["object"] * losses["object"] / objects
        + scales["noobject"] * losses["noobject"] / (CELLS * BOXES * n - objects)
    )
    options = " ".join(f"{name}_scale: {value}" for name, value in scales.items())
    layer = gl.build(
        f'name: "d" type: "DetectionLoss" detection_loss_param {{ side: {SIDE} num_class: {CLASSES} num_object: {BOXES} '
        f"sqrt: {str(roots).lower()} constriant: {str(inside).lower()} {options} }}",
        x.shape,
        labels.shape,
    )
    leaf = torch.tensor(x, requires_grad=True)
    loss = layer(leaf, torch.tensor(labels))
    np.testing.assert_allclose(loss.item(), want)
    (3 * loss).backward()
    np.testing.assert_allclose(leaf.grad, 3 * grad / n, atol=1e-12)


def judged(found: list, truths: list, threshold: float, wrong_apart: bool) -> list:
    """Rows of label, score, right, wrong. ``found``: label, score, box in order; ``truths``: label, difficult, box."""
    rows, used = [], set()
    for label, score, box in sorted(found, key=lambda each: each[0]):
        mine = [k for k, truth in enumerate(truths) if truth[0] == label]
        row = [label, score, 0, 1]
        if mine:
            best = max(mine, key=lambda k: iou(box, truths[k][2]))
            if iou(box, truths[best][2]) >= threshold:
                row[2:] = [0, 0] if truths[best][1] else ([0, 1] if best in used else [1, 0])
                used.add(best)
            elif not wrong_apart:
                row[2:] = [0, 0]
        rows.append(row)
    return rows


def survivors(found: list, threshold: float) -> list:
    kept: list = []
    for each in sorted(found, key=lambda each: -each[1]):
        if threshold < 0 or all(iou(other[2], each[2]) < threshold for other in kept):
            kept.append(each)
    return kept


@pytest.mark.parametrize(("nms", "kind"), [(-1, "MULTIPLY"), (0.4, "OBJ"), (0.4, "PROB")])
def test_eval_detection_of_the_first_version(nms: float, kind: str) -> None:
    x, labels = DRAW.random((2, CELLS * (CLASSES + 5 * BOXES))), labels_of(2)
    layer = gl.build(
        f'name: "e" type: "EvalDetection" eval_detection_param {{ side: {SIDE} num_class: {CLASSES} num_object: {BOXES} '
        f"threshold: 0.02 nms: {nms} score_type: {kind} }}",
        x.shape,
        labels.shape,
        (2, 3, 8, 8),  # pictures, which published nets give it, are not read
    )
    made = pickle.loads(pickle.dumps(layer))(torch.tensor(x), torch.tensor(labels), torch.zeros(2, 3, 8, 8))
    for image in range(2):
        label, found, truths = labels[image].reshape(7, CELLS), [], []
        for cell in range(CELLS):
            scores, sure, boxes = split(x[image], cell)
            best = scores.max()
            for k in range(BOXES):
                value = {"OBJ": sure[k], "PROB": best, "MULTIPLY": sure[k] * best}[kind]
                found.append((int(scores.argmax()), value, in_image(boxes[k], cell, True, True)))
            if label[1, cell]:
                box = label.reshape(-1)[3 * CELLS + 4 * cell : 3 * CELLS + 4 * cell + 4]
                truths.append((int(label[2, cell]), bool(label[0, cell]), box))
        rows = judged(survivors(found, nms), truths, 0.02, wrong_apart=True)
        counts = [sum(truth[0] == c and not truth[1] for truth in truths) for c in range(CLASSES)]
        np.testing.assert_array_equal(made[image, :CLASSES], counts)
        np.testing.assert_allclose(made[image, CLASSES : CLASSES + 4 * len(rows)], np.ravel(rows))
        assert not made[image, CLASSES + 4 * len(rows) :].any() and (nms >= 0 or any(row[2] for row in rows))


def test_eval_detection_of_the_second_version() -> None:
    side, classes, anchors = 4, 3, DRAW.random((5, 2)) * 2 + 0.5
    x = DRAW.standard_normal((2, 5 * (5 + classes), side, side))
    labels = np.array(
        [[0, 1, 0, 0.1, 0.1, 0.6, 0.5, 0], [1, 2, 0, 0.3, 0.3, 0.7, 0.9, 0], [0, 3, 1, 0.5, 0.1, 0.9, 0.8, 0]]
    )
    labels = np.vstack((labels, [[0, 1, 0, 0.2, 0.5, 0.6, 1, 0], [-1, 0, 0, 0, 0, 0, 0, 0]])).reshape(1, 1, 5, 8)
    biases = " ".join(f"biases: {value}" for value in anchors.ravel())
    layer = gl.build(
        f'name: "e" type: "EvalDetection" eval_detection_param {{ side: {side} num_class: {classes} num_object: 5 '
        f"threshold: 0.3 nms: 0.45 {biases} }}",
        x.shape,
        labels.shape,
        (2, 3, 8, 8),
    )
    made = layer(torch.tensor(x), torch.tensor(labels), torch.zeros(2, 3, 8, 8))  # Intel's int8 nets give it the images
    for image in range(2):
        found = []
        for row in range(side):
            for column in range(side):
                for k in range(5):
                    tx, ty, tw, th, sure, *scores = x[image, k * 8 : k * 8 + 8, row, column]
                    gate = lambda value: 1 / (1 + math.exp(-value))  # noqa: E731
                    odds = np.exp(scores) / np.exp(scores).sum()
                    w, h = np.exp([tw, th]) * anchors[k].astype(np.float32) / side
                    box = [(column + gate(tx)) / side, (row + gate(ty)) / side, w, h]
                    found.append((int(odds.argmax()), gate(sure) * odds.max(), box))
        truths = []
        for item, label, _, x1, y1, x2, y2, _ in labels[0, 0]:
            if item == image:
                truths.append((int(label) - 1, False, [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]))
        kept = [each for each in survivors(found, 0.45) if each[1] >= 0.005]
        rows = judged(kept, truths, 0.3, wrong_apart=False)
        np.testing.assert_allclose(made[image, classes : classes + 4 * len(rows)], np.ravel(rows), rtol=1e-6)
        assert not made[image, classes + 4 * len(rows) :].any()
        np.testing.assert_array_equal(made[image, :classes], [sum(t[0] == c for t in truths) for c in range(classes)])


def test_wrong_numbers_are_named() -> None:
    text = 'name: "d" type: "DetectionLoss" detection_loss_param { side: 3 num_class: 4 num_object: 2 }'
    with pytest.raises(
        LayerError, match="needs 126 numbers an image for 3×3 cells of 4 classes and 2 boxes, and 63 of"
    ):
        gl.build(text, (2, 125), (2, 63))
    labels = torch.zeros(1, 7, 9)
    labels[:, 1], labels[:, 2] = 1, 4
    with pytest.raises(LayerError, match="label 4 is not a class: there are 4, from 0"):
        gl.build(text, (1, 126), (1, 63))(torch.zeros(1, 126), labels.reshape(1, -1))
    with pytest.raises(LayerError, match="num_object: 2 and 1 biases"):
        gl.build('name: "e" type: "EvalDetection" eval_detection_param { biases: 1 }', (1, 40, 4, 4), (1, 1, 1, 8))
