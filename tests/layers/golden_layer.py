"""Runs the goldens of single layers straight from the registry: layers in order, autograd, no net.

``check("conv_k3p1")`` builds every layer of the golden's prototxt, loads its parameters, runs forward and backward and
compares everything that the golden holds. ``build`` makes one layer from a snippet of prototxt, for other tests.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf import text_format
from torch import Tensor

from pycaffe_compat.layers import Layer, layer_class
from pycaffe_compat.layers.fillers import fill
from pycaffe_compat.layers.making import make_layer
from pycaffe_compat.proto import caffe_pb2
from pycaffe_compat.proto.recognise import forks_of

ROOT = Path(__file__).parents[1] / "goldens"
GOLDENS = ROOT / "layers"


def build(
    prototxt: str, *shapes: Sequence[int], dtype: torch.dtype = torch.float32, phase: int = 0, fork: str = ""
) -> Layer:
    """Return the layer that ``prototxt`` (the inside of ``layer { … }``) describes, its blobs filled.

    Bottoms and tops that it does not name are named after their position. ``phase`` is 0 for TRAIN, 1 for TEST. ``fork`` is
    whose layer it is, where that is not plain.
    """
    param = text_format.Parse(prototxt, caffe_pb2.LayerParameter())
    param.phase = phase
    if not param.bottom:
        param.bottom.extend(f"bottom{i}" for i in range(len(shapes)))
    cls = layer_class(param, fork=fork)
    if not param.top:
        param.top.extend(f"top{i}" for i in range(cls.tops[0]))
    layer = make_layer(param, [tuple(shape) for shape in shapes], "", fork)
    for i, spec in enumerate(layer.blob_specs):
        value = torch.empty(spec.shape, dtype=dtype)
        fill(value, spec.filler)
        layer.set_blob(i, value)
    return layer


def names(*prefixes: str, folder: str = "layers") -> list[str]:
    """The goldens of a folder whose names begin with one of ``prefixes``, sorted; ``forks`` has those of forks' layers."""
    found = sorted(path.stem for path in (ROOT / folder).glob("*.npz") if path.stem.startswith(prefixes))
    assert found, f"no goldens {prefixes} in {ROOT / folder}"
    return found


def tops_of(result: Tensor | tuple[Tensor, ...] | None) -> tuple[Tensor, ...]:
    """What a layer's ``forward`` returned, as a tuple of tops."""
    if result is None:
        return ()
    return (result,) if isinstance(result, Tensor) else tuple(result)


def meta_shapes(layer: Layer, shapes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """The shapes of the tops, as ``forward`` gives them on the meta device before the layer has memory."""
    with torch.no_grad():
        return [tuple(top.shape) for top in tops_of(layer(*(torch.empty(tuple(s), device="meta") for s in shapes)))]


def check_gradients(layer: Layer, *bottoms: Tensor) -> None:
    """Compare the gradients of every top to ``bottoms`` and blobs (all float64) with finite differences."""
    blobs = {
        spec.name: layer.blob(i).detach().requires_grad_() for i, spec in enumerate(layer.blob_specs) if spec.trainable
    }
    leaves = [bottom.requires_grad_() for bottom in bottoms if bottom.is_floating_point()]

    def function(*values: Tensor) -> tuple[Tensor, ...]:
        given = iter(values)
        inputs = tuple(next(given) if bottom.is_floating_point() else bottom for bottom in bottoms)
        return tops_of(torch.func.functional_call(layer, dict(zip(blobs, given, strict=True)), inputs))

    assert torch.autograd.gradcheck(function, (*leaves, *blobs.values()))


def compare(what: str, have: Tensor, want: np.ndarray) -> None:
    """Assert that ``have`` has the shape and, within the goldens' tolerance, the values of ``want``."""
    got = have.detach().cpu().numpy()
    assert got.shape == want.shape, f"{what}: shape {got.shape}, Caffe's is {want.shape}"
    floor = 1e-5 * float(np.abs(want).max(initial=0))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=floor, err_msg=what)


