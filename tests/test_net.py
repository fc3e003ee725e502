"""The module net: what a PyTorch user gets from a prototxt."""

from __future__ import annotations

import copy
import logging
import re
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from golden_files import golden

import pycaffe_compat
from pycaffe_compat.errors import CaffeError, LayerError, NetError, UnknownNameError, WeightsError
from pycaffe_compat.layers import Layer
from pycaffe_compat.layers.registry import REGISTRY
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, write_message
from pycaffe_compat.summary import describe

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'


def net_of(text: str, phase: str = "TEST", **options: object) -> Net:
    return Net(parse_text(text, caffe_pb2.NetParameter), phase, **options)  # type: ignore[arg-type]


def ip(name: str, bottom: str, top: str, outputs: int, more: str = "") -> str:
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {more} '
        f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }} }}'
    )


def test_a_net_is_called_with_tensors_by_name_and_returns_outputs_by_name() -> None:
    net = net_of(INPUT + ip("a", "x", "a", 4) + ip("b", "a", "b", 5))
    x = torch.randn(7, 3)
    want = torch.nn.functional.linear(
        torch.nn.functional.linear(x, net.get_parameter("a.weight")), net.get_parameter("b.weight")
    )
    for made in (net(x=x), net({"x": x}), net(x)):
        assert list(made) == ["b"]
        torch.testing.assert_close(made["b"], want)
    assert sorted(net.state_dict()) == ["a.bias", "a.weight", "b.bias", "b.weight"]
    assert net.blob_shapes == {"x": (2, 3), "a": (2, 4), "b": (2, 5)}


def test_arrays_stand_for_tensors() -> None:
    """What OpenCV's blobFromImage makes goes in as it is, and float64 and bytes as floats, as in pycaffe."""
    net = net_of(INPUT + ip("a", "x", "a", 4))
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    want = net(x=torch.arange(6.0).reshape(2, 3))["a"]
    for given in (array, array.astype(np.float64), array.astype(np.float32)[:, ::-1][:, ::-1]):
        assert torch.equal(net(x=given)["a"], want) and torch.equal(net(given)["a"], want)
    with pytest.raises(TypeError, match='input "x" must be a tensor or a NumPy array, not a list'):
        net(x=[[1, 2, 3]])


def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(CaffeError, match=r"^device cuda:99: "):
        net_of(INPUT, device="cuda:99")


def test_what_is_no_net_is_an_error() -> None:
    with pytest.raises(NetError, match=r"path of a prototxt or a NetParameter, not 123 \(int\)"):
        Net(123)


def test_names_that_modules_do_not_allow_are_layer_names() -> None:
    net = net_of(INPUT + ip("conv.1/a", "x", "a", 4) + ip("forward", "a", "b", 5))
    assert "conv.1/a.weight" in net.state_dict()
    assert net.get_parameter("conv.1/a.weight").shape == (4, 3)
    assert net(x=torch.zeros(1, 3))["b"].shape == (1, 5)
    other = net_of(INPUT + ip("conv.1/a", "x", "a", 4) + ip("forward", "a", "b", 5))
    other.load_state_dict(net.state_dict())
    torch.testing.assert_close(other.get_parameter("forward.weight"), net.get_parameter("forward.weight"))


def test_an_in_place_layer_makes_a_new_value_and_the_name_stands_for_it() -> None:
    net = net_of(INPUT + ip("a", "x", "a", 4) + 'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }')
    x = torch.randn(5, 3)
    torch.testing.assert_close(net(x=x)["a"], torch.relu(x @ net.get_parameter("a.weight").T))


