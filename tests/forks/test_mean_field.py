"""CRF as RNN: the permutohedral lattice and the mean-field steps, against their sources' formulas written out point by point."""

import itertools
import math
from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import DataError, LayerError
from pycaffe_compat.forks.crfasrnn.lattice import Filtered, Lattice
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text


def simplex(point: np.ndarray) -> dict[tuple[int, ...], float]:
    """The vertices around a point, with their weights: the loop of modified_permutohedral.cpp, in float32."""
    d = len(point)
    one = np.float32
    scale = [one(math.sqrt(2 / 3) * (d + 1) / math.sqrt((i + 2) * (i + 1))) for i in range(d)]
    elevated, total = [one(0)] * (d + 1), one(0)
    for i in range(d, 0, -1):
        part = one(point[i - 1] * scale[i - 1])
        elevated[i], total = one(total - i * part), one(total + part)
    elevated[0] = total
    base = [int(np.rint(one(value * one(1 / (d + 1))))) * (d + 1) for value in elevated]
    rank = [0] * (d + 1)
    for i, j in itertools.combinations(range(d + 1), 2):
        rank[i if elevated[i] - base[i] < elevated[j] - base[j] else j] += 1
    shift = sum(base) // (d + 1)
    for i in range(d + 1):
        rank[i] += shift
        turn = (rank[i] < 0) - (rank[i] > d)
        rank[i], base[i] = rank[i] + turn * (d + 1), base[i] + turn * (d + 1)
    weights = [one(0)] * (d + 2)
    for i in range(d + 1):
        share = one((elevated[i] - base[i]) * one(1 / (d + 1)))
        weights[d - rank[i]] += share
        weights[d - rank[i] + 1] -= share
    weights[0] += 1 + weights[d + 1]
    step = lambda r, k: r if k <= d - r else r - (d + 1)  # noqa: E731
    return {tuple(base[i] + step(r, rank[i]) for i in range(d)): float(weights[r]) for r in range(d + 1)}


def filtered(features: np.ndarray, values: np.ndarray, reverse: bool) -> np.ndarray:
    d = features.shape[1]
    corners = [simplex(point) for point in features]
    blurred = {key: np.zeros(values.shape[1]) for corner in corners for key in corner}
    if len(features) % 4:
        blurred.update({key: np.zeros(values.shape[1]) for key in simplex(np.zeros(d, np.float32))})
    for corner, value in zip(corners, values, strict=True):
        for key, weight in corner.items():
            blurred[key] = blurred[key] + weight * value
    for axis in range(d, -1, -1) if reverse else range(d + 1):
        old = blurred
        blurred = {}
        for key, value in old.items():
            ahead = [tuple(k + sign * (1 if i != axis else -d) for i, k in enumerate(key)) for sign in (1, -1)]
            blurred[key] = value + 0.5 * sum(old.get(each, 0) for each in ahead)
    sums = [sum(weight * blurred[key] for key, weight in corner.items()) for corner in corners]
    return np.array(sums) / (1 + 2.0**-d)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("points", "d", "spread"), [(24, 2, 3), (30, 5, 1), (33, 5, 20), (40, 3, 0.1)])
def test_the_lattice(points: int, d: int, spread: float, reverse: bool) -> None:
    rng = np.random.default_rng(points)
    features = (rng.standard_normal((points, d)) * spread).astype(np.float32)
    values = rng.standard_normal((points, 3))
    have = Lattice(torch.from_numpy(features)).filter(torch.from_numpy(values), reverse)
    np.testing.assert_allclose(have, filtered(features, values, reverse), rtol=1e-4, atol=1e-5)


def test_the_lattice_filters_as_a_gaussian_does() -> None:
    rows, columns = np.mgrid[:24, :24]
    features = np.stack([columns.ravel(), rows.ravel()], 1).astype(np.float32) / 3
    values = np.random.default_rng(0).standard_normal((576, 1))
    lattice = Lattice(torch.from_numpy(features))
    have = (lattice.filter(torch.from_numpy(values)) / lattice.filter(torch.ones(576, 1).double())).numpy()
    kernel = np.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(-1))
    want = kernel @ values / kernel.sum(1, keepdims=True)
    assert np.corrcoef(have[:, 0], want[:, 0])[0, 1] > 0.98 and abs(have - want).max() < 0.1


def test_the_lattice_has_its_gradient() -> None:
    lattice = Lattice(torch.randn(13, 3))
    x = torch.randn(13, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: Filtered.apply(values, lattice), (x,))


