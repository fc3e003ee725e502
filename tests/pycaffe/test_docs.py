"""docs/pycaffe.md: the names that it lists are there, all of them are listed, and its layer runs."""

from __future__ import annotations

import operator
import re
from pathlib import Path

import numpy as np
import pytest

import pycaffe_compat
import pycaffe_compat.pycaffe as caffe
from pycaffe_compat.layers import python_layer

TEXT = (Path(__file__).parents[2] / "docs" / "pycaffe.md").read_text()


def section(title: str) -> str:
    return re.split(r"^##+ ", TEXT.split(f"## {title}\n")[1], flags=re.MULTILINE)[0]


def test_the_names_are_those_of_the_module_and_of_the_package() -> None:
    rows = [line.split("|")[1] for line in section("What there is").splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    for name in listed - {"__version__"}:
        assert operator.attrgetter(name)(caffe) is operator.attrgetter(name)(pycaffe_compat) or name == "layers"
    modules = {"caffe_pb2", "classifier", "detector", "install_as_caffe", "proto"}
    assert set(caffe.__all__) - modules <= listed
    for name in re.findall(r"`(?:net\.)?(_\w+)", section("What there is").split("underscore names")[1]):
        assert hasattr(caffe.Net, name)


def test_the_package_stands_for_caffe_with_its_registry_too() -> None:
    from pycaffe_compat import layers as L
    from pycaffe_compat import params as P

    assert "L, params as P" in TEXT
    n = pycaffe_compat.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 4, 4]})
    n.pool = L.Pooling(n.data, kernel_size=2, pool=P.Pooling.AVE)
    assert n.to_proto().layer[1].pooling_param.pool == P.Pooling.AVE
    assert L.register and not hasattr(L, "Convolutoin")


def test_the_layer_written_in_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.findall(r"```python\n(.*?)```", section("Layers in Python"), re.DOTALL)[0]
    (tmp_path / "documented.py").write_text(f"import pycaffe_compat as caffe\n{code}")
    (tmp_path / "net.prototxt").write_text(
        'force_backward: true input: "x" input_shape { dim: 2 dim: 3 } layer { name: "l" type: "Python" bottom: "x" top: "y" '
        'python_param { module: "documented" layer: "Tenfold" } }'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(python_layer, "_allowed", True)
    net = caffe.Net(tmp_path / "net.prototxt", caffe.TRAIN)
    np.testing.assert_array_equal(net.forward(x=np.ones((2, 3)))["y"], 10)
    np.testing.assert_array_equal(net.backward(y=np.ones((2, 3)))["x"], 10)
    assert net.layers[1].python.factor == 10
