"""Nets as plain PyTorch source: every layer that has a golden, run beside the net; how the source reads."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from exported_nets import (
    ALIGNED,
    CASCADES,
    CLASSIFIER,
    CONVNET,
    FLOWS,
    MORE_LAYERS,
    TEXT_DETECTIONS,
    answering,
    build_net,
    golden_net,
    layer_net,
)

from pycaffe_compat.errors import CaffeError, NetError
from pycaffe_compat.export import Preprocessing, to_source
from pycaffe_compat.export.source import helpers
from pycaffe_compat.export.source.writer import EMITTERS
from pycaffe_compat.export.verify import differences, random_batches
from pycaffe_compat.net import Net

EXACT = 1e-6


def source_module(path: Path) -> ModuleType:
    """A file that was written, imported."""
    spec = importlib.util.spec_from_file_location("exported", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def worst(net: Net, path: Path, *batches: dict, **options: object) -> float:
    """The largest difference between a net and its source, as a part of an output's range."""
    found = to_source(net, path, **options)
    module = source_module(path).load()
    largest = 0.0
    for batch in (*batches, *random_batches(found)):
        own = {name: batch[name] for name in found.inputs}
        with torch.no_grad():
            made = module(*map(torch.from_numpy, own.values()))
        results = [each.numpy() for each in (made if isinstance(made, tuple) else [made])]
        largest = max(largest, *(each.relative for each in differences(net, found, own, results)))
    return largest


def test_no_two_helpers_have_one_name():
    """They may stand in one file."""
    files = Path(helpers.__path__[0]).glob("*.py")
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [node.name for file in files for node in ast.parse(file.read_text()).body if isinstance(node, kinds)]
    assert len(names) > 90 and len(set(names)) == len(names)