def test_a_parameter_shared_by_name_is_one_tensor_and_its_gradients_add_up() -> None:
    share = 'param { name: "w" } param { name: "b" }'
    net = net_of(INPUT + ip("a", "x", "a", 3, share) + ip("b", "a", "b", 3, share), "TRAIN")
    assert net.get_parameter("a.weight") is net.get_parameter("b.weight")
    assert len(net.learnable) == 2
    x = torch.randn(4, 3)
    net(x=x)["b"].sum().backward()
    shared = net.get_parameter("a.weight").detach().clone().requires_grad_()
    (x @ shared.T @ shared.T).sum().backward()
    torch.testing.assert_close(net.get_parameter("a.weight").grad, shared.grad)


def test_a_permissive_share_is_a_view_of_the_owner() -> None:
    net = net_of(
        INPUT
        + 'layer { name: "p" type: "Parameter" top: "p" param { name: "w" } parameter_param { shape { dim: 2 dim: 6 } } }'
        + ip("a", "x", "a", 4, 'param { name: "w" share_mode: PERMISSIVE } param { lr_mult: 0 }')
    )
    owner = net.layers["p"].blob(0)
    with torch.no_grad():
        owner.copy_(torch.arange(12.0).view(2, 6))
    out = net(x=torch.eye(3))
    torch.testing.assert_close(out["a"].T.reshape(-1), torch.arange(12.0))
    out["a"].sum().backward()
    assert owner.grad is not None and owner.grad.shape == (2, 6)


def numbered(net: Net) -> Net:
    """The net with the weights of its layers set to 1, 2, 3 ... in order, and biases to 0."""
    with torch.no_grad():
        for number, layer in enumerate((layer for layer in net.layers.values() if layer.blob_specs), 1):
            layer.blob(0).fill_(number)
    return net


SHARED = 'param { name: "w" } param { name: "b" }'


def test_sharing_takes_each_blob_from_the_layer_of_the_same_name() -> None:
    source = numbered(net_of(INPUT + ip("a", "x", "a", 3) + ip("b", "x", "b", 3)))
    net = net_of(INPUT + ip("a", "x", "a", 3, SHARED) + ip("b", "x", "b", 3, SHARED))
    assert net.share_layers(source) == []
    out = net(x=torch.ones(1, 3))
    assert (out["a"] == 3).all() and (out["b"] == 6).all()
    with torch.no_grad():
        source.layers["b"].blob(0).fill_(5)
    assert (net(x=torch.ones(1, 3))["b"] == 15).all()
    assert (net.double()(x=torch.ones(1, 3).double())["b"] == 15).all()


def test_an_owner_that_the_source_lacks_does_not_overwrite_what_was_shared() -> None:
    source = numbered(net_of(INPUT + ip("a", "x", "a", 3, SHARED)))
    text = INPUT + ip("p", "x", "p", 3, SHARED) + ip("a", "x", "a", 3, SHARED) + ip("q", "x", "q", 3, SHARED)
    net = net_of(text)
    filler = net.layers["p"].blob(0).clone()
    assert net.share_layers(source) == ["p", "q"]
    built = net_of(text, share=source)
    for each in (net, built):
        assert each.layers["a"].blob(0) is source.layers["a"].blob(0)
        assert each.layers["q"].blob(0) is each.layers["p"].blob(0)
        assert (each(x=torch.ones(1, 3))["a"] == 3).all()
    assert net.layers["p"].blob(0).equal(filler)


def test_a_layer_that_shares_with_one_of_the_source_follows_it() -> None:
    source = numbered(net_of(INPUT + ip("a", "x", "a", 3)))
    net = net_of(INPUT + ip("a", "x", "a", 3, SHARED) + ip("q", "x", "q", 3, SHARED), share=source)
    assert net.layers["q"].blob(0) is source.layers["a"].blob(0)


