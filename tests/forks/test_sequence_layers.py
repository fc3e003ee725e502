"""CTPN's layers of sequences: Lstm, Transpose, Reverse."""

from __future__ import annotations

import golden_layer as gl
import numpy as np
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

T, N, I, H = 4, 3, 2, 5  # noqa: E741


def lstm(options: str, *shapes: tuple[int, ...]) -> Layer:
    size = "" if "num_output" in options else f"num_output: {H}"
    layer = gl.build(f'name: "l" type: "Lstm" lstm_param {{ {size} {options} }}', *shapes, dtype=torch.float64)
    rng = np.random.default_rng(7)
    for blob in layer.blobs:
        blob.data.copy_(torch.from_numpy(rng.standard_normal(tuple(blob.shape))))
    if len(shapes) > 1:
        layer.prepare(shapes, torch.device("cpu"))
        layer.carried = [h.double() for h in layer.carried]
    return layer


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def reference(layer: Layer, x: np.ndarray, cont: np.ndarray, h: np.ndarray, c: np.ndarray, dy: np.ndarray, clip: float):
    """Forward_cpu and Backward_cpu of lstm_layer.cpp: the top, the last state, and the gradients of x and the blobs."""
    w_x, w_h, b = (blob.detach().numpy() for blob in layer.blobs)
    pre = x @ w_x.T + b
    h0, c0, gates, cells, tops = h, c, [], [], []
    for t in range(T):
        k = cont[t][:, None]
        now = pre[t] + k * (h @ w_h.T)
        i, f, o = sigmoid(now[:, :H]), k * sigmoid(now[:, H : 2 * H]), sigmoid(now[:, 2 * H : 3 * H])
        g = np.tanh(now[:, 3 * H :])
        c = f * c + i * g
        h = o * np.tanh(c)
        gates.append((i, f, o, g))
        cells.append(c)
        tops.append(h)
    dh_all, dpre = dy.copy(), np.zeros((T, N, 4 * H))
    dc = np.zeros((N, H))
    for t in reversed(range(T)):
        k = cont[t][:, None]
        i, f, o, g = gates[t]
        tanh_c = np.tanh(cells[t])
        dc = dc + dh_all[t] * o * (1 - tanh_c**2)
        before = cells[t - 1] if t else c0
        d = np.concatenate(
            [
                dc * g * i * (1 - i),
                k * dc * before * f * (1 - f),
                dh_all[t] * tanh_c * o * (1 - o),
                dc * i * (1 - g**2),
            ],
            1,
        )
        dpre[t] = np.clip(d, -clip, clip) if clip else d
        dc = k * dc * f
        if t:
            dh_all[t - 1] += k * (dpre[t] @ w_h)
    dw_h = sum(dpre[t].T @ tops[t - 1] for t in range(1, T)) + np.outer(dpre[0][0], h0[0])
    flat = dpre.reshape(-1, 4 * H)
    return np.stack(tops), h, c, dpre @ w_x, [flat.T @ x.reshape(-1, I), dw_h, flat.sum(0)]


