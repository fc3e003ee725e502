"""Which class runs a layer that several forks have, and what becomes of options that no layer supports."""

import logging
from pathlib import Path

import pytest
import torch

from pycaffe_compat.errors import LayerError, ParseError
from pycaffe_compat.forks import Fork, all_forks
from pycaffe_compat.layers import Layer, layer_class, register
from pycaffe_compat.layers.registry import REGISTRY, VARIANTS
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.proto.recognise import forks_of

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }'


@pytest.mark.parametrize("name", ["ssd", "textboxes", "faceboxes", "mscnn", "cascade_rcnn", "mnc"])
def test_the_name_of_a_fork_is_enough_for_all_of_its_types(name: str) -> None:
    types = next(fork for fork in all_forks() if fork.name == name).layer_types
    for type_name in types:
        param = caffe_pb2.LayerParameter(name="x", type=type_name, bottom=["a"] * (3 if name == "cascade_rcnn" else 2))
        assert layer_class(param, fork=name, likely=(name,)).type_name == type_name


@pytest.mark.parametrize("fork", all_forks(), ids=lambda fork: fork.name)
def test_the_named_fork_runs_its_layer_or_says_that_it_is_not_here(fork: Fork) -> None:
    for type_name in fork.layer_types & set(VARIANTS):
        if any(fork.name in cls.forks for cls in VARIANTS[type_name]) or not REGISTRY[type_name].forks:
            continue
        words = rf'\({fork.name}\), the fork that is named, has a layer "{type_name}" of its own, which is not implemented here'
        with pytest.raises(LayerError, match=words):
            layer_class(caffe_pb2.LayerParameter(name="x", type=type_name), fork=fork.name)


def test_a_named_fork_without_the_type_is_said_to_lack_it() -> None:
    param = caffe_pb2.LayerParameter(name="b", type="BN")
    with pytest.raises(LayerError, match=r"DANN\S* .*the fork that is named, has no such layer; several forks"):
        layer_class(param, fork="dann", likely=("dann",))


@pytest.fixture
def two_scalings():
    """A type that SegNet and PSPNet have: the one doubles, the other trebles."""
    before = dict(REGISTRY), dict(VARIANTS)

    @register("Scaling", fork="segnet")
    class Doubled(Layer):
        """Twice the bottom. Not thrice."""

        options = ("bn_param",)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

    @register("Scaling", fork=("pspnet", "tsn"))
    class Trebled(Layer):
        """Thrice the bottom."""

        options = ("bn_param",)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 3 * x

    yield Doubled, Trebled
    for now, then in zip((REGISTRY, VARIANTS), before, strict=True):
        now.clear()
        now.update(then)


def net_of(layers: str, fork: str = "") -> Net:
    return Net(parse_text(f"{INPUT}\n{layers}", caffe_pb2.NetParameter(fork=fork)), "TEST", file="net.prototxt")


def factor(layers: str, fork: str = "") -> float:
    return net_of(layers, fork)(x=torch.ones(2, 3, 4, 4))["y"].flatten()[0].item()


LAYER = 'layer {{ name: "s" type: "Scaling" bottom: "x" top: "y" {} }}'


def test_the_options_that_are_there_decide(two_scalings) -> None:
    assert factor(LAYER.format("bn_param { scale_filler { value: 1 } }")) == 2
    assert factor(LAYER.format("bn_param { slope_filler { value: 1 } frozen: true }")) == 3


def test_else_what_the_net_uses_besides_decides(two_scalings) -> None:
    aside = 'layer { name: "p" type: "Power" bottom: "x" top: "z" interp_param { zoom_factor: 2 } }'  # PSPNet's
    assert factor(LAYER.format("") + aside) == 3


def test_the_fork_that_is_named_overrides(two_scalings) -> None:
    assert factor(LAYER.format(""), "segnet") == 2
    assert factor(LAYER.format(""), "tsn") == 3


def test_an_ambiguous_layer_asks_for_the_fork(two_scalings) -> None:
    with pytest.raises(LayerError, match="nothing in the net tells which is meant") as caught:
        net_of(LAYER.format(""))
    assert "SegNet (segnet): Twice the bottom; PSPNet, ICNet and PSANet (pspnet): Thrice the bottom" in str(
        caught.value
    )


def test_options_of_two_forks_in_one_layer_are_an_error(two_scalings) -> None:
    with pytest.raises(LayerError, match=r'layer "s" in net\.prototxt: its options are of no one fork') as caught:
        net_of(LAYER.format("bn_param { bn_mode: INFERENCE frozen: true }"))
    assert "SegNet (segnet) has no bn_param.frozen" in str(caught.value)
    assert "PSPNet, ICNet and PSANet (pspnet) has no bn_param.bn_mode" in str(caught.value)


