"""Proposal of happynear's Caffe and of synopsys-caffe, against the numbers of their own code."""

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.forks.fast_rcnn import nms


@pytest.mark.parametrize("name", gl.names("proposal_", folder="forks"))
def test_layer_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


def greedy(boxes: np.ndarray, threshold: float, most: int) -> list[int]:
    """What stays, box by box, as in py-faster-rcnn's py_cpu_nms.py."""
    kept: list[int] = []
    for i, (x1, y1, x2, y2) in enumerate(boxes):
        for j in kept:
            w = min(x2, boxes[j, 2]) - max(x1, boxes[j, 0]) + 1
            h = min(y2, boxes[j, 3]) - max(y1, boxes[j, 1]) + 1
            common = max(w, 0) * max(h, 0)
            area = (x2 - x1 + 1) * (y2 - y1 + 1) + np.prod(boxes[j, 2:] - boxes[j, :2] + 1) - common
            if common / area > threshold:
                break
        else:
            kept.append(i)
    return kept[:most]


@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize(("threshold", "most"), [(0.3, 99), (0.7, 99), (0.7, 5)])
def test_suppression_in_blocks_keeps_what_a_loop_keeps(threshold: float, most: int, block: int, monkeypatch) -> None:
    monkeypatch.setattr(nms, "_BLOCK", block)
    corners = np.random.default_rng(0).integers(0, 20, (60, 2))
    boxes = np.concatenate((corners, corners + np.random.default_rng(1).integers(0, 15, (60, 2))), 1)
    kept = nms.suppress(torch.from_numpy(boxes).float(), threshold, most)
    assert kept.tolist() == greedy(boxes, threshold, most)


def test_boxes_less_than_a_pixel_apart_overlap_only_where_they_may() -> None:
    a, b = torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.5, 0, 2.5, 1]])
    assert nms.overlaps(a, b).item() == 0
    assert nms.overlaps(a, b, touching=True).item() == pytest.approx(1 / 7)  # 0.5 × 2 of 4 + 4 - 1
    assert nms.suppress(a[:0], 0.5, 9).tolist() == []


OPTIONS = "ratio: 1 scale: 4 base_size: 4 feat_stride: 4 min_size: 4 post_nms_topn: 3"


def test_each_image_has_regions_of_its_own_and_small_boxes_score_nothing() -> None:
    layer = gl.build(
        f'name: "p" type: "Proposal" top: "r" top: "s" proposal_param {{ {OPTIONS} }}',
        (2, 2, 1, 2),
        (2, 4, 1, 2),
        (1, 4),
    )
    scores = torch.tensor([[0.0, 0, 0.5, 0.75], [0, 0, 0.25, 0.125]]).reshape(2, 2, 1, 2)
    shifts = torch.zeros(2, 4, 1, 2)
    shifts[1, 2, 0, 0] = -1  # too narrow
    regions, found = layer(scores, shifts, torch.tensor([[4.0, 8, 1, 1]]))
    assert regions[:3].tolist() == [[0, 4, 0, 7, 3], [0, 0, 0, 4, 3], [1, 4, 0, 7, 3]]
    assert found.tolist() == [0.75, 0.5, 0.125, 0] and regions[3, 0] == 1
    assert gl.meta_shapes(layer, [(2, 2, 1, 2), (2, 4, 1, 2), (1, 4)]) == [(6, 5), (6,)]


@pytest.mark.parametrize(
    ("sizes", "score"), [((4.0, 8, 1, 2), 0.5), ((4, 8, 2, 1), 0), ((4, 8, 9), 0.5), ((4, 8, 1, 3), 0)]
)
def test_the_least_size_grows_with_the_factors_of_height_and_width(sizes: tuple[float, ...], score: float) -> None:
    layer = gl.build(
        f'name: "p" type: "Proposal" top: "r" top: "s" proposal_param {{ {OPTIONS} }}',
        (1, 2, 1, 1),
        (1, 4, 1, 1),
        (1, len(sizes)),
    )
    shifts = torch.tensor([0.5, 0, 0.7, 0]).reshape(1, 4, 1, 1)  # to x 0 to 7, y 0 to 3
    regions, found = layer(torch.full((1, 2, 1, 1), 0.5), shifts, torch.tensor([sizes]))
    assert regions.round().tolist() == [[0, 0, 0, 7, 3]] and found.tolist() == [score]


def test_synopsys_keeps_the_last_box_however_small() -> None:
    options = "anchor_scale: 1 anchor_ratio: 1 anchor_base_size: 1 feat_stride: 32 rpn_min_size: 16"
    layer = gl.build(
        f'name: "p" type: "Proposal" top: "r" top: "s" proposal_param {{ {options} }}',
        (1, 2, 1, 3),
        (1, 4, 1, 3),
        (1, 3),
    )
    shifts = torch.zeros(1, 4, 1, 3)
    shifts[0, 2:, 0, 1:] = -2  # too small
    scores = torch.tensor([0, 0, 0, 0.25, 0.5, 0.75]).reshape(1, 2, 1, 3)
    regions, found = layer(scores, shifts, torch.tensor([[200.0, 200, 1]]))
    assert found.tolist() == [[0.75], [0.25]] and regions[0, 3] - regions[0, 1] < 5


def test_synopsys_refuses_an_image_whose_size_is_no_number() -> None:
    layer = gl.build(
        'name: "p" type: "Proposal" proposal_param { anchor_scale: 1 anchor_ratio: 1 feat_stride: 32 rpn_min_size: 16 }',
        *((1, 2, 2, 3), (1, 4, 2, 3), (1, 3)),
    )
    sizes = torch.tensor([[float("nan"), 96, 1]])
    with pytest.raises(
        LayerError, match=r'layer "p" \(Proposal\): height, width and scale of its image are nan, 96 and 1'
    ):
        layer(torch.zeros(1, 2, 2, 3), torch.zeros(1, 4, 2, 3), sizes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("scale: 1", r"needs proposal_param.ratio, once or more often, above 0"),
        ("ratio: 1 scale: 1 post_nms_topn: 0", "proposal_param.post_nms_topn: 0 must be at least 1"),
        (
            "ratio: 1 ratio: 2 scale: 1",
            "needs scores N×4×H×W and shifts N×8×H×W for 2 anchors .* not 1×2×3×3 and 1×4×3×3",
        ),
        ("anchor_scale: 1 anchor_ratio: 3", "needs scores 1×6×H×W and shifts 1×12×H×W for its 3 anchors"),
        ("max_rois: 0", "proposal_param.max_rois: 0 must be at least 1"),
        ("max_rois: 3 ratio: 1", "its options are of no one fork"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: str, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'name: "p" type: "Proposal" proposal_param {{ {options} }}', (1, 2, 3, 3), (1, 4, 3, 3), (1, 3))