def run(net: Any, arrays: dict[str, np.ndarray], phase: int, forward_only: bool = False) -> dict[str, Tensor]:
    """Run the layers of a ``NetParameter`` and return what a golden holds, under the golden's keys.

    Args:
        arrays: ``in/BLOB``, ``param/LAYER/I`` and ``top_diff/BLOB``, as in the golden.
    """
    values: dict[str, Tensor] = {}
    leaves: dict[str, Tensor] = {}
    shared: dict[str, Tensor] = {}
    layers: dict[str, Layer] = {}
    roots: list[tuple[Tensor, Tensor]] = []
    results: dict[str, Tensor] = {}
    likely = forks_of(net)
    for param in net.layer:
        for i, spec in enumerate(param.param):
            if spec.name:  # the golden wrote every owner's blob: the last one stands
                shared[spec.name] = torch.nn.Parameter(torch.from_numpy(arrays[f"param/{param.name}/{i}"]))
    for param in net.layer:
        if param.type == "Input":
            for top in param.top:
                leaves[top] = values[top] = torch.from_numpy(arrays[f"in/{top}"]).requires_grad_(not forward_only)
            continue
        param.phase = phase
        bottoms = [values[name] for name in param.bottom]
        layer = layers[param.name] = make_layer(param, [tuple(b.shape) for b in bottoms], "", net.fork, likely)
        expected = meta_shapes(layer, [b.shape for b in bottoms])
        for i, spec in enumerate(layer.blob_specs):
            value = torch.from_numpy(arrays[f"param/{param.name}/{i}"].copy())
            assert tuple(value.shape) == spec.shape, f"{param.name} blob {i}: not {tuple(value.shape)}"
            owner = param.param[i].name if i < len(param.param) else ""
            layer.set_blob(i, shared.get(owner, value))
        before = [b.detach().clone() for b in bottoms]
        tops = tops_of(layer(*bottoms))
        for bottom, old in zip(bottoms, before, strict=True):
            assert torch.equal(bottom.detach(), old), f"{param.name} wrote into its bottom"
        assert len(tops) == len(param.top), f"{param.name} made {len(tops)} tops, not {len(param.top)}"
        if not layer.open_axes:
            assert [tuple(t.shape) for t in tops] == expected, f"{param.name}: other shapes on the meta device"
        for i, (name, top) in enumerate(zip(param.top, tops, strict=True)):
            values[name] = results[f"out/{name}"] = top
            weight = param.loss_weight[i] if i < len(param.loss_weight) else float(layer.loss and i == 0)
            if weight:
                roots.append((top, torch.full_like(top, weight)))
    for name, layer in layers.items():
        for i, spec in enumerate(layer.blob_specs):
            if not spec.trainable:
                results[f"state/{name}/{i}"] = layer.blob(i)
    if forward_only:
        return results
    if net.force_backward:  # otherwise Caffe runs backward only what a loss is made from
        seeds = [key for key in arrays if key.startswith("top_diff/")]
        roots += [(values[key.removeprefix("top_diff/")], torch.from_numpy(arrays[key])) for key in seeds]
    roots = [(value, diff) for value, diff in roots if value.requires_grad]
    if roots:
        torch.autograd.backward([value for value, _ in roots], [diff for _, diff in roots])
    for name, leaf in leaves.items():
        results[f"in_diff/{name}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    for name, layer in layers.items():
        for i, blob in enumerate(layer.blobs):
            results[f"param_diff/{name}/{i}"] = torch.zeros_like(blob) if blob.grad is None else blob.grad
    return results


def check(name: str, folder: str = "layers") -> None:
    """Run the golden ``name`` and compare every ``out/``, ``state/``, ``in_diff/`` and ``param_diff/`` in it."""
    with np.load(ROOT / folder / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    meta = json.loads(str(arrays.pop("meta")))
    net = text_format.Parse(meta["prototxt"], caffe_pb2.NetParameter())
    results = run(net, arrays, caffe_pb2.Phase.Value(meta["phase"]), meta["forward_only"])
    compared = [key for key in arrays if key.split("/")[0] in ("out", "state", "in_diff", "param_diff")]
    assert compared, f"{name} holds nothing to compare"
    for key in compared:
        compare(f"{name}: {key}", results[key], arrays[key])
