"""Decoder induction: the paper's names, order, multipliers and weights, and what cannot be mirrored."""

import json
from pathlib import Path

import paper_nets
import pytest

from pycaffe_compat.errors import NetError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.swwae import KINDS, OBJECTIVES, Decoder, alexnet, augment, reconstruction_net, vgg
from pycaffe_compat.swwae.blocks import input_layer, layer, max_pool, relu, weighted
from pycaffe_compat.swwae.encoder import read_encoder

PAPER_NETS = json.loads((Path(__file__).parents[1] / "goldens/nets/paper_nets.json").read_text())
GAUSSIAN = {"type": "gaussian", "std": 0.01}


def blob_names(net):
    return list(dict.fromkeys(top for each in net.layer for top in each.top))


def by_name(net):
    return {each.name: each for each in net.layer}


def small(*middle, size=16):
    conv = weighted("c1", "Convolution", "data", "c1", 4, filler=GAUSSIAN, kernel_size=[3], pad=[1])
    return caffe_pb2.NetParameter(layer=[input_layer("data", (2, 3, size, size)), conv, *middle])


@pytest.fixture(scope="module")
def tree():
    return paper_nets.nets()


@pytest.mark.parametrize("path", PAPER_NETS)
def test_blobs_are_those_of_the_authors_nets_in_the_same_order(tree, path):
    assert blob_names(tree[path]) == list(PAPER_NETS[path]["blob"])


@pytest.mark.parametrize("path", PAPER_NETS)
def test_weight_layers_are_those_of_the_authors_nets(tree, path):
    have = [each.name for each in tree[path].layer if each.param]
    assert have == list(dict.fromkeys(name.rsplit("/", 1)[0] for name in PAPER_NETS[path]["grad"]))


def test_the_tree_has_every_net_of_the_release(tree):
    for kind in ("SAE", "SWWAE"):
        for objective in OBJECTIVES:
            assert f"vggnet/cls/{kind}-{objective}/layer5_deploy.prototxt" in tree
            for number in range(1, 6):
                assert f"vggnet/recon/{kind}-{objective}/layer{number}_dump.prototxt" in tree
        for number in range(1, 9):
            assert f"alexnet/recon/{kind}-first/layer{number}_deploy.prototxt" in tree


@pytest.mark.parametrize("kind", KINDS)
def test_switches_are_handed_over_only_in_swwae(kind):
    layers = by_name(augment(vgg(), Decoder(kind, "all")))
    unpool = layers["dec:conv4_3/unpool"]
    if kind == "swwae":
        assert list(layers["conv4_3/pool"].top) == ["conv4_3/pool", "conv4_3/pool-mask"]
        assert list(unpool.bottom) == ["dec:conv4_3", "conv4_3/pool-mask"]
        assert list(unpool.propagate_down) == [True, False]
        assert unpool.pooling_param.pool == caffe_pb2.PoolingParameter.SWITCH
    else:
        assert list(layers["conv4_3/pool"].top) == ["conv4_3/pool"]
        assert list(unpool.bottom) == ["dec:conv4_3"]
        assert unpool.pooling_param.pool == caffe_pb2.PoolingParameter.FIX
    assert (unpool.pooling_param.kernel_size, unpool.pooling_param.stride) == (2, 2)


def test_all_has_a_loss_at_every_pooled_activation_with_the_papers_weights():
    layers = by_name(augment(vgg(), Decoder("swwae", "all")))
    weights = {name: each.loss_weight[0] for name, each in layers.items() if each.type == "EuclideanLoss"}
    expected = {"conv4_3": 1e-10, "conv3_3": 1e-12, "conv2_2": 1e-12, "conv1_2": 1e-12, "data/scaled": 1e-4}
    assert weights == pytest.approx({f"dec:loss@{name}": weight for name, weight in expected.items()})
    assert list(layers["dec:loss@conv3_3"].bottom) == ["dec:conv3_3", "conv3_3/pool"]
    assert layers["data/scaled"].power_param.scale == pytest.approx(1 / 255)


