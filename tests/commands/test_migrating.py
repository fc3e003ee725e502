"""docs/migrating.md: its Python runs, and its commands."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import warm_start
from console_scripts import ROOT, SCRIPTS
from fork_model import fork_model, message
from golden_files import ROOT as GOLDENS

from pycaffe_compat import load

TEXT = (ROOT / "docs/migrating.md").read_text()
SECTIONS = {part.splitlines()[0]: part for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]}
BODY = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 8 stride: 8 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool1" top: "fc"
  inner_product_param { num_output: 10 weight_filler { type: "gaussian" std: 0.01 } } }
"""
DEPLOY = (
    'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 32 dim: 32 } } }'
    + BODY
    + 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }'
)
TRAIN_VAL = f"""
layer {{ name: "data" type: "ImageData" top: "data" top: "label"
  transform_param {{ mean_value: 104 mean_value: 117 mean_value: 123 }}
  image_data_param {{ source: "{GOLDENS / "data" / "list.txt"}" root_folder: "{GOLDENS / "data" / "images"}/"
    batch_size: 4 new_height: 32 new_width: 32 }} }}
{BODY}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all files that the page speaks of."""
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(DEPLOY)
    Path("train_val.prototxt").write_text(TRAIN_VAL)
    Path("solver.prototxt").write_text(
        'net: "train_val.prototxt" base_lr: 1e-4 lr_policy: "fixed" momentum: 0.9 max_iter: 4 display: 2 snapshot: 2 '
        'test_iter: 1 test_interval: 4 snapshot_prefix: "made" solver_mode: CPU'
    )
    torch.manual_seed(0)
    load("deploy.prototxt").save("net.caffemodel")
    shutil.copy(GOLDENS / "upgrade/v1.prototxt", "old.prototxt")
    half = b"\x50\x02" + message(12, np.arange(8, dtype="<f2").tobytes())  # raw_data of float16
    shape = message(7, message(1, b"\x08"))
    Path("nvidia.caffemodel").write_bytes(message(100, message(1, b"conv1"), message(7, shape, half)))
    Path("fork.caffemodel").write_bytes(fork_model())
    pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
    assert cv2.imwrite("cat.jpg", pixels)
    return tmp_path


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[title], flags=re.MULTILINE | re.DOTALL)


def run(code: str, *options: str) -> str:
    Path("script.py").write_text(code)
    done = warm_start.run(*options, "script.py")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("kind", "options"), [("after", []), ("unchanged", ["-m", "pycaffe_compat"])])
def test_python(kind: str, options: list[str], folder: Path) -> None:
    """Every block, with names of its own, in one process."""
    page = [(title, code) for title in SECTIONS for code in blocks(title, "python")]
    assert {code.splitlines()[0] for _, code in page} == {"# before", "# after", "# unchanged"}
    chosen = [(title, code) for title, code in page if code.startswith(f"# {kind}\n")]
    assert chosen
    run("".join(f"exec(compile({code!r}, {title!r}, 'exec'), {{}})\n" for title, code in chosen), *options)


def test_scores_are_those_of_pycaffes_steps(folder: Path) -> None:
    """The page's way with PyTorch gives what its way with numpy gives, for an image of the input's size."""
    assert cv2.imwrite("cat.jpg", cv2.imread("cat.jpg")[:32, :32])
    unchanged = next(code for code in blocks("From pycaffe", "python") if "# unchanged" in code).split("net.params")[0]
    after = next(code for code in blocks("From OpenCV's dnn", "python") if "# after" in code)
    one = run(unchanged + "np.save('one', scores)", "-m", "pycaffe_compat")
    two = run(after + "import numpy as np\nnp.save('two', scores[0])")
    assert one == two == ""
    np.testing.assert_allclose(np.load("one.npy"), np.load("two.npy"), rtol=1e-4)
    assert np.load("one.npy").std() > 1e-4


def test_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("classify_cats.py").write_text("import sys, caffe\nassert caffe.TEST == 1 and sys.argv[1:] == ['cat.jpg']\n")
    lines = [
        line
        for title in SECTIONS
        for code in blocks(title, "sh")
        if "# before" not in code
        for line in code.splitlines()
    ]
    lines = [line for line in lines if not line.startswith("#")]
    assert len(lines) == 14
    for line in lines:
        name, *arguments = shlex.split(line)
        if name == "python":
            done = warm_start.run(*arguments)
            assert done.returncode == 0, line + "\n" + done.stderr
            continue
        module, function = SCRIPTS[name].split(":")
        status = getattr(importlib.import_module(module), function)(arguments)
        assert status == 0, line + "\n" + "".join(capsys.readouterr())
    before = [line.split()[0] for line in blocks("From the Caffe command line", "sh")[0].splitlines()[1:]]
    after = [shlex.split(line)[0] for line in blocks("From the Caffe command line", "sh")[1].splitlines()[1:]]
    assert [name.replace("_", "-") for name in before] == [
        "caffe" if name == "caffe-compat" else name.removeprefix("caffe-") for name in after
    ]
