"""Caffe's upgrades. The goldens are what Caffe's own upgrade tools wrote."""

import pytest
from golden_files import ROOT

from pycaffe_compat.errors import NetError, SolverError
from pycaffe_compat.proto import caffe_pb2, format_text, parse_text, upgrade_net, upgrade_solver
from pycaffe_compat.proto.upgrade import V0_TYPES, V1_TYPES

NET, SOLVER = caffe_pb2.NetParameter, caffe_pb2.SolverParameter
OLD = sorted(p.stem for p in (ROOT / "upgrade").glob("*.prototxt") if not p.stem.endswith(".upgraded"))


def upgraded(text):
    net = parse_text(text, NET)
    upgrade_net(net)
    return net


def assert_upgrades_to(old, new):
    assert format_text(upgraded(old)) == format_text(parse_text(new, NET))


@pytest.mark.parametrize("name", OLD)
def test_goldens(name):
    cls, upgrade = (SOLVER, upgrade_solver) if name.startswith("solver") else (NET, upgrade_net)
    message = parse_text((ROOT / "upgrade" / f"{name}.prototxt").read_bytes(), cls)
    words = upgrade(message)
    assert message == parse_text((ROOT / "upgrade" / f"{name}.upgraded.prototxt").read_bytes(), cls)
    assert words
    assert upgrade(message) == []


def test_every_old_type_has_a_new_one():
    added = {value for enum, value in caffe_pb2.ADDITIONS.values if enum == "V1LayerParameter.LayerType"}
    assert set(V1_TYPES) == set(caffe_pb2.V1LayerParameter.LayerType.keys()) - added
    assert set(V0_TYPES.values()) < set(V1_TYPES)
    for old, v1 in V0_TYPES.items():
        assert upgraded(f'layers {{ layer {{ type: "{old}" }} }}').layer[0].type == V1_TYPES[v1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("BN", "BN"),
        ("CROP", "Crop"),
        ("ROIPOOLING", "ROIPooling"),
        ("RELU6", "ReLU6"),
        ("IMAGE_SEG_DATA", "ImageSegData"),
    ],
)
def test_old_types_of_forks_have_new_ones(old, new):
    assert upgraded(f"layers {{ type: {old} }}").layer[0].type == new


def test_every_v1_field_arrives():
    """Each field of a V1 layer has one of its name in a V2 layer, or a place of its own there."""
    own = {"param", "blob_share_mode", "blobs_lr", "weight_decay", "layer"}
    assert {f.name for f in caffe_pb2.V1LayerParameter.DESCRIPTOR.fields} - own <= {
        f.name for f in caffe_pb2.LayerParameter.DESCRIPTOR.fields
    }
    assert_upgrades_to(
        """layers { type: SOFTMAX_LOSS name: "l" loss_weight: 2 loss_param { ignore_label: 1 } softmax_param { }
                    include { phase: TEST } blobs { num: 1 data: 3 }
                    blob_share_mode: STRICT blob_share_mode: PERMISSIVE blobs_lr: 3 weight_decay: 4 weight_decay: 5
                    weight_decay: 6 param: "w" }""",
        """layer { type: "SoftmaxWithLoss" name: "l" loss_weight: 2 loss_param { ignore_label: 1 } softmax_param { }
                   include { phase: TEST } blobs { num: 1 data: 3 }
                   param { name: "w" share_mode: STRICT lr_mult: 3 decay_mult: 4 }
                   param { share_mode: PERMISSIVE decay_mult: 5 } param { decay_mult: 6 } }""",
    )


def test_data_transforms_of_all_data_layers_move_if_any_has_them():
    assert_upgrades_to(
        """layers { type: DATA data_param { source: "a" } } layers { type: WINDOW_DATA }
           layers { type: IMAGE_DATA image_data_param { mirror: false scale: 2 } transform_param { scale: 1 } }
           layers { type: RELU data_param { scale: 3 } }""",
        """layer { type: "Data" data_param { source: "a" } transform_param {} }
           layer { type: "WindowData" window_data_param {} transform_param {} }
           layer { type: "ImageData" image_data_param {} transform_param { mirror: false scale: 2 } }
           layer { type: "ReLU" data_param { scale: 3 } }""",
    )


