"""DetectionOutput: against the fork's algorithm one box at a time, RefineDet's additions, files of results, bad input."""

import json
import logging
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch
from box_reference import kept, random_boxes

from pycaffe_compat.errors import CaffeError, LayerError

OPTIONS = "num_classes: 3 nms_param { nms_threshold: 0.4 }"


def detections(options: str, *shapes: tuple[int, ...]) -> torch.nn.Module:
    return gl.build(f'name: "d" type: "DetectionOutput" detection_output_param {{ {options} }}', *shapes, phase=1)


def priors_of(boxes: torch.Tensor, variance: float = 1.0) -> torch.Tensor:
    return torch.stack((boxes.flatten(), torch.full((boxes.numel(),), variance)))[None]


@pytest.mark.parametrize(
    ("top_k", "keep_top_k"), [(-1, -1), (60, -1), (60, 17), (-1, 60), (-1, 90), (100, 0), (200, 200)]
)
def test_detections_are_those_of_the_forks_loop(top_k: int, keep_top_k: int) -> None:
    images, priors, classes = 2, 150, 4
    generator = torch.Generator().manual_seed(3)
    boxes = random_boxes(priors, size=0.3)
    scores = torch.rand(images, priors, classes, generator=generator) * torch.tensor([1.0, 1.0, 0.3, 0.6])
    scores = (scores * 100).round() / 100  # with many equals
    loc = torch.randn(images, priors, 4, generator=generator) * 0.02
    layer = detections(
        f"num_classes: {classes} nms_param {{ nms_threshold: 0.4 top_k: {top_k} }} keep_top_k: {keep_top_k} "
        "confidence_threshold: 0.1",
        (images, priors * 4),
        (images, priors * classes),
        (1, 2, priors * 4),
    )
    have = layer(loc.flatten(1), scores.flatten(1), priors_of(boxes))[0, 0]
    want: list[list[float]] = []
    for image in range(images):
        decoded, rows = (boxes + loc[image]).numpy(), []
        for label in range(1, classes):
            score = scores[image, :, label].numpy()
            order = np.argsort(-score, kind="stable")
            order = order[score[order] > np.float32(0.1)]
            order = order[:top_k] if top_k > -1 else order
            stay = order[kept(decoded[order], np.ones(len(order), bool), 0.4, 1.0)]
            rows += [[image, label, score[i], *decoded[i]] for i in stay]
        if -1 < keep_top_k < len(rows):
            strongest = sorted(range(len(rows)), key=lambda i: -rows[i][2])[:keep_top_k]
            rows = [rows[i] for i in sorted(strongest)]
        want += rows
    np.testing.assert_array_equal(have.numpy(), np.array(want or [[i] + [-1] * 6 for i in range(images)], np.float32))


@pytest.mark.parametrize(
    ("options", "each"),
    [
        ("num_classes: 1 keep_top_k: 5", 0),  # the background alone
        ("num_classes: 2 nms_param { top_k: 0 }", 0),
        ("num_classes: 2 background_label_id: -1 keep_top_k: 3", 3),  # the fork's GPU code; its CPU code aborts
        ("num_classes: 2 background_label_id: 7 confidence_threshold: 1", 0),
        ("num_classes: 2 background_label_id: 7 confidence_threshold: 0.5", 4),
    ],
)
def test_images_have_as_many_detections_as_options_allow(options: str, each: int) -> None:
    classes, boxes = int(options[13]), torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]])
    layer = detections(options, (2, 8), (2, 2 * classes), (1, 2, 8))
    rows = layer(torch.zeros(2, 8), torch.ones(2, 2 * classes), priors_of(boxes))[0, 0]
    assert rows[:, 0].tolist() == [image for image in (0, 1) for _ in range(max(each, 1))]
    assert (rows[:, 1] == -1).all() == (each == 0)


def test_without_detections_textboxes_makes_one_row() -> None:
    options = 'type: "DetectionOutput" detection_output_param { num_classes: 2 confidence_threshold: 2 }'
    layer = gl.build(options, (2, 8), (2, 4), (1, 2, 8), fork="textboxes")
    boxes = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]])
    assert layer(torch.zeros(2, 8), torch.ones(2, 4), priors_of(boxes)).tolist() == [[[[-1.0] * 7]]]