def test_views_of_an_owner_are_taken_too() -> None:
    owner = (
        'layer { name: "p" type: "Parameter" top: "p" param { name: "w" } parameter_param { shape { dim: 2 dim: 6 } } }'
    )
    view = ip("a", "x", "a", 4, 'param { name: "w" share_mode: PERMISSIVE } param { lr_mult: 0 }')
    plain, viewed = ip("a", "x", "a", 4), owner + view
    for theirs in (plain, viewed):
        source = numbered(net_of(INPUT + theirs))
        for mine in (plain, viewed):
            net = net_of(INPUT + mine)
            net.share_layers(source)
            assert net(x=torch.eye(3))["a"].equal(source(x=torch.eye(3))["a"])
            with torch.no_grad():
                source.layers["a"].blob(0).fill_(7)
            assert net(x=torch.eye(3))["a"].equal(torch.full((3, 4), 7.0))


def test_a_layer_without_blobs_of_the_same_name_cannot_be_shared() -> None:
    source = net_of(INPUT + 'layer { name: "a" type: "ReLU" bottom: "x" top: "a" }')
    with pytest.raises(LayerError, match=r'"a".*cannot share the blobs of the other net: shapes .* there'):
        net_of(INPUT + ip("a", "x", "a", 3), share=source)


def test_shared_parameters_of_different_shapes_or_rates_are_errors() -> None:
    with pytest.raises(LayerError, match=r'shares param "w" with layer "a".*4×3.*5×4|shares.*5×4.*4×3'):
        net_of(INPUT + ip("a", "x", "a", 4, 'param { name: "w" }') + ip("b", "a", "b", 5, 'param { name: "w" }'))
    with pytest.raises(LayerError, match="lr_mult 3 here and 1"):
        net_of(
            INPUT
            + ip("a", "x", "a", 3, 'param { name: "w" }')
            + ip("b", "a", "b", 3, 'param { name: "w" lr_mult: 1 }')
            + ip("c", "b", "c", 3, 'param { name: "w" lr_mult: 3 }')
        )


def test_a_shared_parameter_has_the_rates_that_any_of_its_layers_gives_first() -> None:
    net = net_of(
        INPUT
        + ip("a", "x", "a", 3, 'param { name: "w" }')
        + ip("b", "a", "b", 3, 'param { name: "w" lr_mult: 3 }')
        + ip("c", "b", "c", 3, 'param { name: "w" lr_mult: 3 decay_mult: 0 }')
    )
    assert [(entry.lr_mult, entry.decay_mult) for entry in net.learnable if entry.name == "w"] == [(3, 0)]


def test_layers_may_have_the_same_name(tmp_path: Path) -> None:
    loss = 'layer {{ name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "x" top: "{0}" }}'
    text = INPUT + ip("a", "x", "a", 3) + loss.format("l") + loss.format("m")
    net = net_of(text)
    assert list(net.layers) == ["in", "a", "loss", "loss (2)"]
    x = torch.randn(2, 3)
    assert net.objective(x=x)[0] == 2 * net(x=x)["l"]
    model = caffe_pb2.NetParameter()
    for name in ("a", "loss", "loss"):
        model.layer.add(name=name)
    for blob in net.layers["a"].blobs:
        model.layer[0].blobs.add(shape=caffe_pb2.BlobShape(dim=blob.shape), data=(blob.detach() + 1).flatten().tolist())
    write_message(tmp_path / "net.caffemodel", model)
    again = net_of(text, weights=tmp_path / "net.caffemodel")
    torch.testing.assert_close(again.get_parameter("a.weight"), net.get_parameter("a.weight") + 1)
    assert not again.ignored_layers


def test_a_loss_without_a_top_is_part_of_the_objective_but_no_output() -> None:
    net = net_of(
        INPUT
        + 'layer { name: "l" type: "EuclideanLoss" bottom: "x" bottom: "x" loss_weight: 2 }'
        + 'layer { name: "m" type: "EuclideanLoss" bottom: "x" bottom: "x" }'
        + 'layer { name: "p" type: "Power" bottom: "x" top: "p" }'
    )
    assert net.outputs == ["p"]
    assert sorted(net.loss_weights.values()) == [1, 2]


