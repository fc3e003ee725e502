"""The average precision of detections, against the loops of SSD's and Cascade R-CNN's Caffe (ComputeAP of bbox_util.cpp)."""

import logging

import numpy as np
import pytest
import torch

from pycaffe_compat.errors import SolverError
from pycaffe_compat.proto import caffe_pb2
from pycaffe_compat.solver.scores import VERSIONS, Means, Precision, average_precision, check_kind

F = np.float32


def compute_ap(scores: np.ndarray, right: np.ndarray, boxes: int, version: str) -> float:
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    if not order or not boxes:
        return F(0)
    precision, recall, hits = [], [], 0
    for number, i in enumerate(order, 1):
        hits += int(right[i])
        precision.append(F(hits) / F(number))
        recall.append(F(hits) / F(boxes))
    area, last = F(0), len(order) - 1
    if version.endswith("point"):
        steps = int(version.removesuffix("point")) - 1
        best, start = [F(0)] * (steps + 1), last
        for j in range(steps, -1, -1):
            for i in range(start, -1, -1):
                if float(recall[i]) < j / steps:
                    start = i
                    if j:
                        best[j - 1] = best[j]
                    break
                best[j] = max(best[j], precision[i])
        for j in range(steps, -1, -1):
            area += best[j] / F(steps + 1)
    elif version == "MaxIntegral":
        now, most = recall[last], precision[last]
        for i in range(last - 1, -1, -1):
            most = max(precision[i], most)
            if abs(now - recall[i]) > F(1e-6):
                area += most * abs(now - recall[i])
            now = recall[i]
        area += now * most
    else:
        before = F(0)
        for i in range(last + 1):
            if abs(recall[i] - before) > F(1e-6):
                area += precision[i] * abs(recall[i] - before)
            before = recall[i]
    return area


@pytest.mark.parametrize("version", VERSIONS)
def test_the_average_is_that_of_the_forks_loops(version: str) -> None:
    random = np.random.default_rng(0)
    seen = set()
    for trial in range(200):
        number = int(random.integers(0, 40))
        scores = random.random(number).round(1 + trial % 3).astype(F)  # with equals among them
        right = (random.random(number) < random.random()).astype(int)
        boxes = int(right.sum() + random.integers(0, 4))
        want = compute_ap(scores, right, boxes, version)
        assert average_precision(scores, right, boxes, version) == want
        seen.add(float(want))
    assert len(seen) > 100


def test_numbers_that_stand_for_none_are_left_out_of_means() -> None:
    gathered = Means({"holey"})
    for values in ((-1.0, 0.5, -1.0), (-1.0, -1.0, 0.25), (-1.0, 0.0, 0.75)):
        gathered.add({"holey": torch.tensor(values), "whole": torch.tensor(values)})
    np.testing.assert_allclose(gathered.scores()["holey"], [np.nan, 0.25, 0.5])
    np.testing.assert_allclose(gathered.scores()["whole"], [-1, -0.5 / 3, 0])


def test_a_mean_is_over_all_labels_of_all_batches(caplog: pytest.LogCaptureFixture) -> None:
    def table(*rows: tuple) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.float32)[None, None]

    gathered = Precision("Integral", shows_labels=True)
    gathered.add(
        {
            "eval": table(
                (-1, 1, 1, -1, -1), (-1, 2, 5, -1, -1), (-1, 3, 0, -1, -1), (0, 1, 0.9, 0, 1), (0, 1, 0.5, 0, 0)
            )
        }
    )
    gathered.add({"eval": table((-1, 1, 1, -1, -1), (-1, 2, 0, -1, -1), (0, 1, 0.8, 1, 0), (0, 1, 0.7, 1, 0))})
    with caplog.at_level(logging.INFO):
        # label 1 has precisions 0, 1/2, 2/3, and half of its boxes at each hit; labels 2 and 3 are never detected
        assert gathered.scores()["eval"] == pytest.approx((1 / 2 + 2 / 3) / 2 / 3)
    missing = [f"Missing true_pos for label: {label}" for label in (2, 3)]
    assert [record.getMessage() for record in caplog.records] == ["class1: 0.583333", *missing]


def test_a_test_without_a_true_box_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    gathered = Precision("11point", shows_labels=False)
    gathered.add({"eval": torch.tensor([[[[0.0, 1, 0.9, 0, 1]]]])})
    assert gathered.scores()["eval"] == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"eval_type": "detektion"}, 'eval_type: "detektion" is not one of classification, detection'),
        (
            {"eval_type": "detection", "ap_version": "11points"},
            r'"11points" is not one of 11point, .*did you mean 11point\?',
        ),
    ],
)
def test_unknown_kinds_of_tests_are_errors(fields: dict, words: str) -> None:
    with pytest.raises(SolverError, match=words):
        check_kind(caffe_pb2.SolverParameter(**fields))
