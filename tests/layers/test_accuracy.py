"""Accuracy: Caffe's numbers, against a count by hand, ties, bad labels and options."""

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", gl.names("accuracy"))
def test_golden(name):
    gl.check(name)


def by_hand(x, label, k, ignore):
    """Loop over places as one would by hand: the label is right if fewer than k other classes score as much or more."""
    hits, seen = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for place, want in np.ndenumerate(label):
        if want == ignore:
            continue
        column = x[(place[0], slice(None), *place[1:])]
        seen[want] += 1
        hits[want] += sum(column[other] >= column[want] for other in range(len(column)) if other != want) < k
    with np.errstate(invalid="ignore"):
        return hits.sum() / max(1, seen.sum()), np.where(seen, hits / seen, 0)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("ignore", [None, 1])
@pytest.mark.parametrize("shape", [(30, 5), (4, 5, 3, 2)])
def test_against_a_count_by_hand(k, ignore, shape):
    rng = np.random.default_rng(k)
    x = rng.integers(0, 4, shape).astype(np.float32)
    label = rng.integers(0, 4, (shape[0], *shape[2:]))
    option = "" if ignore is None else f"ignore_label: {ignore}"
    for axis in (1, 1 - len(shape)):
        layer = gl.build(
            f'type: "Accuracy" top: "a" top: "c" accuracy_param {{ top_k: {k} axis: {axis} {option} }}',
            shape,
            label.shape,
        )
        accuracy, each = layer(torch.from_numpy(x), torch.from_numpy(label).float())
        want, want_each = by_hand(x, label, k, ignore)
        assert accuracy.shape == () and float(accuracy) == pytest.approx(want)
        np.testing.assert_allclose(each, want_each, rtol=1e-6)
        assert gl.meta_shapes(layer, [shape, label.shape]) == [(), (5,)]


def test_all_scores_alike_and_all_ignored():
    x = torch.zeros(4, 3, requires_grad=True)
    top1 = gl.build('type: "Accuracy"', (4, 3), (4,))(x, torch.zeros(4))
    assert top1.item() == 0 and not top1.requires_grad
    assert gl.build('type: "Accuracy" accuracy_param { top_k: 3 }', (4, 3), (4,))(x, torch.zeros(4)).item() == 1
    none = gl.build('type: "Accuracy" top: "a" top: "c" accuracy_param { ignore_label: 0 }', (4, 3), (4,))
    accuracy, each = none(x, torch.zeros(4))
    assert accuracy.item() == 0 and not each.any()


def test_label_that_is_no_class(monkeypatch):
    layer = gl.build('name: "top1" type: "Accuracy"', (2, 3), (2,))
    with pytest.raises(
        LayerError, match=r'"top1" \(Accuracy\): label 3 at index 1 is not a class: there are 3, 0 to 2'
    ):
        layer(torch.zeros(2, 3), torch.tensor([0.0, 3]))
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert torch.isnan(layer(torch.zeros(2, 3), torch.tensor([0.0, 3])))


@pytest.mark.parametrize(
    "options, shapes, message",
    [
        ("top_k: 4", [(2, 3), (2,)], "accuracy_param.top_k: 4 is more than the 3 classes"),
        ("axis: 2", [(2, 3), (2,)], "accuracy_param.axis: 2 is out of range"),
        ("", [(2, 3, 4), (2,)], "takes 8 labels for scores of shape 2×3×4"),
        ("", [(2, 3)], "1 bottom blob, but takes exactly 2"),
    ],
)
def test_bad_options(options, shapes, message):
    with pytest.raises(LayerError, match=message):
        gl.meta_shapes(gl.build(f'type: "Accuracy" accuracy_param {{ {options} }}', *shapes), shapes)
