"""SoftmaxWithNoisyLabelLoss and the filler that its matrix comes from."""

from __future__ import annotations

from pathlib import Path

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import CaffeError, LayerError
from pycaffe_compat.layers import Layer
from pycaffe_compat.proto.blob_proto import array_to_blob

M, N = 4, 5
LABELS = np.array([2, -1, 0, 4], dtype=float)


def build(options: str = "", y: tuple[int, ...] = (M, N), z: tuple[int, ...] = (M, 3), tops: int = 1) -> Layer:
    named = " ".join(f'top: "t{i}"' for i in range(tops))
    text = f'name: "l" type: "SoftmaxWithNoisyLabelLoss" {named} softmax_noisy_label_loss_param {{ {options} }}'
    return gl.build(text, y, z, (y[0],), dtype=torch.float64)


def matrix_file(folder: Path, matrix: np.ndarray) -> str:
    path = folder / "matrix_c.binaryproto"
    path.write_bytes(array_to_blob(matrix).SerializeToString())
    return f'matrix_c_filler {{ type: "blob_proto" source: "{path}" }}'


@pytest.mark.parametrize("impossible", [False, True])
def test_noisy_labels(tmp_path: Path, impossible: bool) -> None:
    """Forward_cpu and Backward_cpu of softmax_noisy_label_loss_layer.cpp, as loops."""
    rng = np.random.default_rng(0)
    c, y, z = rng.random((1, 1, N, N)).astype(np.float32), rng.standard_normal((M, N)), rng.standard_normal((M, 3))
    if impossible:  # label 0 has probability 0: its item is left out like one without a label
        c[0, 0, 0], y[2, 0], z[2, 1] = 0, -2000, -2000
    layer = build(f"update_noise_lr: 0.3 {matrix_file(tmp_path, c)}", tops=4)
    a, b = (torch.tensor(each, requires_grad=True) for each in (y, z))
    loss, of_y, of_z, posterior = layer(a, b, torch.tensor(LABELS))
    loss.backward()
    py, pz = (np.exp(each - each.max(1, keepdims=True)) for each in (y, z))
    py, pz = (each / each.sum(1, keepdims=True) for each in (py, pz))
    total, q, dy, dz = 0.0, np.zeros((M, N, 3)), np.zeros((M, N)), np.zeros((M, 3))
    for i in range(M):
        if LABELS[i] == -1:
            continue
        label = int(LABELS[i])
        for k in range(N):
            of_label = (k == label, (k != label) / (N - 1), c[0, 0, label, k])
            q[i, k] = py[i, k] * pz[i] * np.array(of_label)
        whole = q[i].sum()
        if whole > 0:
            total -= (q[i] * np.log(np.maximum(q[i], np.finfo(np.float32).tiny))).sum() / whole
            q[i] /= whole
            dy[i], dz[i] = (py[i] - q[i].sum(1)) / M, 0.3 * (pz[i] - q[i].sum(0)) / M
    assert (q[2].sum() == 0) == impossible
    np.testing.assert_allclose(loss.item(), total / M)
    for have, want in ((a.grad, dy), (b.grad, dz), (of_y, py), (of_z, pz), (posterior, q[..., None])):
        assert have is not None
        np.testing.assert_allclose(have.detach().numpy(), want, atol=1e-12)


def test_wrong_bottoms_and_labels() -> None:
    with pytest.raises(LayerError, match=r"scores \(M, 3\) of the kinds of noise, not 4×5 and 4×2"):
        build(z=(M, 2))
    with pytest.raises(LayerError, match="label 5 at index 1 is not a class"):
        build()(torch.zeros(M, N), torch.zeros(M, 3), torch.tensor([0.0, 5, 1, 1]))


def test_the_filler_needs_a_blob_of_the_shape(tmp_path: Path) -> None:
    with pytest.raises(CaffeError, match=r'filler "blob_proto".*3×3.*1×1×5×5'):
        build(matrix_file(tmp_path, np.zeros((3, 3), np.float32)))
    with pytest.raises(CaffeError, match='filler "blob_proto" needs source'):
        build('matrix_c_filler { type: "blob_proto" }')
    with pytest.raises(CaffeError, match="nowhere"):
        build('matrix_c_filler { type: "blob_proto" source: "nowhere" }')