def test_a_class_without_a_fork_takes_all_layers_of_the_type(two_scalings) -> None:
    @register("Scaling")
    class Same(Layer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 1 * x

    assert factor(LAYER.format("bn_param { frozen: true }")) == 1


def test_options_that_change_results_are_refused_all_at_once() -> None:
    with pytest.raises(LayerError, match="not supported: ") as caught:
        net_of(
            'layer { name: "b" type: "Softmax" bottom: "x" top: "y" softmax_param { label_smooth_factor: 1 cutting_point: 2 } }'
        )
    message = str(caught.value)
    assert (
        'layer "b" in net.prototxt: ' in message and "softmax_param.label_smooth_factor of Caffe for faces" in message
    )
    assert "softmax_param.cutting_point of Caffe for faces" in message


def test_a_value_that_bvlcs_caffe_lacks_is_refused() -> None:
    with pytest.raises(LayerError, match=r"not supported: reduction_param\.operation=TOPK of OpenVINO|=TOPK of "):
        net_of('layer { name: "r" type: "Reduction" bottom: "x" top: "y" reduction_param { operation: TOPK } }')


def test_an_engine_of_intels_is_no_different() -> None:
    assert factor('layer { name: "r" type: "ReLU" bottom: "x" top: "y" relu_param { engine: MKLDNN } }') == 1


def test_options_of_another_type_are_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    two = "".join(
        f'layer {{ name: "{n}" type: "ReLU" bottom: "x" top: "{n}" norm_param {{ eps: 1 }} }}' for n in ("a", "b")
    )
    with caplog.at_level(logging.INFO):
        net_of(two)
    lines = [record.getMessage() for record in caplog.records if "norm_param" in record.getMessage()]
    assert len(lines) == 1 and "so a ReLU layer does not read it" in lines[0]


def test_a_type_that_is_not_done_here_says_whose_it_is() -> None:
    with pytest.raises(LayerError, match=r'"TRT", which is a layer of NVIDIA Caffe \(nvidia\)'):
        net_of('layer { name: "m" type: "TRT" bottom: "x" top: "y" }')


@pytest.mark.parametrize(
    ("layers", "first"),
    [
        ('layer { type: "ReLU" }', None),
        ('layer { type: "PriorBox" prior_box_param { width: 3 } }', "openvino"),
        ('layer { type: "Upsample" upsample_param { pad_out_h: true } }', "segnet"),
        ('layer { type: "BN" bn_param { slope_filler {} } } layer { type: "Interp" }', "pspnet"),
        ('layer { type: "Data" data_param { cache: true } }', "nvidia"),
    ],
)
def test_a_net_says_of_which_fork_it_is(layers: str, first: str | None) -> None:
    found = forks_of(parse_text(layers, caffe_pb2.NetParameter))
    assert (found[0] if found else None) == first


def test_a_net_that_mixes_forks_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    segnets = 'layer { name: "b" type: "BN" bottom: "x" top: "b" bn_param { bn_mode: INFERENCE } }'
    ctpns = 'layer { name: "r" type: "Reverse" bottom: "b" top: "r" }'
    with caplog.at_level(logging.INFO):
        net_of(segnets)
        assert "no one fork" not in caplog.text
        net_of(segnets + ctpns)
    lines = [record.getMessage() for record in caplog.records if "no one fork" in record.getMessage()]
    assert len(lines) == 1 and lines[0].startswith(
        "net.prototxt: no one fork of Caffe has all that the net uses. Most is of"
    )
    assert "SegNet (segnet); besides: Reverse of CTPN (ctpn)" in lines[0]


def test_a_file_of_an_unknown_fork_says_all_that_is_missing_and_which_fork_is_nearest(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "n" type: "FancyNorm" fancy_norm_param { eps: 3 } }\n'
        'layer { name: "u" type: "Upsample" upsample_param { pad_out_h: true wobble: 2 } }\n'
        'layer { name: "m" type: "TRT" }\nlayer { name: "f" type: "FancyNorm" }'
    )
    with pytest.raises(
        ParseError, match=r"1:37: in layer \"n\": LayerParameter has no field fancy_norm_param"
    ) as caught:
        Net(path, "TEST")
    message = str(caught.value)
    assert "--proto or proto= reads a fork's own caffe.proto. Also unknown in this file: wobble of " in message
    assert ". Of the forks known here the file is most like SegNet (segnet)" in message
    assert '. Unknown layer types besides: "FancyNorm" (layer "n"), "TRT", which is a layer of' in message


def test_an_option_of_another_fork_than_the_named_one_is_an_error() -> None:
    param = parse_text('name: "b" type: "BN" bn_param { bn_mode: INFERENCE }', caffe_pb2.LayerParameter)
    words = r'PSPNet, ICNet and PSANet \(pspnet\), the fork that is named, has no such option of "BN": bn_param.bn_mode of SegNet'
    with pytest.raises(LayerError, match=words):
        layer_class(param, fork="pspnet")
    assert layer_class(param, fork="segnet").__name__ == "BatchBN"