def test_layerwise_starts_each_stage_from_the_encoder():
    layers = by_name(augment(vgg(), Decoder("swwae", "layerwise")))
    assert list(layers["dec:conv5_1"].top) == ["dec:conv4_3[2]"]
    assert list(layers["dec:conv4_3[2]/relu"].top) == ["dec:conv4_3[2]"]
    assert list(layers["dec:loss@conv4_3"].bottom) == ["dec:conv4_3[2]", "conv4_3/pool"]
    assert list(layers["dec:conv4_3/unpool"].bottom) == ["conv4_3/pool", "conv4_3/pool-mask"]
    assert list(layers["dec:conv1_1"].top) == ["dec:data"]


def test_the_decoder_stands_between_encoder_and_classifier():
    net = augment(vgg(), Decoder("sae", "first"))
    names = [each.name for each in net.layer]
    assert names.index("conv5_3/pool") + 1 == names.index("dec:conv5_3/unpool")
    assert names.index("dec:loss@data/scaled") + 1 == names.index("fc6")
    assert [name for name in names if name.startswith("dec:loss")] == ["dec:loss@data/scaled"]
    assert "dec:data/relu" not in names


def test_parameters_and_fillers_are_the_papers():
    net = augment(vgg(), Decoder())
    for each in net.layer:
        if each.type in ("Convolution", "Deconvolution", "InnerProduct"):
            assert [(p.lr_mult, p.decay_mult) for p in each.param] == [(1, 1), (2, 0)]
    layers = by_name(net)
    assert layers["conv3_2"].convolution_param.weight_filler.std == pytest.approx(0.01)
    decoder = layers["dec:conv4_1"].convolution_param
    assert (decoder.num_output, decoder.weight_filler.std, decoder.bias_filler.value) == (256, pytest.approx(1e-3), 0)
    assert (list(decoder.kernel_size), list(decoder.pad), list(decoder.stride)) == ([3], [1], [])


def test_vgg_is_not_changed_and_no_mask_is_made_twice():
    net = vgg()
    before = net.SerializeToString()
    augment(net, Decoder())
    assert net.SerializeToString() == before
    by_name(net)["conv1_2/pool"].top.append("my-mask")
    assert list(by_name(augment(net))["dec:conv1_2/unpool"].bottom) == ["dec:conv1_2", "my-mask"]


def test_reconstruction_net_fixes_the_encoder_and_leaves_the_classifier_out():
    net = reconstruction_net(vgg(), Decoder("swwae", "all"), "conv2_2")
    assert {each.param[0].lr_mult for each in net.layer if each.type == "Convolution"} == {0}
    assert {each.param[0].lr_mult for each in net.layer if each.type == "Deconvolution"} == {1}
    assert {each.loss_weight[0] for each in net.layer if each.type == "EuclideanLoss"} == {1}
    names = blob_names(net)
    assert not {"label", "conv3_1", "fc6", "loss"} & set(names)


def test_reconstruction_from_a_fully_connected_layer():
    net = reconstruction_net(vgg(), Decoder("swwae", "first"), "fc8")
    layers = by_name(net)
    assert list(layers["fc7"].bottom) == ["fc6"]  # dropout is left out
    assert (list(layers["dec:connect:fc8"].bottom), list(layers["dec:connect:fc8"].top)) == (["fc8"], ["dec:fc8"])
    assert layers["dec:connect:fc8"].reshape_param.num_axes == 0
    assert [layers[f"dec:fc{i}"].top[0] for i in (8, 7, 6)] == ["dec:fc7", "dec:fc6", "dec:conv5_3"]
    assert [layers[f"dec:fc{i}"].inner_product_param.num_output for i in (8, 7, 6)] == [4096, 4096, 25088]
    reshape = layers["dec:conv5_3/reshape"]
    assert (reshape.reshape_param.axis, list(reshape.reshape_param.shape.dim)) == (1, [512, 7, 7])
    assert list(layers["dec:conv5_3/unpool"].bottom) == ["dec:conv5_3/reshape", "conv5_3/pool-mask"]


