"""caffe-export-net: targets, options, and what it refuses; each result runs beside the net before it is left on the disk."""

from __future__ import annotations

import resource
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported_nets import CLASSIFIER, CONVNET, build_net

from pycaffe_compat.commands import export_net
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.export import to_float16, to_int8, verify
from pycaffe_compat.export.outline import outline
from pycaffe_compat.export.source import module
from pycaffe_compat.net import Net

BATCHES = [{"data": np.zeros((1, 3, 19, 17), "f4")}]
LABELS = (
    'layer { name: "lmdb" type: "Data" top: "data" top: "label" data_param { source: "train_lmdb" batch_size: 2 } }'
)
PYTHON = (
    'layer { name: "mine" type: "Python" bottom: "prob" top: "mine" python_param { module: "mine" layer: "Mine" } }'
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a net, its weights, pictures and a mean."""
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(CLASSIFIER)
    build_net(CLASSIFIER).save("net.caffemodel")
    Path("photos").mkdir()
    random = np.random.default_rng(0)
    for i in range(4):
        assert cv2.imwrite(f"photos/{i}.png", random.integers(0, 256, (24, 30, 3), np.uint8))
    np.save("mean.npy", np.full((3, 20, 20), 100.0, "f4"))
    return tmp_path


def export(capfd: pytest.CaptureFixture[str], *arguments: str, net: str = "deploy.prototxt") -> str:
    """Run the command; return what it said, with the exit status before it."""
    status = export_net.main([net, "net.caffemodel", *arguments])
    said = capfd.readouterr()
    return f"{status or 0}: {said.out}{said.err}"


@pytest.mark.parametrize("out", ["net.onnx", "net.pt2", "net.ts.pt", "net.py"])
def test_every_target_is_verified_at_two_batch_sizes(out, capfd):
    said = export(capfd, out)
    assert said.startswith("0: ") and "prob" in said and "input data: any×3×19×17" in said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("prob")] == ["1", "2"]
    assert Path(out).stat().st_size > 1000
    assert f"{out}: 8 layers, " in said
    assert "Expect archive file" not in said, "a library's warning"
    assert ("weights in net.safetensors, " in said) == (out == "net.py")


def test_pictures_mean_and_preprocessing(capfd):
    said = export(capfd, "net.onnx", "--mean", "mean.npy", "--scale", "0.02", "--preprocess", "--pictures", "photos")
    (row,) = (line for line in said.splitlines() if line.startswith("prob"))
    assert said.startswith("0: ") and row.split()[:3] == ["prob", "1", "4"]
    metadata = {each.key: each.value for each in onnx.load("net.onnx").metadata_props}
    assert metadata == {"mean": "100,100,100", "scale": "0.02", "channel_order": "BGR", "preprocessed": "model"}


@pytest.mark.parametrize(("flag", "bits"), [("--fp16", 16), ("--int8", 8)])
def test_fewer_bits_say_what_they_cost(flag, bits, capfd):
    said = export(capfd, "net.onnx", flag, "--pictures", "photos", "--mean", "104,117,123", "--scale", "0.01")
    assert said.startswith("0: ") and f"{flag[2:].replace('fp', 'float')} costs:" in said
    kinds = {each.data_type for each in onnx.load("net.onnx").graph.initializer}
    assert (onnx.TensorProto.FLOAT16 if bits == 16 else onnx.TensorProto.INT8) in kinds
    assert sorted(path.name for path in Path().glob("net.onnx*")) == ["net.onnx"]
    cost = said[said.index("costs:") :].splitlines()
    assert cost[1].split("  ")[-1] == "same choice" and cost[3].split()[:3] == ["prob", "1", "4"]
    pictures = [cv2.resize(cv2.imread(f"photos/{i}.png"), (17, 19)).astype("f4") for i in range(4)]
    data = np.stack([(each - (104, 117, 123)).transpose(2, 0, 1) for each in pictures]) * np.float32(0.01)
    with torch.no_grad():
        want = build_net(CLASSIFIER).run({"data": torch.from_numpy(data.astype("f4"))})[0]["prob"].numpy()
    (have,) = onnxruntime.InferenceSession("net.onnx").run(None, {"data": data.astype("f4")})
    assert float(cost[3].split()[3]) == pytest.approx(np.abs(have - want).max(), rel=0.1, abs=1e-4)
    assert cost[3].split()[-1] == f"{(have.argmax(1) == want.argmax(1)).mean():.1%}"


def test_what_pictures_must_be_is_exact(capfd):
    export(capfd, "net.onnx", "--mean", "104.006989", "--channel-order", "rgb")
    metadata = {each.key: each.value for each in onnx.load("net.onnx").metadata_props}
    assert metadata == {"mean": "104.006989", "scale": "1", "channel_order": "RGB"}


def test_axes_that_may_change(capfd):
    Path("fcn.prototxt").write_text(CONVNET)
    assert "input data: any×3×any×any" in export(capfd, "net.onnx", "--dynamic", "data=2,3", net="fcn.prototxt")


def test_folding(capfd):
    export(capfd, "net.onnx", "--fold")
    assert "Mul" not in {node.op_type for node in onnx.load("net.onnx").graph.node}
    assert export(capfd, "net.py", "--fold").startswith("0: ")
    assert "nn.Conv2d" in Path("net.py").read_text() and "BatchNorm" not in Path("net.py").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.xml"], "net.xml: the file name's ending names no target; valid endings: .onnx, .pt2, .ts.pt, .py"),
        (["net.ts.pt", "--fold"], "--fold is for ONNX and source, not for ts.pt"),
        (["net.pt2", "--fp16"], "--fp16 is for ONNX, not for pt2"),
        (["net.onnx", "--int8"], "--int8 needs --pictures"),
        (["net.onnx", "--opset", "9"], "opset 9: "),
        (["nowhere/net.onnx"], "nowhere"),
        (["photos", "--to", "onnx"], "cannot write photos: it is a folder"),
        (["photos/../net.caffemodel", "--to", "onnx"], "net.caffemodel, which is an input: name another output file"),
        (["deploy.prototxt", "--to", "pt2"], "deploy.prototxt, which is an input: name another output file"),
        (["net.onnx", "--dynamic", "data=2,3"], "axes 2, 3 of data cannot change"),
        (["net.onnx", "--dynamic", "height"], '"height" is not INPUT=AXIS,AXIS'),
        (["net.onnx", "--mean", "1,2", "--preprocess"], "mean: 2 numbers for 3 channels"),
        (["net.onnx", "--mean", "1,2", "--no-verify"], "mean: 2 numbers for 3 channels"),
        (["net.onnx", "--mean", "nan"], "mean: nan; each must be a finite number"),
        (["net.onnx", "--scale", "0"], "scale: 0 must be a finite number that is not 0"),
        (["net.py", "--opset", "19"], "--opset is for ONNX, not for py"),
        (["net.pt2", "--mean", "104"], "with pt2, --mean, --scale and --channel-order only apply to --pictures"),
        (["net.onnx", "--pictures", "photos", "gone.png"], "gone.png"),
    ],
)
def test_what_it_refuses(arguments, message, capfd):
    try:
        said = export(capfd, *arguments)
    except SystemExit:
        said = capfd.readouterr().err
    assert message in said and "Traceback" not in said and not said.startswith("0")
    assert not [path for path in Path().iterdir() if path.name.startswith("net.") and path.name != "net.caffemodel"]


def test_layers_without_weights_are_named(capfd):
    Path("more.prototxt").write_text(
        CLASSIFIER
        + 'layer { name: "fc9" type: "InnerProduct" bottom: "fc" top: "fc9" inner_product_param { num_output: 2 } }'
    )
    assert "has no weights for fc9" in export(capfd, "net.onnx", net="more.prototxt")
    assert export(capfd, "net.onnx", "--random-weights", net="more.prototxt").startswith("0: ")


def test_data_and_python_layers_are_refused(capfd):
    Path("train.prototxt").write_text(LABELS + CLASSIFIER[CLASSIFIER.index('layer { name: "conv"') :])
    assert 'layer "lmdb" (Data) reads data in the TEST phase' in export(capfd, "net.onnx", net="train.prototxt")
    Path("python.prototxt").write_text(CLASSIFIER + PYTHON)
    assert '"mine"' in export(capfd, "net.onnx", net="python.prototxt")
    assert not Path("net.onnx").exists()


def test_source_that_does_not_run_is_not_left_behind(capfd, monkeypatch):
    monkeypatch.setattr(module, "write_source", lambda *a: ("import pycaffe_compat", {}))
    said = export(capfd, "net.py")
    assert said.startswith("1: ") and "net.py does not run by itself: ModuleNotFoundError" in said
    assert not Path("net.py").exists() and not Path("net.safetensors").exists()


def test_a_result_that_differs_is_not_left_behind(capfd, monkeypatch):
    class Off(verify.Difference):
        relative = 0.5

    compare = export_net.compare_onnx
    monkeypatch.setattr(export_net, "compare_onnx", lambda *a: [Off(*vars(each).values()) for each in compare(*a)])
    said = export(capfd, "net.onnx")
    assert said.startswith("1: ") and "net.onnx is not written: its output prob differs from the net's" in said
    assert not Path("net.onnx").exists()
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("out", ["net.onnx", "net.py"])
def test_a_failure_leaves_what_was_there(out, capfd):
    Path(out).write_text("an older export")
    Path("net.safetensors").write_text("its weights")
    before = sorted(Path().iterdir())
    assert export(capfd, out, "--dynamic", "nothing=2").startswith("1: ")
    assert Path(out).read_text() == "an older export" and Path("net.safetensors").read_text() == "its weights"
    assert sorted(Path().iterdir()) == before


def test_an_output_that_is_no_number_differs(capfd):
    outputs = [verify.Difference("a", 1, 0.0, 1.0), verify.Difference("b", 1, float("nan"), 1.0)]
    with pytest.raises(CaffeError, match="output b differs"):
        export_net._check(verify.Outline(None, [], {}, {}, {}), outputs, "net.onnx")  # type: ignore[arg-type]


def test_values_beyond_float32_are_told_from_mistakes(capfd):
    Path("large.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 30 } } }'
        'layer { name: "y" type: "Exp" bottom: "x" top: "y" exp_param { scale: 100 } }'
    )
    said = export(capfd, "net.onnx", "--random-weights", net="large.prototxt")
    assert said.startswith("0: ") and "note: some values of y are infinite or no numbers, in the net too" in said
    found = verify.Outline(None, [], {}, {}, {})  # type: ignore[arg-type]
    with pytest.raises(CaffeError, match="Values of the net's own output are infinite or no numbers"):
        export_net._check(found, [verify.Difference("b", 1, float("inf"), 1.0, finite=False)], "net.onnx")
    with pytest.raises(CaffeError, match="Rounding alone decides what the net's own output is"):
        export_net._check(found, [verify.Difference("b", 1, 1.0, 1.0, rounding=float("inf"))], "net.onnx")


def test_a_blob_of_a_parameter_layer_is_an_output_as_others(capfd):
    Path("more.prototxt").write_text(
        CLASSIFIER + 'layer { name: "q" type: "Parameter" top: "q" parameter_param { shape { dim: 2 } } }'
    )
    said = export(capfd, "net.onnx", "--random-weights", net="more.prototxt")
    assert said.startswith("0: ") and "output q: 2" in said


@pytest.mark.parametrize("out", ["net.onnx", "net.py", "net.ts.pt"])
def test_a_number_without_axes(out, capfd):
    Path("number.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { } } }'
        'layer { name: "y" type: "Power" bottom: "x" top: "y" power_param { scale: 2 } }'
    )
    assert export(capfd, out, "--random-weights", net="number.prototxt").startswith("0: ")


def test_random_weights_of_a_deploy_net_are_not_all_zero(capfd):
    """Deploy nets have no fillers, and zeros agree with everything."""
    Path("bare.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 dim: 5 dim: 5 } } }'
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }'
        'layer { name: "b" type: "BatchNorm" bottom: "c" top: "b" }'
    )
    assert export(capfd, "net.onnx", "--random-weights", net="bare.prototxt").startswith("0: ")
    x = np.ones((1, 3, 5, 5), np.float32)
    (b,) = onnxruntime.InferenceSession("net.onnx").run(None, {"x": x})
    assert 0 < np.abs(b).max() < 20
    found = outline(Net("bare.prototxt", "TEST"))
    (b,) = onnxruntime.InferenceSession("net.onnx").run(None, verify.random_batches(found)[0])
    assert np.abs(b.mean((0, 2, 3))).max() < 1e-5 and np.abs(b.std((0, 2, 3)) - 1).max() < 1e-2
    once = Path("net.onnx").read_bytes()
    assert export(capfd, "net.onnx", "--random-weights", net="bare.prototxt").startswith("0: ")
    assert Path("net.onnx").read_bytes() == once


@pytest.mark.parametrize("out", ["net.onnx", "net.py"])
def test_weights_that_layers_share_in_two_shapes(out, capfd):
    weights = 'param { name: "w" share_mode: PERMISSIVE }'
    filler = 'weight_filler { type: "gaussian" std: 1 }'
    Path("shared.prototxt").write_text(
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 1 dim: 1 } } }'
        f'layer {{ name: "y" type: "Convolution" bottom: "x" top: "y" {weights}'
        f"  convolution_param {{ num_output: 4 kernel_size: 1 bias_term: false {filler} }} }}"
        f'layer {{ name: "z" type: "InnerProduct" bottom: "y" top: "z" {weights}'
        "  inner_product_param { num_output: 3 bias_term: false } }"
    )
    assert export(capfd, out, "--random-weights", net="shared.prototxt").startswith("0: ")


@pytest.mark.parametrize("out", ["net.onnx", "net.py", "net.pt2", "net.ts.pt"])
def test_a_full_disk(out, capfd, monkeypatch):
    before = sorted(Path().iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        said = export(capfd, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said.startswith("1: ") and f"cannot write {out}" in said.replace(".safetensors", ".py")
    assert sorted(Path().iterdir()) == before


@pytest.mark.parametrize("size", [100, 2000])
def test_a_disk_that_fills_while_bits_are_saved(size, capfd):
    export(capfd, "net.onnx")
    before, model = sorted(Path().iterdir()), Path("net.onnx").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        for write in (lambda: to_float16("net.onnx", "net.onnx"), lambda: to_int8("net.onnx", "net.onnx", BATCHES)):
            with pytest.raises(CaffeError, match=r"cannot write net.onnx|room for copies of the model in"):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(Path().iterdir()) == before and Path("net.onnx").read_bytes() == model