def test_a_fourth_bottom_counts_for_nothing() -> None:
    """Test nets of early SSD give the labels to DetectionOutput too."""
    prior = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9]])
    batch = torch.zeros(1, 8), torch.tensor([[0.1, 0.9, 0.2, 0.8]]), priors_of(prior)
    options = "num_classes: 2 confidence_threshold: 0.5"
    plain = detections(options, *(t.shape for t in batch))
    layer = detections(options, *(t.shape for t in batch), (1, 1, 1, 8))
    assert type(layer) is type(plain)
    torch.testing.assert_close(layer(*batch, torch.zeros(1, 1, 1, 8)), plain(*batch))


def test_refinedet_drops_weak_priors_and_moves_the_others() -> None:
    prior = torch.tensor([[0.0, 0.0, 0.2, 0.2], [0.5, 0.5, 0.9, 0.9], [0.0, 0.5, 0.2, 0.7]])
    moves, codes = torch.full((1, 12), 0.25), torch.full((1, 12), 0.5)
    objects = torch.tensor([[0.0, 0.5, 1.0, 0.009, 0.9, 0.1]])
    scores = torch.tensor([[0.1, 0.9, 0.1, 0.9, 0.3, 0.7]])
    layer = detections(
        "num_classes: 2 code_type: CORNER_SIZE objectness_score: 0.01 confidence_threshold: 0",
        *(t.shape for t in (codes, scores, priors_of(prior), objects, moves)),
    )
    have = layer(codes, scores, priors_of(prior), objects, moves)[0, 0]
    moved = prior + 0.25 * torch.tensor([[0.2], [0.4], [0.2]])
    want = moved + 0.5 * torch.tensor([[0.2], [0.4], [0.2]])
    assert have[:, 1].tolist() == [1, 1]
    torch.testing.assert_close(have[:, 2:], torch.cat((torch.tensor([[0.9], [0.7]]), want[[0, 2]]), 1))


@pytest.fixture
def test_set(tmp_path: Path) -> Path:
    """A label map of 3 labels and the names of 2 pictures of 100×200."""
    items = [
        f'item {{ name: "{name}" label: {label} display_name: "{name}" }}'
        for label, name in enumerate(("none", "cat", "2"))
    ]
    (tmp_path / "labelmap.prototxt").write_text("\n".join(items))
    (tmp_path / "sizes.txt").write_text("000001 100 200\n42 100 200\n")
    return tmp_path


def saving(folder: Path, style: str, more: str = "") -> torch.nn.Module:
    return detections(
        f'num_classes: 3 confidence_threshold: 0.5 save_output_param {{ output_directory: "{folder}/out/{style}" '
        f'output_name_prefix: "comp4_" output_format: "{style}" label_map_file: "{folder}/labelmap.prototxt" '
        f'name_size_file: "{folder}/sizes.txt" {more} }}',
        *((1, 4), (1, 3), (1, 2, 4)),
    )


BOX = torch.tensor([[0.1, -0.2, 0.5046, 0.5]])


def test_results_are_written_once_all_pictures_are_there(test_set: Path) -> None:
    for style in ("VOC", "COCO", "ILSVRC"):
        layer = saving(test_set, style)
        for scores in ([0.0, 0.0, 0.75], [0.0, 0.9, 0.6]):
            assert not list((test_set / "out" / style).glob("*"))
            layer(torch.zeros(1, 4), torch.tensor([scores]), priors_of(BOX))
    out = test_set / "out"
    assert (out / "VOC/comp4_cat.txt").read_text() == "42 0.9 20 0 100 50\n"  # 100.92 wide: 20 + int(80.92)
    assert (out / "VOC/comp4_2.txt").read_text() == "000001 0.75 20 0 100 50\n42 0.6 20 0 100 50\n"
    assert sorted(path.name for path in (out / "VOC").iterdir()) == ["comp4_2.txt", "comp4_cat.txt"]
    assert (out / "ILSVRC/comp4_.txt").read_text().splitlines()[1:] == ["42 1 0.9 20 0 100 50", "42 2 0.6 20 0 100 50"]
    rows = json.loads((out / "COCO/comp4_.json").read_text())
    assert [(row["image_id"], row["category_id"], row["score"]) for row in rows] == [
        ("000001", 2, 0.75),
        (42, "cat", 0.9),
        (42, 2, 0.6),
    ]
    assert rows[0]["bbox"] == [20.0, 0.0, 80.92, 50.0]


