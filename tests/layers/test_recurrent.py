"""RNN, LSTM, LSTMUnit: Caffe's numbers, the state from pass to pass, exposed states, gradients, bad bottoms."""

import copy

import golden_layer as gl
import pytest
import torch
from google.protobuf import text_format

from pycaffe_compat.errors import LayerError
from pycaffe_compat.net import CaffeModule
from pycaffe_compat.proto import caffe_pb2

FILLERS = 'weight_filler { type: "uniform" min: -1 max: 1 } bias_filler { type: "uniform" min: -1 max: 1 }'
T, N, D, IN, STATIC = 4, 3, 2, 5, 6


@pytest.mark.parametrize("name", gl.names("lstm", "rnn"))
def test_golden(name):
    gl.check(name)


def build(type_, *shapes, options="", **keywords):
    tops = "".join(f'top: "t{i}" ' for i in range({"RNN": 2, "LSTM": 3}[type_] if "expose" in options else 1))
    return gl.build(
        f'type: "{type_}" {tops} recurrent_param {{ num_output: {D} {FILLERS} {options} }}', *shapes, **keywords
    )


def inputs(dtype=torch.float32):
    cont = torch.tensor([[0, 1, 1], [1, 0, 1], [1, 1, 1], [1, 1, 0]], dtype=dtype)
    return torch.randn(T, N, IN, dtype=dtype), cont, torch.randn(N, STATIC, dtype=dtype)


@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_blobs(type_):
    torch.manual_seed(0)
    layer = build(type_, (T, N, 1, IN), (T, N), (N, 2, 3))
    names = {"RNN": "W_xh b_h W_xh_static W_hh W_ho b_o", "LSTM": "W_xc b_c W_xc_static W_hc"}
    assert [spec.name for spec in layer.blob_specs] == names[type_].split()
    assert layer(torch.zeros(T, N, 1, IN), torch.ones(T, N), torch.zeros(N, 2, 3))[0].shape == (T, N, D)


@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_state_goes_on_from_pass_to_pass(type_):
    """Two passes over halves of a sequence are one pass over the whole, but for gradients across the cut."""
    torch.manual_seed(0)
    x, cont, _ = inputs()
    whole, halves = build(type_, x.shape, cont.shape), build(type_, (2, N, IN), (2, N))
    for i in range(len(whole.blobs)):
        halves.set_blob(i, whole.blob(i))
    (want,) = whole(x, cont)
    first, second = halves(x[:2], cont[:2])[0], halves(x[2:], cont[2:])[0]
    torch.testing.assert_close(torch.cat([first, second]), want)
    second.sum().backward()  # does not reach into the first pass, nor is it disturbed by the state it left
    assert torch.isfinite(whole.blob(0).grad).all()
    halves.reset()
    torch.testing.assert_close(halves(x[:2], cont[:2])[0], first)


@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_cont_cuts_sequences(type_):
    torch.manual_seed(0)
    x, cont, _ = inputs()
    layer = build(type_, x.shape, cont.shape)
    layer(torch.randn_like(x), torch.ones_like(cont))  # something to forget
    (whole,) = layer(x, torch.zeros_like(cont))
    for t in range(T):
        torch.testing.assert_close(layer(x[t : t + 1], torch.zeros(1, N))[0], whole[t : t + 1])


def test_another_batch_size_begins_anew():
    torch.manual_seed(0)
    x, cont, _ = inputs()
    layer = build("LSTM", x.shape, cont.shape)
    (first,) = layer(x, torch.ones_like(cont))
    layer(torch.cat([x, x], 1), torch.cat([cont, cont], 1))
    torch.testing.assert_close(layer(x, torch.ones_like(cont))[0], first)


