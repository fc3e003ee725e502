"""Nets as programs of PyTorch that need nothing of this package."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from exported_nets import ALIGNED, CLASSIFIER, CONVNET, FLOWS, MORE_LAYERS, answering, build_net, golden_net, layer_net
from ssd_net import NET as SSD

from pycaffe_compat.errors import CaffeError, NetError
from pycaffe_compat.export import run_alone, to_pt2, to_torchscript
from pycaffe_compat.export.verify import differences, random_batches

EXACT = 1e-6
WRITERS = {"pt2": to_pt2, "ts.pt": to_torchscript}
REWRITING = ("min_value", "normalize: true")
SWITCHES = [
    *(
        "pool_ave_k3s2p1",
        "pool_max_k3s2p1",
        "pool_mask_k3s2p1",
        "depool_switch_w_k3s2_ceil_local",
        "depool_ave_k3s2_ceil",
    ),
    *("switch_pool_k3s2", "depool_sum_w_k3s3p1", "depool_fix_k2s2", "lrn_across", "lstm"),
]


@pytest.mark.parametrize("ending", WRITERS)
def test_they_run_in_a_process_without_this_package(ending, classifier, tmp_path):
    path = tmp_path / f"net.{ending}"
    found = WRITERS[ending](classifier, path)
    batch = random_batches(found)[1]
    assert len(batch["data"]) == 2
    assert max(each.relative for each in differences(classifier, found, batch, run_alone(path, [batch])[0])) <= EXACT


@pytest.mark.parametrize("name", SWITCHES)
def test_pt2_is_of_pytorchs_operators_alone(name, tmp_path):
    net, batch = golden_net("layers", name)
    found = to_pt2(net, tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2")
    spaces = {node.target.namespace for node in program.graph.nodes if hasattr(node.target, "namespace")}
    assert spaces <= {"aten", "prim"}
    compare(net, found, batch, program.module())


@pytest.mark.parametrize("name", answering("layers"))
def test_torchscript_is_of_pytorchs_operators_alone(name, tmp_path):
    net, batch = golden_net("layers", name)
    found = to_torchscript(net, tmp_path / "net.ts.pt")
    program = torch.jit.load(tmp_path / "net.ts.pt")
    kinds = {node.kind().partition("::")[0] for node in program.inlined_graph.nodes()}
    assert kinds <= {"aten", "prim"}
    compare(net, found, batch, program)


@pytest.mark.parametrize(("shapes", "layer"), MORE_LAYERS)
def test_layers_of_forks_at_two_batch_sizes(shapes, layer, tmp_path):
    net, batch = layer_net(shapes, layer)
    if not all(each.traceable for each in net.layers.values()):
        return
    path = tmp_path / "net.ts.pt"
    found = to_torchscript(net, path)
    for each in (batch, *random_batches(found)):
        compare(net, found, each, torch.jit.load(path), 1e-5)


@pytest.mark.parametrize(("shapes", "layer"), ALIGNED + FLOWS)
def test_aligned_regions_and_peaks(shapes, layer, tmp_path):
    net, _ = layer_net(shapes, layer)
    found = to_torchscript(net, tmp_path / "net.ts.pt")
    for each in random_batches(found):
        compare(net, found, each, torch.jit.load(tmp_path / "net.ts.pt"))


POOLED = [next(each for each in MORE_LAYERS if f'"{kind}"' in each[1]) for kind in ("ROIPooling", "PSROIPooling")] + [
    ([(2, 4, 9, 8), (5, 5)], 'type: "ROIWarping" roi_warping_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.25 }'),
    (
        [(2, 3, 9, 8, 7), (5, 7)],
        'type: "ROIPooling" roi_pooling_param { pooled_size: 2 pooled_size: 1 pooled_size: 3 spatial_scale: 0.25 }',
    ),
]


@pytest.mark.parametrize(("shapes", "layer"), [ALIGNED[0], ALIGNED[7], *POOLED])
def test_regions_have_a_number_of_their_own(shapes, layer, tmp_path):
    net, _ = layer_net(shapes, layer)
    found = to_pt2(net, tmp_path / "net.pt2")
    program = torch.export.load(tmp_path / "net.pt2").module()
    for each in random_batches(found):
        compare(net, found, each, program)


def test_global_pooling_is_of_planes_of_any_size(tmp_path):
    pools = "".join(
        f'layer {{ name: "{mode}" type: "Pooling" bottom: "conv" top: "{mode}" '
        f"pooling_param {{ pool: {mode} global_pooling: true }} }}"
        for mode in ("MAX", "AVE")
    )
    net = build_net(CONVNET + pools)
    found = to_torchscript(net, tmp_path / "net.ts.pt", {"data": [2, 3]})
    compare(net, found, random_batches(found)[-1], torch.jit.load(tmp_path / "net.ts.pt"))


@pytest.mark.parametrize(
    ("shapes", "layer"), [each for each in MORE_LAYERS if any(word in each[1] for word in REWRITING)]
)
def test_blobs_that_layers_change_stay_in_a_program(shapes, layer, tmp_path):
    net, batch = layer_net(shapes, layer)
    found = to_pt2(net, tmp_path / "net.pt2")
    compare(net, found, batch, torch.export.load(tmp_path / "net.pt2").module())


def compare(net, found, batch, program, most=EXACT):
    own = {name: batch[name] for name in found.inputs}
    with torch.no_grad():
        made = program(*(torch.from_numpy(array) for array in own.values()))
    results = [each.numpy() for each in (made if isinstance(made, (tuple, list)) else [made])]
    assert max(each.relative for each in differences(net, found, own, results)) <= most


@pytest.mark.parametrize("ending", WRITERS)
def test_what_a_trace_would_fix_is_refused(ending, tmp_path):
    with pytest.raises(NetError, match=r'repeat what layer "detection_out" \(DetectionOutput\) does for one input'):
        WRITERS[ending](build_net(SSD), tmp_path / f"net.{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", WRITERS)
def test_what_only_the_loss_reads_is_left_out(ending, tmp_path):
    net = build_net(
        CLASSIFIER
        + 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 1 } } }'
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }'
        + 'layer { name: "two" type: "DummyData" top: "two" dummy_data_param { data_filler { value: 2 } shape { dim: 5 } } }'
        + 'layer { name: "sum" type: "Bias" bottom: "prob" bottom: "two" top: "sum" }'
    )
    found = WRITERS[ending](net, tmp_path / f"net.{ending}")
    load = torch.jit.load if ending == "ts.pt" else lambda path: torch.export.load(path).module()
    assert list(found.inputs) == ["data"] and list(found.outputs) == ["sum"]
    compare(net, found, random_batches(found)[1], load(tmp_path / f"net.{ending}"))


def test_a_program_that_needs_more_than_pytorch_is_told(tmp_path):
    path = tmp_path / "net.ts.pt"
    path.write_bytes(b"no program")
    with pytest.raises(CaffeError, match="does not run by itself"):
        run_alone(path, [{"data": np.zeros((1, 3, 19, 17), "f4")}])


@pytest.mark.parametrize("ending", WRITERS)
def test_a_program_begins_with_no_state_of_the_net(ending, tmp_path):
    net, batch = golden_net("layers", "lstm")
    cont = net.inputs[1]
    batch[cont] = np.ones_like(batch[cont])
    with torch.no_grad():
        net({name: torch.from_numpy(array) for name, array in batch.items()})
    found = WRITERS[ending](net, tmp_path / f"net.{ending}")
    load = torch.jit.load if ending == "ts.pt" else lambda path: torch.export.load(path).module()
    compare(net, found, batch, load(tmp_path / f"net.{ending}"))


@pytest.mark.parametrize("name", ["class", "forward", "größe", 'q\\"'])
def test_names_that_torchscript_cannot_read(name, tmp_path):
    net = build_net(CLASSIFIER.replace('name: "fc"', f'name: "{name}"'))
    found = to_torchscript(net, tmp_path / "net.ts.pt")
    compare(net, found, random_batches(found)[0], torch.jit.load(tmp_path / "net.ts.pt"))
    assert list(net.layers)[-2] == name.replace("\\", "")


@pytest.mark.parametrize("name", [name for name in answering("forks") if "roi" in name and "align" not in name])
def test_regions_at_and_beyond_borders(name, tmp_path):
    net, batch = golden_net("forks", name)
    found = to_torchscript(net, tmp_path / "net.ts.pt")
    compare(net, found, batch, torch.jit.load(tmp_path / "net.ts.pt"))


@pytest.mark.parametrize("ending", WRITERS)
def test_planes_whose_size_a_trace_would_fix_are_refused(ending, tmp_path):
    net = build_net(
        CONVNET + 'layer { name: "spp" type: "SPP" bottom: "pool" top: "spp" spp_param { pyramid_height: 2 } }'
    )
    with pytest.raises(NetError, match=r'height and width cannot change in a program: layer "spp" \(SPP\)'):
        WRITERS[ending](net, tmp_path / f"net.{ending}", {"data": [2, 3]})
    assert not list(tmp_path.iterdir())


def test_a_crop_of_planes_of_any_size(tmp_path):
    net = build_net(
        CONVNET + 'layer { name: "crop" type: "Crop" bottom: "data" bottom: "pool" top: "y" crop_param { offset: 2 } }'
    )
    found = to_pt2(net, tmp_path / "net.pt2", {"data": [2, 3]})
    program = torch.export.load(tmp_path / "net.pt2").module()
    for each in random_batches(found):
        compare(net, found, each, program)


def test_an_axis_that_pytorch_fixes_is_named(tmp_path, monkeypatch):
    net = build_net(
        CONVNET + 'layer { name: "spp" type: "SPP" bottom: "pool" top: "spp" spp_param { pyramid_height: 2 } }'
    )
    monkeypatch.setattr(type(net.layers["spp"]), "planes_traceable", True)
    with pytest.raises(NetError, match=r"axis 2, 3 of data cannot change in a \.pt2"):
        to_pt2(net, tmp_path / "net.pt2", {"data": [2, 3]})


def test_detectors_are_not_traced_by_accident():
    net = build_net(SSD)
    x = torch.zeros(net.blob_shapes[net.inputs[0]])
    for trace in (lambda: torch.jit.trace(net, (x,), strict=False), lambda: torch.export.export(net, (x,))):
        with pytest.raises(
            Exception, match=r'layer "detection_out" \(DetectionOutput\): a trace would repeat what it does'
        ):
            trace()
    assert net(x)["detection_out"].shape[3] == 7