def test_v0_data_layers():
    assert_upgrades_to(
        """layers { layer { type: "images" source: "s" batchsize: 2 rand_skip: 3 shuffle_images: true new_height: 4
                            new_width: 5 scale: 6 meanfile: "m" cropsize: 7 mirror: true } }
           layers { layer { type: "window_data" source: "w" batchsize: 1 det_fg_threshold: 0.1 det_bg_threshold: 0.2
                            det_fg_fraction: 0.3 det_context_pad: 4 det_crop_mode: "square" } }
           layers { layer { type: "hdf5_data" source: "h" batchsize: 1 } }
           layers { layer { type: "hdf5_output" hdf5_output_param { file_name: "o" } } }
           layers { layer { type: "infogain_loss" source: "i" } } layers { layer { type: "concat" concat_dim: 0 } }
           layers { layer { type: "lrn" k: 2 } }""",
        """layer { type: "ImageData" transform_param { scale: 6 mirror: true crop_size: 7 mean_file: "m" }
             image_data_param { source: "s" batch_size: 2 rand_skip: 3 shuffle: true new_height: 4 new_width: 5 } }
           layer { type: "WindowData" window_data_param { source: "w" batch_size: 1 fg_threshold: 0.1 bg_threshold: 0.2
             fg_fraction: 0.3 context_pad: 4 crop_mode: "square" } }
           layer { type: "HDF5Data" hdf5_data_param { source: "h" batch_size: 1 } }
           layer { type: "HDF5Output" hdf5_output_param { file_name: "o" } }
           layer { type: "InfogainLoss" infogain_loss_param { source: "i" } }
           layer { type: "Concat" concat_param { concat_dim: 0 } } layer { type: "LRN" lrn_param { k: 2 } }""",
    )


PAD = 'input: "d" input_dim: [1, 1, 9, 9] layers { layer { name: "p" type: "padding" pad: 2 } bottom: "d" top: "p" }'


def test_padding_goes_to_every_layer_behind():
    net = upgraded(
        PAD
        + """layers { layer { name: "c" type: "conv" pad: 1 kernelsize: 3 } bottom: "p" top: "c" }
             layers { layer { name: "q" type: "pool" kernelsize: 3 } bottom: "p" top: "q" }"""
    )
    assert [layer.name for layer in net.layer] == ["input", "c", "q"]
    assert net.layer[1].convolution_param.pad == [2] and net.layer[2].pooling_param.pad == 2
    assert net.layer[1].bottom == net.layer[2].bottom == ["d"]


def test_v0_fields_of_other_layer_types_are_dropped_and_reported():
    net = parse_text('layers { layer { name: "r" type: "relu" num_output: 3 } } debug_info: true', NET)
    words = upgrade_net(net)
    assert net == parse_text('layer { name: "r" type: "ReLU" }', NET)
    assert "num_output" in words[0] and '"r"' in words[0] and "debug_info" in words[0]


def test_inputs_of_a_v0_net_are_its_input_dim():
    old = 'input: "a" {} layers {{ bottom: "a" top: "r" layer {{ name: "r" type: "relu" }} }}'
    new = """layer {{ name: "input" type: "Input" top: "a" input_param {{ shape {{ {} }} }} }}
             layer {{ name: "r" type: "ReLU" bottom: "a" top: "r" }}"""
    dims = "dim: 1 dim: 2 dim: 3 dim: 4"
    assert_upgrades_to(old.format("input_dim: [1, 2, 3, 4] input_shape { dim: 5 }"), new.format(dims))
    assert_upgrades_to(old.format("input_shape { dim: 5 }"), new.format("dim: 5"))