def test_lr_mult_zero_and_propagate_down_decide_which_gradients_exist() -> None:
    text = (
        INPUT
        + ip("a", "x", "a", 3, "param { lr_mult: 0 } param { lr_mult: 0 }")
        + ip("b", "a", "b", 3)
        + 'layer { name: "l" type: "EuclideanLoss" bottom: "b" bottom: "x" top: "l" }'
    )
    net = net_of(text, "TRAIN")
    net.objective(x=torch.randn(2, 3))[0].backward()
    assert net.get_parameter("a.weight").grad is None
    assert net.get_parameter("b.weight").grad is not None
    cut = net_of(
        text.replace("lr_mult: 0", "lr_mult: 1").replace(
            'bottom: "b" bottom: "x"', 'bottom: "b" bottom: "x" propagate_down: false propagate_down: false'
        ),
        "TRAIN",
    )
    assert not cut.objective(x=torch.randn(2, 3))[0].requires_grad


def test_the_objective_is_the_sum_of_weighted_losses() -> None:
    net = net_of(
        INPUT
        + ip("a", "x", "a", 3)
        + 'layer { name: "l1" type: "EuclideanLoss" bottom: "a" bottom: "x" top: "l1" loss_weight: 0.25 }'
        + 'layer { name: "l2" type: "Reduction" bottom: "a" top: "l2" loss_weight: 2 }'
    )
    objective, outputs = net.objective(x=torch.randn(2, 3))
    torch.testing.assert_close(objective, 0.25 * outputs["l1"] + 2 * outputs["l2"].sum())


def test_layers_are_kept_by_phase_stage_and_level() -> None:
    text = (
        INPUT
        + 'layer { name: "t" type: "ReLU" bottom: "x" top: "t" include { phase: TRAIN } }'
        + 'layer { name: "s" type: "ReLU" bottom: "x" top: "s" include { stage: "deploy" } }'
        + 'layer { name: "v" type: "ReLU" bottom: "x" top: "v" include { min_level: 2 } }'
    )
    assert net_of(text).outputs == ["x"]
    assert net_of(text, "TRAIN").outputs == ["t"]
    assert net_of(text, stages=["deploy"], level=3).outputs == ["s", "v"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('layer { name: "r" type: "ReLU" bottom: "X" top: "z" }', r'unknown bottom blob "X".*did you mean x'),
        (
            'layer { name: "i" type: "Input" top: "i" } layer { name: "s" type: "Softmax" bottom: "i" top: "s" }',
            r"with 0 axes \(does its Input lack a shape\?\)",
        ),
        ('layer { name: "r" bottom: "x" top: "z" }', 'layer "r": its type is missing'),
        ('layer { name: "r" type: "SOFTMAX_LOSS" bottom: "x" top: "z" }', "did you mean SoftmaxWithLoss"),
        ('layer { name: "r" type: "ReLu" bottom: "x" top: "z" }', r'unknown layer type "ReLu".*did you mean ReLU'),
        ('layer { name: "r" type: "ReLU" top: "z" }', "has 0 bottom blobs, but takes exactly 1"),
        (
            'layer { name: "r" type: "ReLU" bottom: "x" top: "z" } layer { name: "q" type: "TanH" bottom: "x" top: "z" }',
            'top blob "z" is already made by layer "r"',
        ),
        (
            'layer { name: "r" type: "ReLU" bottom: "x" top: "z" loss_weight: 1 loss_weight: 2 }',
            "loss_weight is given 2 times for 1 top",
        ),
        (
            'layer { name: "r" type: "ReLU" bottom: "x" top: "z" propagate_down: true propagate_down: true }',
            "propagate_down is given 2 times for 1 bottom",
        ),
        ('layer { name: "e" type: "Eltwise" bottom: "x" bottom: "a" top: "z" }', "(?i)shape|size|2×3|same"),
    ],
)
def test_a_net_that_does_not_fit_together_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(NetError, match=message):
        net_of(INPUT + ip("a", "x", "a", 4) + text)