def test_points_that_no_lattice_holds() -> None:
    with pytest.raises(DataError, match="a feature is not finite"):
        Lattice(torch.tensor([[0.0, math.nan]]))
    with pytest.raises(DataError, match="lie too far apart"):
        Lattice(torch.tensor([[0.0] * 5, [1e6] * 5]))


OPTIONS = "num_iterations: 3 theta_alpha: 4 theta_beta: 30 theta_gamma: 2"


def make(options: str = OPTIONS, shape: tuple[int, ...] = (2, 3, 5, 6), dtype: torch.dtype = torch.float64):
    text = f'name: "crf" type: "MultiStageMeanfield" multi_stage_meanfield_param {{ {options} }}'
    return gl.build(text, shape, shape, (shape[0], 3, *shape[2:]), dtype=dtype)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spatial.par").write_text("3 2 1 9 9")
    (tmp_path / "bilateral.par").write_text("5\n4\n2.5\n")
    return tmp_path


def test_the_steps_of_the_mean_field(folder: Path) -> None:
    """meanfield_iteration.cpp: softmax, both filters over what they make of ones, weights, compatibility, unary less that."""
    layer = make()
    rng = np.random.default_rng(1)
    unary, begin = rng.standard_normal((2, 2, 3, 5, 6))
    image = rng.uniform(-100, 100, (2, 3, 5, 6)).astype(np.float32)
    layer.set_blob(2, torch.from_numpy(rng.standard_normal((1, 1, 3, 3))))
    top = layer(*map(torch.from_numpy, (unary, begin, image)))
    rows, columns = np.mgrid[:5, :6].astype(np.float32)
    for n in range(2):
        place = np.stack([columns.ravel(), rows.ravel()], 1)
        near = place / np.float32(2)
        alike = np.concatenate([place / np.float32(4), image[n].reshape(3, -1).T / np.float32(30)], 1)
        scores = begin[n].reshape(3, -1)
        for _ in range(3):
            share = (np.exp(scores) / np.exp(scores).sum(0)).T
            sums = [filtered(f, share, False) / filtered(f, np.ones((30, 1)), False) for f in (near, alike)]
            message = np.diag([3, 2, 1]) @ sums[0].T + np.diag([5, 4, 2.5]) @ sums[1].T
            scores = unary[n].reshape(3, -1) - layer.blob(2).detach().numpy()[0, 0] @ message
        np.testing.assert_allclose(top[n].detach().reshape(3, -1), scores, rtol=1e-4, atol=1e-4)


def test_the_gradients_of_scores_and_blobs(folder: Path) -> None:
    layer = make("num_iterations: 2 theta_alpha: 4 theta_beta: 30 theta_gamma: 2", (1, 2, 2, 2))
    scores = [torch.randn(1, 2, 2, 2, dtype=torch.float64) for _ in range(2)]
    image = (torch.randn(1, 3, 2, 2) * 50).long()  # not a floating-point bottom, so no gradient is asked of it
    gl.check_gradients(layer, *scores, image)