def test_inputs():
    assert_upgrades_to(
        'input: "a" input: "b" input_dim: [1, 2, 3, 4, 5, 6, 7, 8] layer { name: "x" }',
        """layer { name: "input" type: "Input" top: "a" top: "b"
             input_param { shape { dim: [1, 2, 3, 4] } shape { dim: [5, 6, 7, 8] } } } layer { name: "x" }""",
    )
    assert_upgrades_to('input: "a" layer { name: "x" }', 'layer { name: "x" }')


def test_batch_norm_only_with_three_params():
    text = 'layer { type: "BatchNorm" param { lr_mult: 2 } } layer { type: "BatchNorm" batch_norm_param { } }'
    assert_upgrades_to(text, text)
    assert_upgrades_to(
        'layer { type: "BatchNorm" param { name: "m" } param {} param { lr_mult: 1 decay_mult: 1 } }',
        """layer { type: "BatchNorm" param { name: "m" lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 decay_mult: 0 }
           param { lr_mult: 0 decay_mult: 0 } }""",
    )


V1, V2 = 'layers { name: "old" type: RELU } ', 'layer { name: "new" type: "ReLU" } '
V0 = 'layers { layer { name: "older" type: "relu" } } '


@pytest.mark.parametrize(
    "text, words",
    [
        (V1 + V2, ['"layers"', '"old"', '"layer"', '"new"']),
        (V0 + V2, ['"layers"', '"older"', '"layer"', '"new"']),
        (V0 + V1, ["V0", "V1", '"old"']),
        ('layers { layer { name: "x" type: "covn" } }', ['"x"', '"covn"', "did you mean conv"]),
        ('layers { layer { name: "x" type: "conv" } bottom: "nope" }', ['"x"', '"nope"']),
        (PAD + 'layers { layer { name: "r" type: "relu" } bottom: "p" }', ['"r"', '"relu"', '"p"', "conv and pool"]),
        (PAD + 'layers { layer { name: "c" type: "conv" } bottom: "p" bottom: "d" }', ['"c"', "2 bottoms"]),
        (
            PAD.replace('top: "p"', 'top: "p" top: "z"') + 'layers { layer { type: "conv" } bottom: "p" }',
            ['"p"', "2 tops"],
        ),
        ('input: "a" input: "b" input_dim: [1, 2, 3, 4]', ["a, b", "8 in all", "4"]),
        ('input: "a" input: "b" input_shape { dim: 1 }', ["a, b", "2 in all", "1"]),
    ],
)
def test_errors(text, words):
    with pytest.raises(NetError) as caught:
        upgrade_net(parse_text(text, NET), "old.prototxt")
    for word in ["old.prototxt: ", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "old, new", [("SGD", "SGD"), ("NESTEROV", "Nesterov"), ("RMSPROP", "RMSProp"), ("ADADELTA", "AdaDelta")]
)
def test_solver_types(old, new):
    solver = SOLVER(solver_type=SOLVER.SolverType.Value(old))
    upgrade_solver(solver)
    assert solver == SOLVER(type=new)


def test_solver_with_both_types():
    with pytest.raises(SolverError, match=r's.prototxt: both solver_type: ADAM .* type: "SGD"'):
        upgrade_solver(SOLVER(solver_type=5, type="SGD"), "s.prototxt")


def test_the_old_form_holds_the_layers_of_forks_and_their_options() -> None:
    text = """layers { name: "u" type: UPSAMPLE upsample_param { scale: 3 } }
              layers { name: "b" type: BN bn_param { slope_filler { value: 2 } } }
              layers { name: "r" type: ROI_POOLING roi_pooling_param { pooled_h: 7 } }
              layers { name: "v" type: UNPOOLING unpooling_param { unpool_size: 4 } }"""
    net = upgraded(text)
    assert [layer.type for layer in net.layer] == ["Upsample", "BN", "ROIPooling", "Unpooling"]
    assert net.layer[0].upsample_param.scale == 3 and net.layer[1].bn_param.slope_filler.value == 2
    assert net.layer[2].roi_pooling_param.pooled_h == 7 and net.layer[3].unpooling_param.unpool_size == 4