@pytest.mark.parametrize("clip", [0, 0.0625])
@pytest.mark.parametrize("rows", [False, True])
@pytest.mark.parametrize("continued", [False, True])
def test_lstm(rows: bool, continued: bool, clip: float) -> None:
    options = f"clipping_threshold: {clip} {f'batch_size: {N}' if rows else ''}"
    shape = (T * N, I) if rows else (T, N, I)
    layer = lstm(options, shape, *(((T, N),) if continued else ()))
    cont = np.ones((T, N)) if continued else np.ones((T, N)) * (np.arange(T) > 0)[:, None]
    if continued:
        cont[2, 1] = cont[0, 0] = 0
    h, c = np.zeros((N, H)), np.zeros((N, H))
    for run in range(2):
        x, dy = numbers(T, N, I, seed=run), numbers(T, N, H, seed=5 + run)
        if not continued:
            h, c = np.zeros((N, H)), np.zeros((N, H))
        y, h, c, dx, blobs = reference(layer, x, cont, h, c, dy, clip)
        bottom = torch.from_numpy(x).reshape(shape).requires_grad_()
        layer.zero_grad()
        top = layer(bottom, *((torch.from_numpy(cont),) if continued else ()))
        assert top.shape == ((T * N, H) if rows else (T, N, H))
        np.testing.assert_allclose(top.detach().reshape(T, N, H), y, rtol=1e-9)
        top.backward(torch.from_numpy(dy).reshape(top.shape))
        np.testing.assert_allclose(bottom.grad.reshape(T, N, I), dx, rtol=1e-7, atol=1e-12)
        for blob, want in zip(layer.blobs, blobs, strict=True):
            np.testing.assert_allclose(blob.grad, want, rtol=1e-7, atol=1e-12)


def test_lstm_has_its_gradients_where_nothing_is_cut() -> None:
    gl.check_gradients(lstm("", (T, N, I)), torch.from_numpy(numbers(T, N, I)))


def test_lstm_goes_on_in_a_net() -> None:
    text = f"""layer {{ name: "in" type: "Input" top: "x" top: "c" input_param {{
                 shape {{ dim: {T} dim: {N} dim: {I} }} shape {{ dim: {T} dim: {N} }} }} }}
               layer {{ name: "l" type: "Lstm" bottom: "x" bottom: "c" top: "y" lstm_param {{ num_output: {H}
                 weight_filler {{ type: "gaussian" std: 1 }} }} }}"""
    net = Net(parse_text(text, caffe_pb2.NetParameter), "TEST")
    x, c = torch.from_numpy(numbers(T, N, I)).float(), torch.ones(T, N)
    first, second = net(x=x, c=c)["y"].clone(), net(x=x, c=c)["y"]
    assert not torch.allclose(first, second)
    assert torch.equal(net(x=x, c=torch.zeros(T, N))["y"][0], first[0])
    assert len(net.layers["l"].state()["carried"]) == 2


def test_lstm_does_not_read_a_third_bottom() -> None:
    layer, same = (lstm("", (T, N, I), (T, N), *more) for more in ((), ((T, N, 9),)))
    x, c = torch.from_numpy(numbers(T, N, I)), torch.ones(T, N, dtype=torch.float64)
    assert torch.equal(layer(x, c), same(x, c, torch.full((T, N, 9), torch.nan)))


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        ("batch_size: 0", (6, 2), "lstm_param.batch_size: 0 must be at least 1"),
        ("num_output: 0", (4, 3, 2), "lstm_param.num_output must be given and positive"),
        ("", (6,), "its first bottom must be T×N×…, or"),
    ],
)
def test_lstm_refuses_what_cannot_be(options: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(LayerError, match=words):
        lstm(options, shape)
    with pytest.raises(LayerError, match=r"batch_size: 4 must divide the length of its first axis, 6"):
        lstm("batch_size: 4", (6, 2))(torch.zeros(6, 2, dtype=torch.float64))


def test_transpose_and_reverse() -> None:
    x = torch.from_numpy(numbers(2, 3, 4))
    turned = gl.build('name: "t" type: "Transpose" transpose_param { dim: 2 dim: 0 dim: 1 }', (2, 3, 4))
    assert torch.equal(turned(x), x.permute(2, 0, 1))
    for option, axis in (("", 0), ("reverse_param { axis: 1 }", 1)):
        assert torch.equal(gl.build(f'name: "r" type: "Reverse" {option}', (2, 3, 4))(x), x.flip(axis))
    with pytest.raises(LayerError, match=r"transpose_param\.dim: 1×0 must name each axis of 2×3×4 once"):
        gl.build('name: "t" type: "Transpose" transpose_param { dim: 1 dim: 0 }', (2, 3, 4))
