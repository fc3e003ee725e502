"""Programs that say ``import caffe``, run as they are."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import warm_start

import pycaffe_compat
from pycaffe_compat import pycaffe
from pycaffe_compat.__main__ import main
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.layers.python_layer import FixedBlobs
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.pycaffe import install_as_caffe

SCRIPT = """
import sys
import numpy as np
import caffe
from caffe import layers as L, params as P
from caffe.proto import caffe_pb2
import caffe.io
from caffe.coord_map import crop
from google.protobuf import text_format

caffe.set_mode_cpu()
n = caffe.NetSpec()
n.data = L.Input(shape=dict(dim=[2, 3, 8, 8]))
n.conv = L.Convolution(n.data, kernel_size=3, num_output=4, weight_filler=dict(type="xavier"))
n.pool = L.Pooling(n.conv, kernel_size=2, stride=2, pool=P.Pooling.MAX)
with open("n.prototxt", "w") as f:
    f.write(str(n.to_proto()))
net = caffe.Net("n.prototxt", caffe.TEST)
net.blobs["data"].data[...] = np.arange(2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
out = net.forward()
param = caffe_pb2.NetParameter()
text_format.Merge(open("n.prototxt").read(), param)
assert [l.name for l in param.layer] == ["data", "conv", "pool"]
assert "Convolution" in caffe.layer_type_list()
print(out["pool"].shape, sys.argv[1:], __name__)
"""


ROOT = Path(__file__).parents[2]
PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def run_new(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pycaffe_compat", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        timeout=120,
    )


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return warm_start.run("-m", "pycaffe_compat", *arguments, cwd=folder)


def test_a_script_and_a_module_run_with_this_package_as_caffe(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    flags = ("--flag", "x")
    for done in (run_new(tmp_path, "script.py", *flags), run(tmp_path, "-m", "script", *flags)):
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == "(2, 4, 3, 3) ['--flag', 'x'] __main__"


def test_the_top_level_has_caffes_names_and_tells_its_two_kinds_of_net_apart() -> None:
    for name in set(pycaffe.__all__) - {"layers", "proto"}:
        assert getattr(pycaffe_compat, name) is getattr(pycaffe, name), name
        assert name in pycaffe_compat.__all__
    assert pycaffe_compat.layers.REGISTRY and pycaffe_compat.proto.caffe_pb2  # subpackages, not NetSpec's layers
    assert pycaffe.layers is pycaffe.net_spec.layers
    assert pycaffe.RawBlobVec is FixedBlobs
    assert issubclass(pycaffe_compat.CaffeModule, torch.nn.Module)
    proto = parse_text('input: "x" input_shape { dim: 1 }', caffe_pb2.NetParameter)
    assert type(pycaffe_compat.Net(proto, pycaffe_compat.TEST).module) is pycaffe_compat.CaffeModule


LOGS = """
import os
import sys
import caffe

os.environ["GLOG_minloglevel"] = sys.argv[1]
with open("net.prototxt", "w") as f:
    f.write('layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 2 dim: 3 } } }'
            'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 1 } }'
            'layer { name: "loss" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1 }')
with open("solver.prototxt", "w") as f:
    f.write('train_net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" display: 1 snapshot_after_train: false')
caffe.SGDSolver("solver.prototxt").step(2)
"""


def test_a_solver_that_a_script_runs_writes_caffes_log_unless_it_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(LOGS)
    log = run(tmp_path, "script.py", "0").stderr
    assert re.search(r"^I\d{4} \S+ +\d+ solver.cpp:218\] Iteration 1 \(.*\), loss = -0.4$", log, re.MULTILINE), log
    assert run(tmp_path, "script.py", "1").stderr == ""


PROCESSES = """
import multiprocessing
import subprocess
import sys

import caffe
from caffe.proto import caffe_pb2

def work(name):
    return caffe.Layer.__module__ + name + str(len(caffe_pb2.NetParameter(name="x").name))

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.map(work, ["!"]))
    code = "import caffe.io; from caffe import layers as L; print(caffe.io.Transformer, L.ReLU)"
    print(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
"""


def test_processes_that_a_script_starts_have_caffe_too(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(PROCESSES)
    done = run_new(tmp_path, "script.py")
    assert done.returncode == 0, done.stderr
    assert "pycaffe_compat.layers.python_layer!1" in done.stdout and "io.Transformer" in done.stdout


FORK = """
import sys
sys.path.insert(0, "fork/python")
import caffe
from caffe.libs import body
from caffe.more.inner import deep
print(body(), deep, caffe.io.__name__)
try:
    import caffe.metalayers
except ImportError as error:
    print(error)
"""


def test_a_forks_own_modules_come_from_its_sources_and_nothing_else_of_them(tmp_path: Path) -> None:
    package = tmp_path / "fork" / "python" / "caffe"
    (package / "more").mkdir(parents=True)
    for name in ("__init__.py", "io.py", "more/__init__.py"):
        (package / name).write_text("raise SystemExit('of the fork')\n" if name != "more/__init__.py" else "")
    (package / "libs.py").write_text(
        "import caffe\ndef body(): return caffe.layers.ReLU(caffe.layers.Input()).fn.type_name\n"
    )
    (package / "more" / "inner.py").write_text("deep = 3\n")
    (tmp_path / "script.py").write_text(FORK)
    done = run(tmp_path, "script.py")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first == "ReLU 3 pycaffe_compat.pycaffe.io"
    assert second.startswith("No module named 'caffe.metalayers'") and "python folder" in second


def test_wrong_arguments_are_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> object:
        monkeypatch.setattr(sys, "argv", ["pycaffe_compat", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        return stopped.value.code

    monkeypatch.setitem(sys.modules, "caffe", importlib.import_module("pycaffe_compat.pycaffe"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    assert said("nothing.py") == "python -m pycaffe_compat: there is no file nothing.py"
    assert "module is missing" in str(said("-m"))
    assert said("--help") == 0 and said() == 2
    assert "usage: python -m pycaffe_compat SCRIPT.py" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "caffe", sys)
    with pytest.raises(CaffeError, match="another caffe is imported already"):
        install_as_caffe()
