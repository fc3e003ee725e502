"""DetectionEvaluate against SSD's own numbers, and against its loops where it has left no numbers."""

from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch
from box_reference import overlap, random_boxes

from pycaffe_compat.errors import CaffeError, MissingFileError
from pycaffe_compat.layers import layer_class


@pytest.mark.parametrize("name", gl.names("deteval_", folder="forks"))
def test_it_agrees_with_caffe(name: str) -> None:
    gl.check(name, "forks")


def build(options: str, detections: torch.Tensor, labels: torch.Tensor) -> gl.Layer:
    return gl.build(
        f'name: "e" type: "DetectionEvaluate" detection_evaluate_param {{ {options} }}',
        detections.shape,
        labels.shape,
        phase=1,
    )


def blobs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """120 detections of 4 images and 15 true boxes that they overlap, some of them difficult; image 2 has no truth."""
    generator = torch.Generator().manual_seed(seed)
    true = random_boxes(15, seed=seed)
    image = torch.tensor([0, 1, 3])[torch.arange(15) % 3]
    labels = torch.stack((image, torch.randint(1, 4, (15,), generator=generator), torch.zeros(15)), 1)
    labels = torch.cat((labels, true, (torch.arange(15) % 4 == 0)[:, None]), 1)
    near = torch.randint(15, (120,), generator=generator)
    boxes = true[near] + 0.06 * torch.randn(120, 4, generator=generator)
    which = labels[near, :2]
    which[::7, 0] = 2
    scores = (torch.rand(120, 1, generator=generator) * 1000).round() / 1000
    return torch.cat((which, scores, boxes), 1)[None, None], labels[None, None]


def judged(detections: np.ndarray, labels: np.ndarray, difficult: bool, threshold: float) -> list[list[float]]:
    """Forward_cpu of the fork for normalized boxes, classes 1 to 3."""
    rows = [[-1, c, sum(1 for row in labels if row[1] == c and (difficult or not row[7])), -1, -1] for c in (1, 2, 3)]
    for image in range(4):
        for label in (1, 2, 3):
            truth = [row for row in labels if row[0] == image and row[1] == label]
            own = [row for row in detections if row[0] == image and row[1] == label]
            if truth:
                own.sort(key=lambda row: -row[2])
            visited = set()
            for row in own:
                best, at = -1.0, -1
                for j, true in enumerate(truth):
                    if (value := overlap(row[3:], true[3:7])) > best:
                        best, at = value, j
                right, wrong = 0, 1
                if best >= threshold:
                    wrong = 0
                    if difficult or not truth[at][7]:
                        right, wrong = int(at not in visited), int(at in visited)
                        visited.add(at)
                rows.append([image, label, row[2], right, wrong])
    return rows


@pytest.mark.parametrize("difficult", [True, False])
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_it_judges_as_the_forks_loop(difficult: bool, threshold: float) -> None:
    detections, labels = blobs()
    layer = build(
        f"num_classes: 4 overlap_threshold: {threshold} evaluate_difficult_gt: {str(difficult).lower()}",
        detections,
        labels,
    )
    have = layer(detections, labels)[0, 0].numpy()
    want = judged(detections[0, 0].numpy(), labels[0, 0].numpy(), difficult, np.float32(threshold))
    assert {tuple(row[3:]) for row in want} >= {(0, 1), (1, 0)}
    assert difficult or (0, 0) in {tuple(row[3:]) for row in want}
    np.testing.assert_array_equal(have, np.array(want, np.float32))