def test_state_survives_inference_mode_and_other_types():
    torch.manual_seed(0)
    x, cont, _ = inputs()
    layer = build("RNN", x.shape, cont.shape)
    with torch.inference_mode():
        layer(x, cont)
    kept = layer.carried[0].clone()
    layer(x, torch.ones_like(cont))[0].sum().backward()
    layer.carried = [kept.clone()]
    (want,) = layer(x, torch.ones_like(cont))
    layer.carried = [kept.clone()]
    torch.testing.assert_close(layer.double()(x.double(), torch.ones_like(cont))[0].float(), want)
    assert "carried" not in layer.state_dict()


@pytest.mark.parametrize("type_, states", [("RNN", 1), ("LSTM", 2)])
@pytest.mark.parametrize("static", [False, True])
def test_exposed_state(type_, states, static):
    """The state is given and handed back, and nothing is carried over; no gradient flows through it."""
    torch.manual_seed(0)
    x, cont, s = inputs()
    cont = torch.ones_like(cont)
    extra = (s,) if static else ()
    shapes = [b.shape for b in (x, cont, *extra)]
    plain = build(type_, *shapes)
    exposed = build(type_, *shapes, *[(1, N, D)] * states, options="expose_hidden: true debug_info: true")
    for i in range(len(plain.blobs)):
        exposed.set_blob(i, plain.blob(i))
    state = [torch.zeros(1, N, D, requires_grad=True) for _ in range(states)]
    for _ in range(2):
        (want,) = plain(x, cont, *extra)
        y, *state = exposed(x, cont, *extra, *state)
        torch.testing.assert_close(y, want)
        assert [tuple(h.shape) for h in state] == [(1, N, D)] * states and not any(h.requires_grad for h in state)
    assert not exposed.carried
    assert exposed.differentiable == (True, False) + (True,) * static + (False,) * states


@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_gradients(type_):
    torch.manual_seed(0)
    x, cont, s = inputs(torch.float64)
    cont[0] = 0  # so that passes do not depend on each other
    layer = build(type_, x.shape, cont.shape, s.shape, dtype=torch.float64)

    def run(x, s, *blobs):
        for i, blob in enumerate(blobs):
            layer._parameters[layer.blob_specs[i].name] = blob
        return layer(x, cont, s)[0]

    leaves = [x.requires_grad_(), s.requires_grad_(), *(b.detach().clone().requires_grad_() for b in layer.blobs)]
    assert torch.autograd.gradcheck(run, leaves)


def test_unit_gradients():
    torch.manual_seed(0)
    shapes = (1, N, D), (1, N, 4 * D), (1, N)
    layer = gl.build('type: "LSTMUnit"', *shapes)
    assert gl.meta_shapes(layer, shapes) == [(1, N, D), (1, N, D)]
    cont = torch.tensor([[0.0, 1, 1]], dtype=torch.float64)
    c, gates = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes[:2])
    assert torch.autograd.gradcheck(lambda c, g: layer(c, g, cont), (c, gates))


def test_the_forget_gate_of_a_fraction_of_a_sequence_has_caffes_slope():
    """It is that of the sigmoid where the sigmoid is what the gate lets through, ``cont`` included."""
    layer = gl.build('type: "LSTMUnit"', (1, 3, 1), (1, 3, 4), (1, 3))
    c, gates = torch.full((1, 3, 1), 2.0), torch.zeros(1, 3, 4).requires_grad_()
    top, _ = layer(c, gates, torch.tensor([[0, 0.5, 1]]))
    assert top.flatten().tolist() == [0, 0.5, 1]  # cont * sigmoid(0) * 2
    top.sum().backward()
    assert gates.grad[0, :, 1].tolist() == [0, 2 * 0.25 * 0.75, 2 * 0.5 * 0.5]