def test_inputs_that_do_not_fit_are_named() -> None:
    net = net_of(INPUT + ip("a", "x", "a", 4))
    with pytest.raises(UnknownNameError, match='input "x" is missing'):
        net()
    with pytest.raises(UnknownNameError, match='"y" is not an input'):
        net(x=torch.zeros(1, 3), y=torch.zeros(1))
    made = r"it was made for 2×3, and its weight is 4×3"
    with pytest.raises(LayerError, match=rf'layer "a" .*does not fit its bottoms \(shapes: 1×4\): {made}'):
        net(x=torch.zeros(1, 4))
    with pytest.raises(RuntimeError, match="Double"):  # sizes are not at fault
        net(x=torch.zeros(1, 3, dtype=torch.float64))


def test_planes_without_places_that_a_layer_cannot_take_are_an_error() -> None:
    more = 'layer { name: "r" type: "Resample" bottom: "x" top: "r" resample_param { height: 2 width: 2 } }'
    net = net_of(INPUT.replace("dim: 3", "dim: 3 dim: 4 dim: 4") + more)
    with pytest.raises(NetError, match=r"cannot run with inputs of these shapes \(x 1×3×0×4\)"):
        net(x=torch.zeros(1, 3, 0, 4))


def test_weights_are_copied_by_name_and_a_wrong_shape_names_both(tmp_path: Path) -> None:
    net = net_of(INPUT + ip("a", "x", "a", 4) + ip("b", "a", "b", 5))
    path = tmp_path / "net.caffemodel"
    net.save(path)
    same = net_of(INPUT + ip("a", "x", "a", 4) + ip("c", "a", "b", 5), weights=path)
    torch.testing.assert_close(same.get_parameter("a.weight"), net.get_parameter("a.weight"))
    assert "b" in same.ignored_layers
    with pytest.raises(
        WeightsError, match=r'layer "b", blob 0 \(weight\): shape 6×4 in the net, but 5×4 in .*net.caffemodel'
    ):
        net_of(INPUT + ip("a", "x", "a", 4) + ip("b", "a", "b", 6), weights=path)


def test_weights_in_four_legacy_dimensions_fit() -> None:
    folder = Path(__file__).parent / "goldens" / "upgrade"
    conv = 'layer { name: "conv1" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }'
    image = INPUT.replace("dim: 2 dim: 3", "dim: 1 dim: 3 dim: 6 dim: 6")
    net = net_of(image + conv + ip("fc", "c", "f", 3), weights=folder / "v1.caffemodel")
    with np.load(folder / "v1_caffemodel.npz") as want:
        for key in want.files:
            layer, index = key.split("/")
            got = net.layers[layer].blob(int(index)).detach().numpy()
            np.testing.assert_array_equal(got, want[key].reshape(got.shape), err_msg=key)


def test_hdf5_weights_leave_shared_blobs_out(tmp_path: Path) -> None:
    share = 'param { name: "w" } param { name: "b" }'
    net = net_of(INPUT + ip("a", "x", "a", 3, share) + ip("b", "a", "b", 3, share))
    net.save(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "a") as file:
        for index in list(file["data/b"]):
            del file["data/b"][index]
    again = net_of(INPUT + ip("a", "x", "a", 3, share) + ip("b", "a", "b", 3, share), weights=tmp_path / "w.h5")
    torch.testing.assert_close(again.get_parameter("b.weight"), net.get_parameter("b.weight"))
    with pytest.raises(WeightsError, match=r'layer "b", blob 0 is not in .*w.h5'):
        net_of(INPUT + ip("a", "x", "a", 3) + ip("b", "a", "b", 3), weights=tmp_path / "w.h5")


