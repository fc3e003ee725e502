"""ConvLSTM against the net that the fork unrolls it to (conv_lstm_layer.cpp), step by step, and its gradients."""

from __future__ import annotations

import golden_layer as gl
import pytest
import torch
import torch.nn.functional as F

from pycaffe_compat.errors import LayerError

T, N, C, H, W, OUT = 3, 2, 2, 4, 3, 2
F64 = torch.float64
KEEP = torch.tensor([[0, 1], [1, 1], [0, 1]], dtype=F64)


def build(options: str = "", conv: str = "kernel_size: 3 pad: 1", bottoms=(), tops: int = 1, conv_again: str = ""):
    filler = 'weight_filler { type: "uniform" min: -0.5 max: 0.5 } bias_filler { type: "uniform" min: -0.5 max: 0.5 }'
    convs = "".join(f"lstm_conv_param {{ num_output: {OUT} {each} {filler} }} " for each in (conv, conv_again) if each)
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    torch.manual_seed(1)
    layer = gl.build(
        f'name: "l" type: "ConvLSTM" {names} {convs} {options}', (T, N, C, H, W), (T, N), *bottoms, dtype=F64
    )
    for name in ("w_ci", "w_cf", "w_co"):
        if hasattr(layer, name):
            getattr(layer, name).data.uniform_(-1, 1)
    return layer


def unrolled(layer, x, cont, h, c, cell=True, hidden=(1, 1), given=(1, 1), weight_of=None):
    """The fork's net: Convolution, Scale, Concat, Eltwise and ConvLSTMUnit for each step."""
    outputs, cells = [], []
    view = weight_of or (lambda weight: weight)
    for t in range(T):
        keep = cont[t].view(N, 1, 1, 1)
        gates = F.conv2d(h * keep, layer.W_hc, layer.b_c, 1, *hidden)
        if x is not None:
            gates = gates + F.conv2d(x[t], layer.W_xc, None, 1, *given)
        if cell:
            seen = [c * view(w) for w in (layer.w_ci, layer.w_cf, layer.w_co)]
            gates = gates + torch.cat([*seen, torch.zeros_like(c)], 1)
        i, f, o, g = gates.split(OUT, 1)
        c = keep * torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
        cells.append(c)
    return torch.stack(outputs), torch.stack(cells)


def inputs():
    torch.manual_seed(2)
    return torch.randn(T, N, C, H, W, dtype=F64)


def test_it_is_the_net_of_the_fork_and_carries_its_state() -> None:
    layer, x = build(), inputs()
    layer.prepare([x.shape], x.device)
    zero = torch.zeros(N, OUT, H, W, dtype=F64)
    want, cells = unrolled(layer, x, KEEP, zero, zero)
    torch.testing.assert_close(layer(x, KEEP)[0], want)
    want, _ = unrolled(layer, x, KEEP, want[-1], cells[-1])
    torch.testing.assert_close(layer(x, KEEP)[0], want)
    names = [spec.name for spec in layer.blob_specs]
    assert names == [
        *("W_xc", "forward_c_0", "forward_h_0", "W_hc", "b_c", "w_ci", "w_cf", "w_co", "forward_h_T", "forward_c_T")
    ]
    assert layer.W_xc.shape == (4 * OUT, C, 3, 3) and layer.w_co.shape == (H, W)
    assert all(getattr(build(), name).shape == (1,) for name in names if name.startswith("forward"))


def test_exposed_states_pass_gradients() -> None:
    state = [(1, N, OUT, H, W)] * 2
    layer = build("recurrent_param { expose_hidden: true }", bottoms=state, tops=3)
    x, (h, c) = inputs(), torch.randn(2, 1, N, OUT, H, W, dtype=F64)
    outputs, last_h, last_c = layer(x, KEEP, h, c)
    want, cells = unrolled(layer, x, KEEP, h[0], c[0])
    for have, other in ((outputs, want), (last_h[0], want[-1]), (last_c[0], cells[-1])):
        torch.testing.assert_close(have, other)
    gl.check_gradients(layer, x, KEEP.bool(), h, c)  # cont is no float here: no gradient is asked for
    small = build("lstm_debug_param { expose: 'c_t=2' }", tops=2)
    small.prepare([x.shape], x.device)
    zero = torch.zeros(N, OUT, H, W, dtype=F64)
    torch.testing.assert_close(small(x.detach(), KEEP)[1][0], unrolled(small, x.detach(), KEEP, zero, zero)[1][1])


def test_options_leave_parts_out() -> None:
    x, zero = inputs(), torch.zeros(N, OUT, H, W, dtype=F64)
    layer = build("lstm_debug_param { ignore_x: true disable_hadamard: true }")
    assert [spec.name for spec in layer.blob_specs][2:4] == ["W_hc", "b_c"]
    torch.testing.assert_close(layer(x, KEEP)[0], unrolled(layer, None, KEEP, zero, zero, cell=False)[0])
    layer = build("lstm_debug_param { axis_hadamard: 2 num_axes_hadamard: 1 }")
    assert layer.w_ci.shape == (OUT,)
    want = unrolled(layer, x, KEEP, zero, zero, weight_of=lambda weight: weight.view(-1, 1, 1))[0]
    torch.testing.assert_close(layer(x, KEEP)[0], want)
    layer = build("", 'type: "hidden" kernel_size: 1', conv_again='type: "input" kernel_size: 3 pad: 2 dilation: 2')
    assert layer.W_hc.shape == (4 * OUT, OUT, 1, 1)
    torch.testing.assert_close(layer(x, KEEP)[0], unrolled(layer, x, KEEP, zero, zero, hidden=(0, 1), given=(2, 2))[0])
    static = torch.randn(1, N, 1, H, W, dtype=F64)
    layer = build("lstm_debug_param { disable_hadamard: true }", bottoms=[static.shape])
    added = F.conv2d(static[0], layer.W_xc_static, None, 1, 1)
    plain = build("lstm_debug_param { disable_hadamard: true ignore_x: true }")
    for name in ("W_hc", "b_c"):
        getattr(plain, name).data.copy_(getattr(layer, name))
    layer.W_xc.data.zero_()
    plain.b_c.data.zero_()
    layer.b_c.data.zero_()
    first = layer(x, KEEP, static)[0][0]
    i, _, o, g = added.split(OUT, 1)
    torch.testing.assert_close(first, torch.sigmoid(o) * torch.tanh(torch.sigmoid(i) * torch.tanh(g)))


@pytest.mark.parametrize(
    ("options", "conv", "words"),
    [
        ("", "kernel_size: 3", "must keep the size 4×3"),
        ("", "kernel_size: 3 pad: 1 kernel_h: 2", "kernel_h does nothing"),
        ("", "pad: 1", "kernel_size has 0 values"),
        ("", 'kernel_size: 1 type: "hidden"', 'one lstm_conv_param of type: "hidden"'),
        ("", "kernel_size: 1 bias_term: false", "bias_term: false"),
        ("", "kernel_size: 1 group: 3", "group: 3 must divide"),
        ("lstm_debug_param { expose: 'x' }", "kernel_size: 1", '"x" is not shown'),
        ("lstm_debug_param { axis_hadamard: 4 }", "kernel_size: 1", "reach beyond"),
        ("recurrent_param { expose_hidden: true }", "kernel_size: 1", "takes 4 to 5"),
        ("", "", "has 0 lstm_conv_param"),
    ],
)
def test_what_cannot_be_is_an_error(options: str, conv: str, words: str) -> None:
    tops = 2 if "expose:" in options else 1
    with pytest.raises(LayerError, match=words):
        build(options, conv, tops=tops)