def test_results_without_a_label_map_are_a_warning(test_set: Path, caplog: pytest.LogCaptureFixture) -> None:
    (test_set / "labelmap.prototxt").unlink()
    layer = saving(test_set, "VOC")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            layer(torch.zeros(1, 4), torch.zeros(1, 3), priors_of(BOX))
    assert len(caplog.records) == 1
    assert "detections are not saved" in caplog.text
    assert "labelmap.prototxt" in caplog.text
    assert not (test_set / "out").exists()


@pytest.mark.parametrize(
    ("file", "text", "more", "words"),
    [
        ("sizes.txt", "000001 100\n", "", r'sizes.txt:1: "000001 100" is not NAME HEIGHT WIDTH'),
        ("sizes.txt", "a 1 1\n", "num_test_image: 2", "num_test_image: 2 must be above 0 and at most 1"),
        ("labelmap.prototxt", 'item { name: "a" label: 1 }', "", "label 2 is not in .*labelmap.prototxt"),
        (
            "labelmap.prototxt",
            'item { name: "a" label: 1 } item { name: "b" label: 1 }',
            "",
            'label 1 is both "a" and "b"',
        ),
        ("out", "", "", "output_directory: .* cannot be made"),
    ],
)
def test_results_refuse_bad_files(test_set: Path, file: str, text: str, more: str, words: str) -> None:
    (test_set / file).write_text(text)
    layer = saving(test_set, "VOC", more)
    with pytest.raises(CaffeError, match=words):
        layer(torch.zeros(1, 4), torch.zeros(1, 3), priors_of(BOX))


@pytest.mark.parametrize(
    ("options", "shapes", "words"),
    [
        ("", ((1, 8), (1, 6), (1, 2, 8)), "num_classes is missing"),
        (
            OPTIONS,
            ((1, 8), (1, 6), (1, 1, 8)),
            r"third bottom must be the priors, \(1, 2, number \* 4\), not of shape 1×1×8",
        ),
        (
            OPTIONS,
            ((1, 8), (1, 6), (1, 2, 12)),
            "there are 3 priors, so its first bottom, the codes .* must have 12 numbers",
        ),
        (
            OPTIONS,
            ((1, 8), (1, 8), (1, 2, 8)),
            r"its second bottom, the scores, 3 \(num_classes\) for each, must have 6 numbers",
        ),
        (OPTIONS, ((1, 8), (2, 6), (1, 2, 8)), "codes of 1 images and scores of 2"),
        ("num_classes: 3 share_location: false", ((1, 8), (1, 6), (1, 2, 8)), r"3 classes \* 4 for each, must have 24"),
        ("num_classes: 3 nms_param { eta: 0 }", ((1, 8), (1, 6), (1, 2, 8)), "eta: 0 must be above 0 and at most 1"),
        (
            "num_classes: 3 nms_param { nms_threshold: -1 }",
            ((1, 8), (1, 6), (1, 2, 8)),
            "nms_threshold: -1 must not be negative",
        ),
    ],
)
def test_detections_refuse_what_does_not_fit(options: str, shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        detections(options, *shapes)


def test_a_prior_without_area_is_named() -> None:
    layer = detections(OPTIONS + " code_type: CENTER_SIZE", (1, 8), (1, 6), (1, 2, 8))
    flat = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.5, 0.25, 0.5, 0.75]])
    with pytest.raises(LayerError, match=r"prior 0.5, 0.25, 0.5, 0.75 has no area"):
        layer(torch.zeros(1, 8), torch.zeros(1, 6), priors_of(flat))


@pytest.mark.parametrize("prior", [(1, 2, 8, 2), (0, 2, 8)])
def test_priors_of_other_axes_are_refused(prior: tuple[int, ...]) -> None:
    with pytest.raises(LayerError, match="its third bottom must be the priors"):
        gl.build('name: "d" type: "DetectionOutput" detection_output_param { num_classes: 2 }', (1, 8), (1, 4), prior)
