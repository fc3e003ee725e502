"""Layer types that other packages bring, found by entry point when a net names them."""

import sys
from pathlib import Path

import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import REGISTRY, registry
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

NET = """
layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "last" type: "{}" bottom: "x" top: "y" }}
"""
GOOD = """
from pycaffe_compat.layers import Layer, register

loaded = []

@register("Thrice")
class Thrice(Layer):
    def forward(self, x):
        return 3 * x

loaded.append(1)
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``install("name", code)`` puts a distribution with an entry point on ``sys.path``, as pip would."""
    before = dict(REGISTRY)
    registry.load_plug_ins.cache_clear()

    def call(name: str, code: str) -> None:
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{name}_layers.py").write_text(code)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[pycaffe_compat.layers]\n{name} = {name}_layers\n")
        monkeypatch.syspath_prepend(str(folder))

    yield call
    registry.load_plug_ins.cache_clear()
    REGISTRY.clear()
    REGISTRY.update(before)
    for module in [
        name for name in sys.modules if name.endswith("_layers") and str(tmp_path) in str(sys.modules[name])
    ]:
        del sys.modules[module]


def net_of(layer_type: str) -> Net:
    return Net(parse_text(NET.format(layer_type), caffe_pb2.NetParameter), "TEST", file="net.prototxt")


def test_a_plug_in_brings_a_type_and_is_loaded_once_when_it_is_needed(install) -> None:
    install("good", GOOD)
    net_of("ReLU")
    assert "good_layers" not in sys.modules  # nobody asked for it
    net = net_of("Thrice")
    assert torch.equal(net(x=torch.ones(2, 3))["y"], torch.full((2, 3), 3.0))
    for _ in range(2):
        with pytest.raises(LayerError, match=r'unknown layer type "Thrise" \(did you mean Thrice'):
            net_of("Thrise")
    assert sys.modules["good_layers"].loaded == [1]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import a_package_that_is_not_here", "ModuleNotFoundError: No module named 'a_package_that_is_not_here'"),
        ("def broken(:", "SyntaxError: "),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
    ],
)
def test_a_broken_plug_in_is_named_and_the_others_work(install, code: str, reason: str) -> None:
    install("bad", code)
    install("good", GOOD)
    net_of("Thrice")
    with pytest.raises(LayerError) as caught:
        net_of("Fourfold")
    message = str(caught.value)
    assert 'layer "last" in net.prototxt: unknown layer type "Fourfold"' in message
    assert f'plug-in "bad" (bad_layers) of the package bad: {reason}' in message