def test_a_net_of_the_old_form_needs_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"""input: "u" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
        input: "data" input_dim: 1 input_dim: 3 input_dim: 4 input_dim: 4
        layers {{ name: "s" type: SPLIT bottom: "u" top: "unary" top: "q" }}
        layers {{ name: "crf" type: MULTI_STAGE_MEANFIELD bottom: "unary" bottom: "q" bottom: "data" top: "pred"
            blobs_lr: 10000 blobs_lr: 10000 blobs_lr: 1000
            multi_stage_meanfield_param {{ {OPTIONS} compatibility_mode: POTTS threshold: 2 spatial_filter_weight: 3 }} }}"""
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TEST")
    blobs = [blob.detach()[0, 0] for blob in net.layers["crf"].blobs]
    assert [torch.equal(blob, weight * torch.eye(3)) for blob, weight in zip(blobs, (3, 1, -1), strict=True)] == [
        True
    ] * 3
    u = torch.randn(1, 3, 4, 4)
    pred = net(u=u, data=torch.zeros(1, 3, 4, 4))["pred"]
    assert pred.shape == u.shape and (pred > u).all()  # the Potts model favours what the neighbours are


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        (
            "num_iterations: 1 theta_alpha: 1 theta_beta: 1 theta_gamma: 1",
            (1, 3, 4, 4),
            "num_iterations: 1 must be at least 2",
        ),
        (
            "num_iterations: 2 theta_alpha: 1 theta_beta: 0 theta_gamma: 1",
            (1, 3, 4, 4),
            "theta_beta: 0 .* must be above 0",
        ),
        (OPTIONS, (1, 3, 4), "needs scores"),
        (OPTIONS, (1, 6, 4, 4), "spatial.par in the working folder must hold a number for each of the 6 classes"),
    ],
)
def test_faults_are_named(folder: Path, options: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        make(options, shape)


def test_an_image_that_is_not_finite_is_named(folder: Path) -> None:
    layer = make()
    image = torch.zeros(2, 3, 5, 6)
    image[1, 0, 2, 2] = math.inf
    with pytest.raises(LayerError, match=r'layer "crf" \(MultiStageMeanfield\): a feature is not finite'):
        layer(torch.zeros(2, 3, 5, 6), torch.zeros(2, 3, 5, 6), image)


CRF = """type: "DenseCRF" dense_crf_param { max_iter: 3 pos_xy_std: 2 pos_w: 3 bi_xy_std: 4 bi_rgb_std: 30 bi_w: 4
    bi_xy_std: 9 bi_rgb_std: 60 bi_w: 1 output_probability: %s }"""


@pytest.mark.parametrize("logarithms", [False, True])
def test_deeplabs_dense_crf(logarithms: bool) -> None:
    """densecrf_layer.cpp: the scores plus weighted and normalised filters of the probabilities, in the image's own size."""
    text = CRF % str(not logarithms).lower()
    layer = gl.build(text, (2, 3, 5, 6), (2, 1, 1, 2), (2, 3, 5, 6))
    rng = np.random.default_rng(1)
    scores, image = rng.standard_normal((2, 3, 5, 6)) * 4, rng.uniform(-100, 100, (2, 3, 5, 6)).astype(np.float32)
    scores[0, 2, 0, 0] = -99
    sizes = torch.tensor([[9.0, 9.0], [4.0, 5.0]]).reshape(2, 1, 1, 2)  # the second has a row and a column of padding
    top = layer(torch.from_numpy(scores), sizes, torch.from_numpy(image)).numpy()
    for n, (height, width) in enumerate([(5, 6), (4, 5)]):
        rows, columns = np.mgrid[:height, :width].astype(np.float32)
        place = np.stack([columns.ravel(), rows.ravel()], 1)
        colour = image[n, :, :height, :width].reshape(3, -1).T
        features = [place / np.float32(2)]
        features += [np.concatenate([place / np.float32(a), colour / np.float32(b)], 1) for a, b in ((4, 30), (9, 60))]
        own = scores[n, :, :height, :width].reshape(3, -1).T
        ones = np.ones((len(own), 1))
        norms = [filtered(f, ones, False) for f in features]

        def shares(values: np.ndarray) -> np.ndarray:
            below = values - values.max(1, keepdims=True)
            terms = np.where(below < -20, 0, np.exp(below))
            return terms / terms.sum(1, keepdims=True)

        share = shares(own)
        for _ in range(3):
            parts = zip((3, 4, 1), features, norms, strict=True)
            share = shares(own + sum(weight * filtered(f, share, False) / norm for weight, f, norm in parts))
        want = np.log(np.maximum(share, np.finfo(np.float32).tiny)) if logarithms else share
        np.testing.assert_allclose(top[n, :, :height, :width].reshape(3, -1).T, want, rtol=1e-4, atol=1e-4)
        assert not top[n, :, height:].any() and not top[n, :, :, width:].any()


@pytest.mark.parametrize(
    ("options", "shapes", "words"),
    [
        ("pos_w: 1", [(1, 3, 4, 4), (1, 1, 1, 2)], "pos_xy_std, pos_w must be given equally often"),
        ("pos_w: 1 pos_xy_std: 0", [(1, 3, 4, 4), (1, 1, 1, 2)], "pos_xy_std must be above 0"),
        ("", [(1, 3, 4, 4), (1, 1, 1, 2), (1, 3, 4, 4)], "needs both images"),
        ("bi_w: 1 bi_xy_std: 1 bi_rgb_std: 1", [(1, 3, 4, 4), (1, 1, 1, 2)], "needs both images"),
        ("", [(1, 3, 4, 4), (1, 2)], "needs scores"),
    ],
)
def test_faults_of_dense_crf_are_named(options: str, shapes: list[tuple[int, ...]], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        gl.build(f'type: "DenseCRF" dense_crf_param {{ {options} }}', *shapes)


def test_an_image_of_no_size_is_named():
    layer = gl.build('name: "crf" ' + CRF % "true", (2, 3, 5, 6), (2, 1, 1, 2), (2, 3, 5, 6))
    sizes = torch.tensor([[5.0, 6.0], [0.0, 6.0]]).reshape(2, 1, 1, 2)
    with pytest.raises(LayerError, match=r'layer "crf" \(DenseCRF\): the size of image 1 is 0 × 6'):
        layer(torch.zeros(2, 3, 5, 6), sizes, torch.zeros(2, 3, 5, 6))