def test_dump_form():
    net = reconstruction_net(vgg(), Decoder("swwae", "first"), "conv1_2", dump="dump/x/")
    names = blob_names(net)
    assert names[:2] == ["data", "mean"]
    tail = ["mean/scaled", "data/scaled/add-mean", "dec:data/add-mean", "dec:pair@data/scaled/add-mean"]
    assert names[-4:] == tail
    layers = by_name(net)
    assert layers["dec:pair@data/scaled/add-mean"].concat_param.axis == 3
    assert layers["dec:dump@data/scaled/add-mean"].image_output_param.output_prefix == "dump/x/"
    assert list(layers["mean"].input_param.shape[0].dim) == [1, 3, 224, 224]


def test_alexnet_is_undone_without_groups_and_conv1_in_three():
    layers = by_name(reconstruction_net(alexnet(), Decoder("swwae", "first", connect=True), "conv4"))
    assert list(layers["dec:connect:conv4"].top) == ["dec:conv4"]
    assert layers["dec:conv4"].convolution_param.group == 1
    assert layers["dec:conv2"].convolution_param.num_output == 96
    assert layers["dec:conv1/unpool/norm"].eltwise_param.operation == caffe_pb2.EltwiseParameter.PROD
    assert layers["dec:conv1-pre"].type == "Convolution"
    assert layers["dec:conv1-body"].convolution_param.stride == [4]
    assert list(layers["dec:conv1-post"].top) == ["dec:data"]


def test_any_depth_is_mirrored():
    for depth in (11, 13, 19):
        encoder = {each.name for each in vgg(depth).layer if each.type == "Convolution"}
        decoder = {each.name for each in augment(vgg(depth)).layer if each.type == "Deconvolution"}
        assert decoder == {f"dec:{name}" for name in encoder}


def test_blobs_with_names_of_their_own_are_followed():
    net = small(
        layer("r", "ReLU", ["c1"], ["c1r"]),
        layer("p", "Pooling", ["c1r"], ["pooled"], pooling_param={"pool": "MAX", "kernel_size": 4, "stride": 4}),
        weighted("c2", "Convolution", "pooled", "c2", 8, filler=GAUSSIAN, kernel_size=[1]),
        max_pool("c2"),
    )
    layers = by_name(augment(net, Decoder("swwae", "all"), {"data": 1, "c1": 0.5}))
    assert list(layers["dec:c2"].top) == ["dec:c1"]
    assert "dec:c1/relu" in layers
    assert list(layers["dec:loss@c1"].bottom) == ["dec:c1", "pooled"]
    assert list(layers["dec:c1/unpool"].bottom) == ["dec:c1", "pooled-mask"]
    assert layers["dec:c1/unpool"].pooling_param.kernel_size == 4


def test_a_fixed_layer_without_bias_has_one_multiplier():
    net = small(max_pool("c1"))
    net.layer[1].convolution_param.bias_term = False
    assert [param.lr_mult for param in by_name(reconstruction_net(net))["c1"].param] == [0]
    assert len(Net(reconstruction_net(net), "TRAIN").layers["c1"].blob_specs) == 1


def test_shapes_of_the_encoder():
    units = {unit.name: unit for unit in read_encoder(alexnet())}
    assert (units["conv1"].output_shape, units["conv1"].top_shape) == ((96, 55, 55), (96, 27, 27))
    assert (units["conv5"].top_shape, units["fc6"].bottom_shape) == ((256, 6, 6), (256, 6, 6))


WINDOWS = [
    ("pad: 1 kernel_size: 3", "kernel_size: 3 stride: 3 pad: 1"),
    ("kernel_size: 3", "kernel_size: 3 stride: 2"),
    ("kernel_size: 3 stride: 2", "kernel_size: 2 stride: 2 round_mode: FLOOR"),
    ("pad: 2 kernel_size: 3 dilation: 2", "kernel_size: 3 stride: 2 pad: 1"),
    (
        "pad_h: 1 pad_w: 0 kernel_h: 3 kernel_w: 1 stride_h: 1 stride_w: 2",
        "kernel_h: 2 kernel_w: 3 stride_h: 2 stride_w: 3",
    ),
]