def is_formatted(folder: Path) -> str:
    """What ruff, as it is without settings, would have otherwise of the files in a folder."""
    commands = (["format", "--diff"], ["check", "--select", "E,F,W,I,B,UP,PIE"])
    runs = [
        subprocess.run([sys.executable, "-m", "ruff", *command, "--isolated", "."], cwd=folder, capture_output=True)
        for command in commands
    ]
    return "".join(run.stdout.decode() for run in runs if run.returncode)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the sources of all goldens lie."""
    return tmp_path_factory.mktemp("sources")


@pytest.mark.parametrize(
    ("where", "name"), [(where, name) for where in ("layers", "forks") for name in answering(where)]
)
def test_layers_compute_what_the_net_computes(where, name, folder):
    net, batch = golden_net(where, name)
    path = folder / f"{where}_{name}.py"
    unknown = [
        layer for layer in net.layers.values() if EMITTERS.find(type(layer)) is None and layer.type_name != "Input"
    ]
    if unknown:
        assert where == "forks"
        with pytest.raises(NetError, match=rf"{unknown[0].type_name}\): no PyTorch source is known here for it"):
            to_source(net, path)
        assert not path.exists()
        return
    assert worst(net, path, batch) <= EXACT


def test_sources_of_all_goldens_are_formatted(folder):
    assert not is_formatted(folder)


def test_a_classifier_reads_as_one_would_write_it(classifier, tmp_path):
    path = tmp_path / "net.py"
    assert worst(classifier, path) <= EXACT
    text = path.read_text()
    lines = text[text.index("        self.conv =") : text.index("\n\n\ndef load")]
    assert (
        lines
        == """\
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)  # and scale
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)

        self.fc = nn.Linear(224, 5)
        self.prob = nn.Softmax(dim=1)

    def forward(self, data: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(data)))  # (N, 4, 17, 15)
        x = self.pool(x)  # (N, 4, 8, 7)

        x = self.fc(x.flatten(1))  # (N, 5)
        prob = self.prob(x)  # (N, 5)
        return prob"""
    )
    assert not is_formatted(tmp_path)


def test_folding_leaves_only_convolutions(classifier, tmp_path):
    path = tmp_path / "net.py"
    assert worst(classifier, path, fold=True) <= 1e-5
    assert "BatchNorm" not in path.read_text() and "x = self.relu(self.conv(data))" in path.read_text()


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        *("scale_bias: true", "use_weight_bias: true relu: true", "bias_term: false", "use_global_stats: false"),
        *("disable_variance: true", "disable_mean: true", "update_global_stats: true use_global_stats: true"),
    ],
)
def test_batch_norms_of_forks(options, fold, tmp_path):
    prototxt = CLASSIFIER.replace(
        'bottom: "conv" top: "conv" }', f'bottom: "conv" top: "conv" batch_norm_param {{ {options} }} }}', 1
    )
    assert options in prototxt and worst(build_net(prototxt), tmp_path / "net.py", fold=fold) <= 1e-5


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 1, 1), (2, 3, 4, 4), (4,)])
def test_batch_norm_by_the_batchs_own_statistics(shape, tmp_path):
    dims = " ".join(f"dim: {n}" for n in shape)
    net = build_net(
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}'
        'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" batch_norm_param { use_global_stats: false } }'
    )
    assert worst(net, tmp_path / "net.py") <= 1e-5


@pytest.mark.parametrize(("shapes", "layer"), MORE_LAYERS)
def test_regions_sequences_and_planes(shapes, layer, tmp_path):
    net, batch = layer_net(shapes, layer)
    assert worst(net, tmp_path / "net.py", batch) <= EXACT
    assert not is_formatted(tmp_path)


@pytest.mark.parametrize("options", ["pool: STOCHASTIC", "pool: MAX kernel_size: 2 dilation: 2", "pool: MAX"])
def test_global_pooling_of_planes_that_may_change(options, tmp_path):
    whole = "" if "kernel" in options else "global_pooling: true"
    mask = 'top: "mask"' if options == "pool: MAX" else ""
    layer = f'bottom: "conv" top: "y" {mask} type: "Pooling" pooling_param {{ {options} {whole} }}'
    net = build_net(f'{CONVNET} layer {{ name: "y" {layer} }}')
    if not whole:
        assert worst(net, tmp_path / "net.py", dynamic={"data": (2, 3)}) <= EXACT
        return
    with pytest.raises(NetError, match=r'"y" \(Pooling\): axis 2 of its bottom .* may change'):
        to_source(net, tmp_path / "net.py", dynamic={"data": (2, 3)})


@pytest.mark.parametrize(("shapes", "layer"), ALIGNED + FLOWS)
def test_aligned_regions_peaks_and_flows(shapes, layer, tmp_path):
    assert worst(layer_net(shapes, layer)[0], tmp_path / "net.py") <= EXACT
    assert not is_formatted(tmp_path)


@pytest.mark.parametrize("kind", ["IOU", "IOMU", "IOFU"])
@pytest.mark.parametrize(("shapes", "layer"), CASCADES)
def test_cascades(shapes, layer, kind, tmp_path):
    if kind != "IOU" and "iou_thr" not in layer:
        return
    net, _ = layer_net(shapes, layer.replace("iou_thr", f'nms_type: "{kind}" iou_thr'))
    assert worst(net, tmp_path / "net.py") <= EXACT
    assert kind != "IOU" or not is_formatted(tmp_path)


@pytest.mark.parametrize("mode", ["MAX", "AVE", "SUM"])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 3, 5, 6, 7), "kernel_size: 3 stride: 2"),
        (
            (2, 3, 5, 6, 7),
            "kernel_size_3d: 2 kernel_size_3d: 3 kernel_size_3d: 1 stride_3d: 2 pad_3d: 1 pad_3d: 1 pad_3d: 0",
        ),
        ((2, 3, 9), "kernel_size: 3 pad: 1 stride: 2 avg_include_pad: false"),
        ((2, 3, 9, 8), "kernel_size: 3 dilation: 2 pad: 1"),
        ((4, 9, 8), "axis: 0 kernel_size: 3 stride: 2 dilation: 2"),
        ((2, 3, 5, 6, 7), "global_pooling: true"),
        ((1, 2, 7, 8), "kernel_size: 3 stride: 2 pad: 2"),
        ((1, 2, 7, 8), "kernel_h: 3 kernel_w: 2 stride: 3 pad_h: 0 pad_w: 1 round_mode: FLOOR"),
    ],
)
def test_pooling(mode, shape, options, tmp_path):
    dims = " ".join(f"dim: {n}" for n in shape)
    mask = 'top: "mask"' if mode == "MAX" else ""
    net = build_net(
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}'
        f'layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool" {mask} '
        f"pooling_param {{ pool: {mode} {options} }} }}"
    )
    assert worst(net, tmp_path / "net.py") <= EXACT


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Upsample" bottom: "mask" upsample_param { scale: 2 }',
        'type: "Upsample" bottom: "mask" upsample_param { upsample_h: 7 upsample_w: 9 }',
        'type: "Upsample" bottom: "mask" upsample_param { upsample_h: 9 upsample_w: 12 }',
        'type: "Unpooling" bottom: "mask" unpooling_param { unpool: MAX kernel_size: 2 stride: 2 unpool_h: 8 unpool_w: 9 }',
        'type: "Unpooling" unpooling_param { unpool: MAX kernel_size: 2 stride: 2 unpool_h: 9 unpool_w: 9 }',
        'type: "Unpooling" unpooling_param { unpool: AVE kernel_size: 3 stride: 2 unpool_h: 10 unpool_w: 11 }',
        'type: "Unpooling" unpooling_param { unpool: TILE kernel_size: 3 stride: 2 unpool_size: 10 }',
    ],
)
def test_unpooling_of_forks(layer, tmp_path):
    width = 12 if "w: 12" in layer else 9
    net = build_net(
        f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 2 dim: 7 dim: {width} }} }} }}'
        'layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" top: "mask" '
        "pooling_param { kernel_size: 2 stride: 2 } }"
        f'layer {{ name: "up" bottom: "pool" top: "up" {layer} }}'
    )
    assert worst(net, tmp_path / "net.py") <= EXACT


def test_detections_of_refinedet(tmp_path):
    sizes = {
        "loc": (2, 16),
        "conf": (2, 12),
        "map": (1, 1, 2, 2),
        "picture": (1, 3, 20, 20),
        "objects": (2, 8),
        "moves": (2, 16),
    }
    tops = " ".join(f'top: "{name}"' for name in sizes)
    shapes = " ".join(f"shape {{ {' '.join(f'dim: {n}' for n in shape)} }}" for shape in sizes.values())
    net = build_net(
        f'layer {{ name: "data" type: "Input" {tops} input_param {{ {shapes} }} }}'
        'layer { name: "priors" type: "PriorBox" bottom: "map" bottom: "picture" top: "priors" prior_box_param { min_size: 8 } }'
        'layer { name: "found" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "priors" bottom: "objects" '
        'bottom: "moves" top: "found" detection_output_param { num_classes: 3 code_type: CENTER_SIZE objectness_score: -0.5 '
        "keep_top_k: 5 nms_param { nms_threshold: 0.3 } } }"
    )
    assert worst(net, tmp_path / "net.py") <= EXACT
    assert not is_formatted(tmp_path)


@pytest.mark.parametrize("threshold", [0, 9])
def test_detections_of_textboxes(threshold, tmp_path):
    assert worst(build_net(TEXT_DETECTIONS % threshold), tmp_path / "net.py") <= EXACT


def test_switches_and_many_outputs(tmp_path):
    pool = "pooling_param {{ pool: {} kernel_size: 2 stride: 2 }}"
    sides = "".join(
        f'layer {{ name: "{name}" type: "Power" bottom: "pool" top: "{name}" power_param {{ scale: {i} }} }}'
        for i, name in enumerate(["a_rather_long_name_of_an_output_" + letter for letter in "bcde"], 2)
    )
    net = build_net(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 2 dim: 8 dim: 6 } } }'
        f'layer {{ name: "pool" type: "Pooling" bottom: "data" top: "pool" top: "mask" {pool.format("MAX")} }}'
        'layer { name: "un" type: "Depooling" bottom: "pool" bottom: "mask" top: "un" '
        + pool.format("SWITCH")
        + "}"
        + sides
    )
    path = tmp_path / "net.py"
    assert worst(net, path) <= EXACT and not is_formatted(tmp_path)
    text = path.read_text()
    assert "self.un = nn.MaxUnpool2d(2)" in text and "un = self.un(pool, mask)  # (N, 2, 8, 6)" in text
    assert "pool, mask = self.pool(data)  # (N, 2, 4, 3)" in text and "-> tuple[Tensor, ...]:" in text


def test_a_name_that_cannot_be_imported_is_noted(tmp_path):
    net = build_net(CONVNET)
    for name, noted in (("my-net", 1), ("class", 1), ("net", 0)):
        notes = to_source(net, tmp_path / f"{name}.py").notes
        assert len([note for note in notes if f'import a module called "{name}"' in note]) == noted
        assert (f"from {name} import load\n" in (tmp_path / f"{name}.py").read_text()) == (not noted)


def test_names_become_identifiers(tmp_path):
    layer = 'layer {{ name: "{}" type: "{}" bottom: "{}" top: "{}" {} }}'
    conv = "convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: 'xavier' } }"
    net = build_net(
        'name: "3-way net" layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }'
        + layer.format("train", "Convolution", "x", "lambda", conv)
        + layer.format("1x1/a", "Convolution", "lambda", "torch", conv)
        + layer.format("1x1_a", "Convolution", "lambda", "1/b", conv)
        + layer.format("F", "Eltwise", "torch", "self", 'bottom: "1/b" eltwise_param { operation: MAX }')
        + layer.format("h", "Power", "x", "h", "power_param { power: 2 shift: -1.5 }")
        + layer.format("sum", "Eltwise", "self", "sum", 'bottom: "h" bottom: "x" eltwise_param { coeff: [-1, 0.5, 2] }')
    )
    assert worst(net, tmp_path / "way.py") <= EXACT
    text = (tmp_path / "way.py").read_text()
    assert "class Net3WayNet(nn.Module):" in text and "self.train_2 = nn.Conv2d(3, 3, 1)" in text
    assert "self.layer_1x1_a_2 = nn.Conv2d(3, 3, 1)" in text and "(x - 1.5) ** 2" in text
    assert not is_formatted(tmp_path)


def test_names_cannot_end_a_docstring_or_comment(tmp_path):
    end = r"a\"\"\"\nraise SystemExit # \\"
    layers = CLASSIFIER.replace('name: "small"', f'name: "{end}"').replace('name: "scale"', f'name: "{end}"')
    assert worst(build_net(layers.replace('"prob"', f'"{end}"')), tmp_path / "net.py") <= EXACT
    assert not is_formatted(tmp_path)


def test_other_sizes_and_what_pictures_hold(convnet, tmp_path):
    path = tmp_path / "net.py"
    how = Preprocessing((104, 117, 123), 0.017)
    data = np.random.default_rng(0).standard_normal((2, 3, 40, 23)).astype("f4")
    assert worst(convnet, path, {"data": data}, dynamic={"data": (2, 3)}, preprocessing=how) <= EXACT
    text = path.read_text()
    assert "Inputs: data (N, 3, H, W)." in text
    assert "data holds pictures in BGR, of 0 to 255, minus 104, 117, 123, times 0.017." in text


def test_layers_that_share_weights_share_them(tmp_path):
    fc = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "{1}" top: "{0}" param {{ name: "w" }} param {{ name: "b" }} '
        'inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} bias_filler {{ type: "xavier" }} }} }}'
    )
    net = build_net(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 } } }'
        + fc.format("a", "data")
        + fc.format("b", "a")
    )
    path = tmp_path / "net.py"
    assert worst(net, path) <= EXACT
    module = source_module(path).load()
    assert module.b.weight is module.a.weight and module.b.bias is module.a.bias


def test_weights_of_something_else_are_not_overwritten(classifier, tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"mine")
    with pytest.raises(CaffeError, match=r"net\.safetensors exists already"):
        to_source(classifier, tmp_path / "net.py")
    assert (tmp_path / "net.safetensors").read_bytes() == b"mine"


@pytest.mark.parametrize("options", ["", "out_max_val: true"])
def test_choices_of_a_vector(options, tmp_path):
    net = build_net(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 3 } } }'
        f'layer {{ name: "max" type: "ArgMax" bottom: "data" top: "max" argmax_param {{ {options} }} }}'
    )
    assert worst(net, tmp_path / "net.py") == 0