@pytest.mark.parametrize(
    "type_, options, shapes, message",
    [
        ("LSTM", "", [(T, N, IN)], "1 bottom blob, but takes 2 to 5"),
        ("LSTM", "", [(T, N, IN), (T, N), (N, 1), (1, N, D)], "4 bottom blobs, but takes 2 to 3"),
        ("LSTM", "expose_hidden: true", [(T, N, IN), (T, N), (1, N, D)], "3 bottom blobs, but takes 4 to 5"),
        ("LSTM", "", [(T,), (T, N)], "T×N×…"),
        ("RNN", "", [(0, N, IN), (0, N)], "T at least 1"),
        ("RNN", "", [(T, N, IN), (N, T)], r"cont must be T×N, 4×3 here, but has shape 3×4"),
        ("RNN", "", [(T, N, IN), (T, N), (N + 1, 2)], "static input must be N×…, N being 3"),
        ("RNN", "expose_hidden: true", [(T, N, IN), (T, N), (N, D)], r"h_0 must have shape 1×3×2"),
    ],
)
def test_bad_bottoms(type_, options, shapes, message):
    with pytest.raises(LayerError, match=message):
        gl.meta_shapes(build(type_, *shapes, options=options), shapes)


def test_bad_options():
    with pytest.raises(LayerError, match="num_output"):
        gl.build('type: "RNN"', (T, N, IN), (T, N))
    with pytest.raises(LayerError, match="2 top blobs, but takes exactly 1"):
        gl.build('type: "RNN" top: "a" top: "b" recurrent_param { num_output: 2 }', (T, N, IN), (T, N))
    with pytest.raises(LayerError, match="takes bottoms of shapes 1×N×D, 1×N×4D and 1×N"):
        gl.meta_shapes(gl.build('type: "LSTMUnit"', (1, 3, 2), (1, 3, 2), (1, 3)), [(1, 3, 2), (1, 3, 2), (1, 3)])


@pytest.mark.parametrize("ran", [False, True])
@pytest.mark.parametrize("type_", ["RNN", "LSTM"])
def test_an_exported_net_carries_its_state(type_, ran):
    """Whether it ran before or not, and after decompositions: each call begins where the last one ended."""
    text = (
        f'layer {{ name: "i" type: "Input" top: "x" top: "cont" input_param {{ shape {{ dim: {T} dim: {N} dim: {IN} }} '
        f"shape {{ dim: {T} dim: {N} }} }} }}"
        f'layer {{ name: "r" type: "{type_}" bottom: "x" bottom: "cont" top: "h" '
        f"recurrent_param {{ num_output: {D} {FILLERS} }} }}"
    )
    net = CaffeModule(text_format.Parse(text, caffe_pb2.NetParameter()), "TEST")
    x, _, _ = inputs()
    batch = {"x": x, "cont": torch.ones(T, N)}
    with torch.no_grad():
        if ran:
            net(**batch)
        for decompose in (False, True):
            exported, expected = copy.deepcopy(net), copy.deepcopy(net)
            program = torch.export.export(exported, (), kwargs=batch)
            module = (program.run_decompositions() if decompose else program).module()
            for _ in range(3):
                torch.testing.assert_close(module(**batch)["h"], expected(**batch)["h"])


def test_a_reshaped_net_exports_its_new_batch_size():
    text = (
        'layer { name: "i" type: "Input" top: "x" top: "cont" input_param { '
        "shape { dim: 2 dim: 1 dim: 3 } shape { dim: 2 dim: 1 } } }"
        f'layer {{ name: "r" type: "LSTM" bottom: "x" bottom: "cont" top: "h" recurrent_param {{ num_output: {D} }} }}'
    )
    net = CaffeModule(text_format.Parse(text, caffe_pb2.NetParameter()), "TEST")
    net.reshape({"x": (2, 5, 3), "cont": (2, 5)})
    assert [tuple(h.shape) for h in net.layers["r"].carried] == [(5, D)] * 2
    assert net._ddp_params_and_buffers_to_ignore == ["r.carried_h", "r.carried_c"]
    state = net.layers["r"].state()
    net(x=torch.rand(2, 5, 3), cont=torch.ones(2, 5))
    net.layers["r"].seek(state)
    assert all(not h.any() for h in net.layers["r"].carried)
