"""Nets as Python objects: pickled, saved whole and copied, they compute the same and share nothing with the original."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from golden_files import ROOT, golden, names
from test_net import INPUT, net_of

from pycaffe_compat.layers import python_layer
from pycaffe_compat.net import CaffeModule
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.swwae import augment
from pycaffe_compat.swwae.blocks import input_layer
from pycaffe_compat.swwae.demo_nets import LOSS_WEIGHTS, SHAPE, demo_decoder, demo_net


def pickled(net: CaffeModule) -> CaffeModule:
    return pickle.loads(pickle.dumps(net))


def saved(net: CaffeModule) -> CaffeModule:
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [pickled, saved, copy.deepcopy]


def results(net: CaffeModule, batch: dict[str, torch.Tensor]) -> list[torch.Tensor | None]:
    torch.manual_seed(1)
    net.zero_grad()
    objective, outputs = net.objective(batch)
    if objective.requires_grad:
        objective.backward()
    return [*outputs.values(), *(p.grad for p in net.parameters())]


def check(net: CaffeModule, batch: dict[str, torch.Tensor]) -> None:
    """Copies made before a pass, and some made after it, have the results of the net that they are copied from."""
    for _ in range(2):
        copies = [copied(net) for copied in COPIES]
        for other in copies:
            assert {id(p) for p in other.parameters()}.isdisjoint(id(p) for p in net.parameters())
            assert [entry.name for entry in other.learnable] == [entry.name for entry in net.learnable]
            assert all(entry.tensor is entry.layer.blob(entry.index) for entry in other.learnable)
        found = [results(other, batch) for other in copies]
        wanted = results(net, batch)
        for copied, made in zip(COPIES, found, strict=True):
            for have, want in zip(made, wanted, strict=True):
                assert (have is None) == (want is None), copied
                if have is not None and want is not None:
                    torch.testing.assert_close(have, want, rtol=0, atol=0, equal_nan=True, msg=str(copied))


@pytest.mark.parametrize("name", [name for name in names("layers") if not name.startswith("python")])
def test_every_layer(name: str) -> None:
    stored = golden("layers", name)
    net = CaffeModule(parse_text(stored.meta["prototxt"], caffe_pb2.NetParameter), stored.meta["phase"])
    check(net, {n: torch.from_numpy(a) for n, a in stored.group("in").items()})


@pytest.mark.parametrize("kind", ["sae", "swwae"])
def test_the_papers_nets(kind: str) -> None:
    inputs = [input_layer("data", (2, *SHAPE)), input_layer("label", (2,))]
    net = CaffeModule(augment(demo_net(inputs), demo_decoder(kind), LOSS_WEIGHTS), "TRAIN")
    batch = {n: torch.zeros(net.blob_shapes[n]) if n == "label" else torch.rand(net.blob_shapes[n]) for n in net.inputs}
    check(net, batch)


def test_a_blob_seen_with_another_shape() -> None:
    text = (
        INPUT + 'layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" } '
        "inner_product_param { num_output: 4 bias_term: false } }"
        'layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" share_mode: PERMISSIVE } '
        "inner_product_param { num_output: 3 bias_term: false } loss_weight: 1 }"
    )
    net = net_of(text, "TRAIN")
    check(net, {"x": torch.rand(2, 3)})


def note(*_: object) -> None:
    """A hook; one that can be pickled lives in a module."""


@pytest.mark.parametrize("copied", COPIES)
def test_hooks_go_along(copied: Callable[[CaffeModule], CaffeModule]) -> None:
    net = net_of(INPUT + 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" }', "TEST")
    net.layers["r"].register_forward_hook(note)
    assert len(copied(net).layers["r"]._forward_hooks) == 1


DATA = golden("data", "data_layers")


@pytest.mark.parametrize("copied", COPIES)
@pytest.mark.parametrize("case", DATA.meta["cases"])
def test_data_layers_continue_where_the_original_is(
    case: str, copied: Callable[[CaffeModule], CaffeModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "data")
    net = CaffeModule(parse_text(DATA.meta["cases"][case], caffe_pb2.NetParameter), "TEST")
    for number in range(3):
        other = copied(net)
        for made in (other.draw(), net.draw()):
            for name, value in made.items():
                assert torch.equal(value, torch.from_numpy(DATA.arrays[f"{case}/{number}/{name}"]))
        other.close()
    net.close()


@pytest.mark.parametrize("kind, options", [("Affine", ""), ("Times", "param_str: '3'")])
def test_python_layers(kind: str, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent / "layers")
    monkeypatch.setattr(python_layer, "_allowed", True)
    net = net_of(
        INPUT + 'layer { name: "p" type: "Python" bottom: "x" top: "y" loss_weight: 1 '
        f'python_param {{ module: "user_layers" layer: "{kind}" {options} }} }}',
        "TRAIN",
    )
    check(net, {"x": torch.rand(2, 3)})
    net.layers["p"].python.note = [1]
    for copied in COPIES:
        other = copied(net)
        assert other.layers["p"].python is not net.layers["p"].python
        assert other.layers["p"].python.note == [1]