@pytest.mark.parametrize("size", [(16, 16), (13, 17), (11, 10)])
@pytest.mark.parametrize("convolution, pooling", WINDOWS)
def test_the_encoder_has_the_shapes_of_the_net(convolution, pooling, size):
    text = (
        'layer { name: "data" type: "Input" top: "data" '
        f"input_param {{ shape {{ dim: 1 dim: 3 dim: {size[0]} dim: {size[1]} }} }} }}"
        f'layer {{ name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param {{ num_output: 4 {convolution} }} }}'
        f'layer {{ name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param {{ {pooling} }} }}'
        'layer { name: "f" type: "InnerProduct" bottom: "p" top: "f" inner_product_param { num_output: 5 } }'
    )
    net = parse_text(text, caffe_pb2.NetParameter)
    shapes = {name: shape[1:] for name, shape in Net(net).blob_shapes.items()}
    first, last = read_encoder(net)
    assert first.bottom_shape == shapes["data"]
    assert (first.output_shape, first.top_shape) == (shapes["c"], shapes["p"])
    assert (last.bottom_shape, last.output_shape) == (shapes["p"], shapes["f"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: augment(small(relu("c1"), max_pool("c1"), size=15)),
            'layer "c1/pool" (Pooling) makes 8 of 15 along h',
        ),
        (
            lambda: augment(small(layer("n", "LRN", ["c1"]), max_pool("n"))),
            'layer "n" (LRN) cannot be mirrored',
        ),
        (
            lambda: augment(small(max_pool("c1"), layer("p2", "Pooling", ["c1"]), size=16)),
            'the net branches at the blob "c1": "c1/pool", "p2" read it',
        ),
        (lambda: augment(small(relu("c1"))), "no max pooling after a convolution"),
        (lambda: augment(vgg(), source="conv5_4"), 'no layer "conv5_4" to decode from; the encoder has conv1_1'),
        (lambda: augment(vgg(), None, {"data": 1, "conv4": 1}), 'loss weight for "conv4" (did you mean conv4_3'),
        (lambda: augment(vgg(), None, {"data": 1}), "no loss weight for conv1_2, conv2_2, conv3_3, conv4_3"),
        (lambda: augment(augment(vgg())), "the net already has a decoder"),
        (lambda: augment(vgg(), None, -1), "a loss weight of -1: it must be a finite number, at least 0"),
        (lambda: augment(vgg(), None, {"data": float("nan")}), "a loss weight of nan"),
        (lambda: augment(vgg(), Decoder(image_shape=(3, 0, 224))), "an image of shape 3×0×224"),
        (
            lambda: augment(vgg(), Decoder(image="image")),
            'no Input or data layer of the net makes the blob "image"; they make data, label: name the blob of images',
        ),
        (
            lambda: augment(
                small(layer("p", "Pooling", ["c1"], pooling_param={"pool": "MAX", "global_pooling": True}))
            ),
            'layer "p" (Pooling) cannot be mirrored',
        ),
        (
            lambda: augment(
                small(
                    layer(
                        "p", "Pooling", ["c1"], pooling_param={"pool": "MAX", "kernel_size": 3, "stride": 1, "pad": 1}
                    )
                ),
                Decoder("sae"),
            ),
            'layer "p" (Pooling) pads its input, which fixed switches cannot undo',
        ),
        (lambda: Decoder("swae"), 'decoder kind "swae" is not one of sae, swwae'),
        (lambda: vgg(12), "vgg: depth 12 is not one of 11, 13, 16, 19"),
        (
            lambda: augment(caffe_pb2.NetParameter(layer=[layer("d", "Data", tops=["data"])])),
            'layer "d" (Data) does not give the shape of "data"',
        ),
    ],
)
def test_what_cannot_be_mirrored_is_said(make, message):
    with pytest.raises(NetError) as caught:
        make()
    assert message in str(caught.value)