def test_reshape_works_out_all_shapes_again() -> None:
    net = net_of(
        INPUT.replace("dim: 2 dim: 3", "dim: 2 dim: 3 dim: 8 dim: 8")
        + 'layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { kernel_size: 2 stride: 2 } }'
    )
    assert net.blob_shapes["p"] == (2, 3, 4, 4)
    net.reshape({"x": (5, 3, 12, 6)})
    assert net.blob_shapes["p"] == (5, 3, 6, 3)
    with pytest.raises(UnknownNameError, match="not an input"):
        net.reshape({"p": (1, 1, 1, 1)})


def test_a_net_converts_and_copies_like_any_module() -> None:
    share = 'param { name: "w" } param { name: "b" }'
    net = net_of(INPUT + ip("a", "x", "a", 3, share) + ip("b", "a", "b", 3, share))
    twin = copy.deepcopy(net).double()
    assert twin.get_parameter("a.weight") is twin.get_parameter("b.weight")
    assert all(entry.tensor.dtype == torch.float64 for entry in twin.learnable)
    x = torch.randn(2, 3)
    torch.testing.assert_close(twin(x=x.double())["b"].float(), net(x=x)["b"])


def test_a_net_compiles_without_graph_breaks() -> None:
    net = net_of(golden("layers", "mini_swwae_all").meta["prototxt"], "TRAIN")
    shapes = {name: net.blob_shapes[name] for name in net.inputs}
    batch = {name: torch.zeros(shape) if name == "t" else torch.randn(shape) for name, shape in shapes.items()}
    compiled = torch.compile(net.objective, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(batch)[0], net.objective(batch)[0])


def test_first_nonfinite_names_the_layer_and_the_blob() -> None:
    net = net_of(INPUT + ip("a", "x", "a", 4) + ip("b", "a", "b", 5))
    batch = {"x": torch.ones(1, 3)}
    assert net.first_nonfinite(batch) is None
    with torch.no_grad():
        net.get_parameter("b.weight")[0, 0] = float("nan")
    assert 'layer "b" (InnerProduct), parameter 0 (1 NaN' in str(net.first_nonfinite(batch))
    assert 'layer "in" (Input), top "x" (0 NaN and 3 inf' in str(
        net.first_nonfinite({"x": torch.full((1, 3), torch.inf)})
    )
    net.get_parameter("a.weight").data.fill_(3e38)
    assert 'layer "a" (InnerProduct), top "a" (0 NaN and 4 infinite' in str(net.first_nonfinite(batch))


