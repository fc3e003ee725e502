"""Input and DummyData: shapes, fillers, what is filled once and what anew, bad options."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import Source
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text


def net_of(text, **options):
    return Net(parse_text(text, caffe_pb2.NetParameter), "TEST", **options)


@pytest.mark.parametrize(
    "shapes, want",
    [
        ("shape { dim: 2 dim: 3 }", [(2, 3), (2, 3)]),
        ("shape { dim: 2 dim: 3 } shape { dim: 0 }", [(2, 3), (0,)]),
        ("shape { } shape { dim: 1 }", [(), (1,)]),
        ("", [(), ()]),
    ],
)
def test_input_shapes(shapes, want):
    layer = gl.build(f'type: "Input" top: "a" top: "b" input_param {{ {shapes} }}')
    assert isinstance(layer, Source) and layer.top_shapes() == want


def test_inputs_are_the_arguments_of_the_net():
    net = net_of(
        'layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 } } } '
        'layer { name: "s" type: "Eltwise" bottom: "a" bottom: "b" top: "y" }'
    )
    assert net.inputs == ["a", "b"] and not net.sources
    assert net(a=torch.ones(2), b=torch.ones(2))["y"].tolist() == [2, 2]
    with pytest.raises(LayerError, match=r'"in" .*its tops are given to the net: a, b'):
        net.layers["in"]()


@pytest.mark.parametrize(
    "prototxt, message",
    [
        ('"Input" top: "a" top: "b" top: "c" input_param { shape { dim: 1 } shape { dim: 2 } }', "2 times for 3 tops"),
        ('"Input" top: "a" input_param { shape { dim: 3 dim: -1 } }', "must not be negative"),
        ('"DummyData" top: "a"', "needs dummy_data_param { shape"),
        ('"DummyData" top: "a" dummy_data_param { shape { dim: -2 } }', "must not be negative"),
        ('"DummyData" top: "a" dummy_data_param { shape { dim: 2 } shape { dim: 2 } }', "2 times for 1 tops"),
        ('"DummyData" top: "a" dummy_data_param { shape { dim: 2 } num: 3 }', "both shape and the legacy"),
        ('"DummyData" top: "a" dummy_data_param { num: 3 channels: 2 height: 1 }', "width } is given 0 times"),
        (
            '"DummyData" top: "a" dummy_data_param { shape { dim: 2 } data_filler { } data_filler { } }',
            "data_filler } is given 2 times for 1 tops",
        ),
        (
            '"DummyData" top: "a" dummy_data_param { shape { dim: 2 } data_filler { type: "gausian" } }',
            'data_filler 0: unknown filler.* "gausian".*did you mean gaussian',
        ),
    ],
)
def test_bad_options(prototxt, message):
    with pytest.raises(LayerError, match=message):
        gl.build(f"type: {prototxt}")


def test_dummy_data_fills_constants_once_and_others_anew():
    net = net_of(
        'layer { name: "d" type: "DummyData" top: "a" top: "b" top: "c" dummy_data_param { '
        "shape { dim: 2 dim: 3 } shape { dim: 4 } shape { } "
        'data_filler { value: 5 } data_filler { type: "gaussian" } data_filler { type: "uniform" min: 3 max: 4 } } }'
    )
    assert list(net.sources) == ["d"] and net.blob_shapes == {"a": (2, 3), "b": (4,), "c": ()}
    torch.manual_seed(1)
    first, second = net(), net()
    assert torch.equal(first["a"], torch.full((2, 3), 5.0)) and first["a"].data_ptr() == second["a"].data_ptr()
    assert not torch.equal(first["b"], second["b"]) and 3 <= first["c"] <= 4
    torch.manual_seed(1)
    assert torch.equal(net()["b"], first["b"])


def test_dummy_data_without_filler_and_with_one_for_all():
    layer = gl.build('type: "DummyData" top: "a" top: "b" dummy_data_param { shape { dim: 2 } shape { dim: 3 } }')
    assert [t.tolist() for t in layer()] == [[0, 0], [0, 0, 0]]
    layer = gl.build(
        'type: "DummyData" top: "a" top: "b" dummy_data_param { shape { dim: 1000 } data_filler { type: "uniform" } }'
    )
    a, b = layer()
    assert a.shape == b.shape == (1000,) and not torch.equal(a, b) and 0.4 < a.mean() < 0.6


def test_dummy_data_legacy_shapes():
    layer = gl.build(
        'type: "DummyData" top: "a" top: "b" '
        "dummy_data_param { num: 2 num: 5 channels: 3 height: 1 height: 7 width: 4 }"
    )
    assert layer.top_shapes() == [(2, 3, 1, 4), (5, 3, 7, 4)] == [tuple(t.shape) for t in layer()]


def test_dummy_data_follows_the_net_to_another_type():
    net = net_of(
        'layer { name: "d" type: "DummyData" top: "a" '
        'dummy_data_param { shape { dim: 2 } data_filler { type: "uniform" } } }'
    )
    assert not net.state_dict()
    assert net.double()()["a"].dtype == torch.float64