def test_it_counts_pixels_of_the_pictures_one_after_the_other(tmp_path: Path) -> None:
    file = tmp_path / "sizes.txt"
    file.write_text("a 10 20\nb 100 40\nc 30 30\n")
    # the last pixel counts too: in a, which is 10 high and 20 wide, 5 columns of 6 are common
    labels = torch.tensor([[[[0.0, 1, 0, 0.1, 0.2, 0.3, 0.6, 0], [1, 1, 0, 0.1, 0.2, 0.3, 0.6, 0]]]])
    found = torch.tensor([[[[0, 1, 0.9, 0.1, 0.2, 0.35, 0.6], [1, 1, 0.9, 0.1, 0.2, 0.35, 0.6]]]])
    layer = build(f'num_classes: 2 overlap_threshold: 0.82 name_size_file: "{file}"', found, labels)
    heights = [(10, 20), (100, 40), (30, 30)]
    for first in (0, 2, 1, 0):
        have = layer(found, labels)[0, 0, 1:, 3]
        for row, place in zip(have, (first, first + 1), strict=True):
            scale = np.array(heights[place % 3][::-1] * 2, np.float32)
            a, b = (np.array(box, np.float32) * scale for box in ([0.1, 0.2, 0.35, 0.6], [0.1, 0.2, 0.3, 0.6]))
            assert bool(row) == (overlap(a, b, False) >= 0.82)
    layer.seek({})
    assert layer.state() == {"seen": 0}
    assert layer(found, labels)[0, 0, 1:, 3].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "needs detection_evaluate_param.num_classes"),
        ("num_classes: 4 overlap_threshold: 0", "overlap_threshold: 0 must be above 0"),
        ('num_classes: 4 name_size_file: "no.txt"', 'name_size_file of layer "e" not found: no.txt'),
    ],
)
def test_bad_options_are_errors(options: str, words: str) -> None:
    with pytest.raises(CaffeError, match=words) as caught:
        build(options, *blobs())
    assert isinstance(caught.value, MissingFileError) == ("no.txt" in words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d, t: (d[..., :6], t), "detections of shape 1×1×K×7 .*, not 1×1×120×6"),
        (lambda d, t: (d, t[..., :7]), "labels of shape 1×1×G×8, .* not of 1×1×15×7"),
        (
            lambda d, t: (d, torch.cat((torch.zeros(1, 1, 1, 8), t), 2)),
            r"row 0 of the labels \(0, 0, .* is background_label_id",
        ),
        (
            lambda d, t: (torch.cat((d, torch.zeros(1, 1, 1, 7)), 2), t),
            r"row 120 of the detections \(0, 0, .* is background_label_id",
        ),
    ],
)
def test_bad_bottoms_are_errors(change, words: str) -> None:
    detections, labels = change(*blobs())
    with pytest.raises(CaffeError, match=words):
        build("num_classes: 4", detections, labels)(detections, labels)


def test_no_truth_and_no_detections_are_fine() -> None:
    nothing, labels = torch.tensor([[[[0.0, -1, -1, -1, -1, -1, -1]]]]), torch.full((1, 1, 1, 8), -1.0)
    layer = build("num_classes: 3", nothing, labels)
    assert layer(nothing, labels)[0, 0].tolist() == [[-1, 1, 0, -1, -1], [-1, 2, 0, -1, -1]]
    assert layer(nothing, labels[:, :, :0]).shape == (1, 1, 2, 5)
    assert layer(nothing[:, :, :0], labels).shape == (1, 1, 2, 5)
    without_background = build("num_classes: 2 background_label_id: 4294967295", nothing, labels)
    assert without_background(nothing, labels)[0, 0, :, 1].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("fork", "classes", "given", "read"),
    [
        ("refinedet", 2, [1, 2, 3], [1, 1, 1]),
        ("refinedet", 3, [1, 2, 3], [1, 2, 3]),
        ("openvino", 2, [0, 1, 7], [1, 1, 1]),
        ("openvino", 4, [1, 3, 7], [1, 3, 3]),
        ("nvidia", 4, [-2, 0, 2.9], [None, None, 3]),
    ],
)
def test_each_fork_reads_labels_in_its_own_way(fork: str, classes: int, given: list, read: list) -> None:
    def truth(labels: list) -> torch.Tensor:
        kept = [label for label in labels if label is not None]
        box = torch.tensor([0, 0, 0, 0.1, 0.1, 0.9, 0.9, 0]).repeat(len(kept), 1)
        box[:, 1] = torch.tensor(kept)
        return box[None, None]

    detections = torch.tensor([[0, label, 0.9, 0.1, 0.1, 0.9, 0.9] for label in (1, 2, 3)])[None, None]
    plain = build(f"num_classes: {classes}", detections, truth(read))
    named = layer_class(plain.param, fork=fork)(plain.param, [detections.shape, (1, 1, 3, 8)])
    assert torch.equal(named(detections, truth(given)), plain(detections, truth(read)))
