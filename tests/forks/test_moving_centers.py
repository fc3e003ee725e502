"""CenterLoss whose centers move in the forward pass (hsmyy/CenterLoss_Caffe_Mnist), against its center_loss_layer.cpp."""

from __future__ import annotations

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

N, C, K = 5, 3, 4
OPTIONS = "loss_weight: 0.25 alpha: 0.75"


@pytest.mark.parametrize("phase", [0, 1])
def test_moving_centers(phase: int) -> None:
    layer = gl.build(
        f'name: "c" type: "CenterLoss" center_loss_param {{ {OPTIONS} cluster_num: {K} }}', (N, C), (N,), phase=phase
    )
    assert layer.fork == "center_loss_mnist"
    centers, rng = np.zeros((K, C)), np.random.default_rng(1)
    for _ in range(3):
        x, labels = rng.standard_normal((N, C)), rng.integers(0, K - 1, N)
        apart = x - centers[labels]
        bottom = torch.from_numpy(x).float().requires_grad_()
        loss = layer(bottom, torch.from_numpy(labels).float())
        assert loss.item() == pytest.approx(0.25 / 2 / N * (apart**2).sum(), rel=1e-5)
        (5 * loss).backward()
        np.testing.assert_allclose(bottom.grad, 0.25 * apart, rtol=1e-5, atol=1e-6)
        for k in range(K):
            of = labels == k
            centers[k] += 0.75 * 0.25 * apart[of].sum(0) / (of.sum() + 1)
        np.testing.assert_allclose(layer.centers, centers, rtol=1e-5, atol=1e-6)


def test_the_net_counts_the_loss_once_more() -> None:
    text = f"""layer {{ name: "in" type: "Input" top: "x" top: "y" input_param {{
                 shape {{ dim: {N} dim: {C} }} shape {{ dim: {N} }} }} }}
               layer {{ name: "c" type: "CenterLoss" bottom: "x" bottom: "y" top: "c"
                 center_loss_param {{ cluster_num: {K} }} }}"""
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TRAIN")
    assert net.loss_weights["c"] == 1
    assert net(x=torch.ones(N, C), y=torch.zeros(N))["c"].item() == pytest.approx(0.003 / 2 * C)


def test_what_it_needs() -> None:
    with pytest.raises(LayerError, match="cluster_num must be given"):
        gl.build('name: "c" type: "CenterLoss" center_loss_param { alpha: 1 }', (N, C), (N,))
    with pytest.raises(LayerError, match="takes features of shape num×channels, not 5×3×2×2"):
        gl.build(f'name: "c" type: "CenterLoss" center_loss_param {{ cluster_num: {K} }}', (N, C, 2, 2), (N,))