def test_load_reads_files(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('name: "n"' + INPUT + ip("a", "x", "a", 4))
    net = pycaffe_compat.load(path)
    assert not net.training and net.caffe_name == "n"
    net.save(tmp_path / "w.caffemodel.h5")
    again = pycaffe_compat.load(path, tmp_path / "w.caffemodel.h5", phase="TRAIN")
    assert again.training
    np.testing.assert_array_equal(
        again.get_parameter("a.weight").detach().numpy(), net.get_parameter("a.weight").detach().numpy()
    )


@pytest.mark.parametrize(
    "rule, options, why",
    [
        ("include { phase: TRAIN }", {}, "phase TEST, and its rule include { phase: TRAIN } leaves that layer out"),
        (
            'include { phase: TRAIN } include { stage: "b" not_stage: "c" }',
            {"stages": ["a"], "level": 2},
            'phase TEST, level 2, stage a, and its rule include { phase: TRAIN } and include { stage: "b" not_stage: "c" } '
            "leaves",
        ),
        (
            "exclude { phase: TRAIN } exclude { phase: TEST }",
            {},
            "phase TEST, and its rule exclude { phase: TEST } leaves",
        ),
        ("exclude { max_level: 0 }", {}, "phase TEST, and its rule exclude { max_level: 0 } leaves"),
    ],
)
def test_a_bottom_of_a_layer_that_is_left_out_names_it_and_its_rule(rule: str, options: dict, why: str) -> None:
    text = (
        f'layer {{ name: "d" type: "Input" top: "d" {rule} input_param {{ shape {{ dim: 1 }} }} }}'
        'layer { name: "r" type: "ReLU" bottom: "d" top: "r" }'
    )
    message = f'layer "r" (ReLU): unknown bottom blob "d": layer "d" (Input) makes it, but the net is built for {why}'
    with pytest.raises(NetError, match=re.escape(message)):
        net_of(text, **options)
    with pytest.raises(NetError, match=re.escape(message)):
        state = {"level": options.get("level", 0), "stage": options.get("stages", [])}
        net = parse_text(text, caffe_pb2.NetParameter)
        net.state.MergeFrom(caffe_pb2.NetState(**state))
        describe(net, "TEST")


def test_a_bottom_that_a_later_layer_makes() -> None:
    with pytest.raises(NetError, match=r'"x": layer "in" \(Input\) makes it, but stands after this one'):
        net_of('layer { name: "r" type: "ReLU" bottom: "x" top: "r" }' + INPUT)
    with pytest.raises(NetError, match='unknown bottom blob "x": no earlier layer makes it'):
        net_of('layer { name: "r" type: "ReLU" bottom: "x" top: "x" }')
    later = (
        'layer { name: "r" type: "ReLU" bottom: "x" top: "r" } layer { name: "s" type: "Power" bottom: "x" top: "x" }'
    )
    with pytest.raises(NetError, match=r'layer "in" \(Input\) makes it, but the net is built for phase TEST'):
        net_of(INPUT.replace("{", "{ include { phase: TRAIN } ", 1) + later)


@pytest.mark.parametrize("name", ["training", "inputs", "steps"])
def test_a_layer_may_be_called_as_an_attribute_of_the_net(name):
    net = net_of(INPUT + ip(name, "x", "y", 4))
    assert net.train().training and not net.eval().training
    assert net.inputs == ["x"] and net.layers[name].type_name == "InnerProduct" and f"{name}.weight" in net.state_dict()


def test_options_that_no_layer_reads_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Caffe passes over them without a word, as over the mean of an Input."""
    more = "transform_param { mean_value: 104 } input_param { shape { dim: 2 } }"
    idle = f'layer {{ name: "y" type: "Input" top: "y" {more} }}'
    for name in ("r", "s"):
        idle += (
            f'layer {{ name: "{name}" type: "ReLU" bottom: "x" top: "{name}" convolution_param {{ num_output: 3 }} }}'
        )
    net_of(INPUT + idle)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        'the net: layer "y": transform_param is not an option of Input and has no effect, as in Caffe',
        'the net: layer "r" and 1 more: convolution_param is not an option of ReLU and has no effect, as in Caffe',
    ]


def test_options_of_data_that_only_the_older_form_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((2, 2, 3), 4, np.uint8))
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'a.png'} 0\n")
    options = f'image_data_param {{ source: "{tmp_path / "list.txt"}" batch_size: 1 scale: 0.5 }}'
    new = net_of(f'layer {{ name: "d" type: "ImageData" top: "d" top: "l" {options} }}')
    assert new.draw()["d"].unique().tolist() == [4]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.endswith('only in the older "layers", as in Caffe; write transform_param { scale: … }')
    caplog.clear()
    old = net_of(f'layers {{ name: "d" type: IMAGE_DATA top: "d" top: "l" {options} }}')
    assert old.draw()["d"].unique().tolist() == [2] and not caplog.records


def test_a_layer_of_ones_own_that_reads_an_axis_which_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(Layer):
        def __init__(self, param, bottom_shapes):
            super().__init__(param, bottom_shapes)
            self.width = bottom_shapes[0][3]

    monkeypatch.setitem(REGISTRY, "Wide", Wide)
    with pytest.raises(LayerError, match=r'layer "w" \(Wide\): cannot be built: tuple index out of range'):
        net_of(INPUT + 'layer { name: "w" type: "Wide" bottom: "x" top: "y" }')
