"""Nets as PyTorch programs that load where this package is not: ``.pt2`` (torch.export) and ``.ts.pt`` (TorchScript)."""

from __future__ import annotations

import keyword
import logging
import os
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import CaffeError, NetError
from ..files import atomic_path, sink
from ..layers.base import Layer, Source
from ..layers.inputs import DummyData
from ..layers.recurrent import Carrying
from ..net import Net
from ..ops.operators import decompositions
from .outline import Outline, outline
from .source.layout import identifier

PathLike = str | os.PathLike[str]
log = logging.getLogger(__name__)
_ALONE = """
import importlib.util, sys, numpy as np, torch
sys.modules["pycaffe_compat"] = None  # an import of it is an error
program, data, out = sys.argv[1:]
if program.endswith(".py"):
    spec = importlib.util.spec_from_file_location("exported", program)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    run = module.load()
elif program.endswith(".pt2"):
    run = torch.export.load(program).module()
else:
    run = torch.jit.load(program)
inputs, made = np.load(data), {}
for batch in range(int(inputs["batches"])):
    given = [inputs[f"{batch}/{i}"] for i in range(int(inputs["inputs"]))]
    with torch.no_grad():
        result = run(*map(torch.from_numpy, given))
    for i, each in enumerate(result if isinstance(result, (tuple, list)) else [result]):
        made[f"{batch}/{i}"] = each.detach().numpy()
np.savez(out, **made)
"""


class _Answers(nn.Module):
    """A net as a function of its inputs, in their order, with the exported outputs in theirs."""

    def __init__(self, found: Outline) -> None:
        super().__init__()
        self.net, self.steps, self.inputs = found.net, found.steps, list(found.inputs)
        newest = found.net.wiring.newest
        self.outputs = [newest[name] for name in found.outputs]
        constants = [step for step in found.steps if isinstance(step.layer, DummyData)]
        self.constants = [top for step in constants for top in step.tops]
        for number, value in enumerate(v for step in constants for v in _filled(step.layer)):
            self.register_buffer(f"constant{number}", value, persistent=False)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        constants = (getattr(self, f"constant{number}") for number in range(len(self.constants)))
        given = dict(zip([*self.inputs, *self.constants], [*inputs, *constants], strict=True))
        values = self.net.run_part(self.steps, given)
        return tuple(values[value] for value in self.outputs)


def _draws(layer: Layer) -> bool:
    """Whether a layer makes its tops by itself, and not always the same."""
    if not isinstance(layer, DummyData):
        return isinstance(layer, Source) and not layer.is_input
    return any(filler.type != "constant" for filler in layer.fillers)


def _filled(layer: Layer) -> list[Tensor]:
    """What the tops of DummyData hold."""
    assert isinstance(layer, DummyData)
    return [getattr(layer, f"top{i}") for i in range(len(layer.fillers))]


def to_pt2(net: Net, path: PathLike, dynamic: Mapping[str, Sequence[int]] | None = None) -> Outline:
    """Write ``net`` as a program of aten operators, for ``torch.export.load(path).module()``.

    It takes the inputs in the net's order, and returns a tuple of the outputs, in alphabetical order.

    Args:
        net: built for the TEST phase, with its weights.
        path: ends in ``.pt2``.
        dynamic: by input, the axes whose length may change besides axis 0, which always may where the net allows it.

    Raises:
        NetError: a net that PyTorch cannot trace.
    """
    found = _outline(net, dynamic)
    _forget(found)
    program = _program(found)
    with atomic_path(os.fspath(path)) as temporary, sink(temporary) as file:
        torch.export.save(program, file)  # type: ignore[arg-type]
    return found


def to_torchscript(net: Net, path: PathLike, dynamic: Mapping[str, Sequence[int]] | None = None) -> Outline:
    """Write ``net`` as TorchScript of aten operators, for ``torch.jit.load(path)``; arguments as for :func:`to_pt2`.

    Raises:
        As :func:`to_pt2`.
    """
    found = _outline(net, dynamic)
    examples = tuple(_example(value.shape) for value in found.inputs.values())
    _forget(found)
    try:
        with warnings.catch_warnings(), torch.no_grad(), _readable_names(net):
            warnings.simplefilter("ignore")
            script = torch.jit.trace(_Answers(found), examples, check_trace=False)
    except CaffeError:
        raise
    except Exception as error:
        raise _untraced(found, error) from error
    _forget(found)  # what tracing left in the states, which are the script's too
    with atomic_path(os.fspath(path)) as temporary, sink(temporary) as file:
        torch.jit.save(script, file)
    return found


def run_alone(path: PathLike, batches: Sequence[Mapping[str, np.ndarray]]) -> list[list[np.ndarray]]:
    """Run a program, or a net's source, in a separate process that cannot import this package.

    Returns:
        Its outputs for each batch.

    Raises:
        CaffeError: it does not run there.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, out = str(Path(folder, "in.npz")), str(Path(folder, "out.npz"))
        given = {f"{b}/{i}": array for b, batch in enumerate(batches) for i, array in enumerate(batch.values())}
        counts = {"batches": np.array(len(batches)), "inputs": np.array(len(batches[0]))}
        np.savez(data, **counts, **given)  # type: ignore[arg-type]
        command = [sys.executable, "-B", "-c", _ALONE, os.path.abspath(path), data, out]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise CaffeError(
                f"{os.fspath(path)} does not run by itself: {said[-1] if said else f'exit {done.returncode}'}"
            )
        with np.load(out) as arrays:
            results = dict(arrays)
    return [[array for key, array in results.items() if key.startswith(f"{b}/")] for b in range(len(batches))]


def _outline(net: Net, dynamic: Mapping[str, Sequence[int]] | None) -> Outline:
    found = outline(net, dynamic)
    drawn = [f'"{step.name}" ({step.layer.type_name})' for step in found.steps if _draws(step.layer)]
    if drawn:
        raise NetError(
            f"{net.file or 'the net'}: layer {drawn[0]} makes different tops each time, which a program cannot"
        )
    fixed = [f'"{step.name}" ({step.layer.type_name})' for step in found.steps if not step.layer.traceable]
    if fixed:
        raise NetError(
            f"{net.file or 'the net'}: a traced program would repeat what layer {fixed[0]} does for one input; write ONNX, or "
            "remove the layer from the net and do its work outside the program"
        )
    for step in found.steps:
        axes = set().union(*(found.values[value].moving for value in step.bottom_values)) - {0}
        if axes and not step.layer.planes_traceable:
            raise NetError(
                f'{net.file or "the net"}: height and width cannot change in a program: layer "{step.name}" '
                f"({step.layer.type_name}) depends on the size of its planes, which a trace would freeze; use another target, or "
                "one program per size"
            )
    return found


@contextmanager
def _readable_names(net: Net) -> Iterator[None]:
    """Within, layers whose names TorchScript could not read again have other ones."""
    modules = dict(net._modules)
    net._modules.clear()
    for name, module in modules.items():
        readable = name.isascii() and re.fullmatch(r'[^"\\]+', name) and not keyword.iskeyword(name)
        fine = readable and name not in vars(net) and not hasattr(type(net), name)
        net._modules[name if fine else identifier(name, {*modules, *net._modules})] = module
    try:
        yield
    finally:
        net._modules.clear()
        net._modules.update(modules)


def _forget(found: Outline) -> None:
    """Let the layers that carry a state from pass to pass begin with zeros, so that the program does."""
    for step in found.steps:
        if isinstance(step.layer, Carrying):
            step.layer.reset()


def _example(shape: Sequence[int]) -> Tensor:
    return torch.zeros(tuple(shape))


def _program(found: Outline) -> torch.export.ExportedProgram:
    """The net as PyTorch traces it.

    Raises:
        NetError: it cannot, or not for other lengths of the axes that move.
    """
    from torch.fx.experimental.symbolic_shapes import is_concrete_int  # which takes a second to import

    # an axis of length 1 would be taken for one that is always 1
    shapes = [tuple(max(n, 2) if a in v.moving else n for a, n in enumerate(v.shape)) for v in found.inputs.values()]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = _exported(found, tuple(map(_example, shapes))).run_decompositions(decompositions())
    except CaffeError:
        raise
    except Exception as error:  # torch.export raises what its tracing happens on
        raise _untraced(found, error) from error
    given = [node.meta["val"] for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    for (name, value), tensor in zip(found.inputs.items(), given, strict=True):
        fixed = [str(axis) for axis in sorted(value.moving) if is_concrete_int(tensor.shape[axis])]
        if fixed:
            raise NetError(
                f"{found.net.file or 'the net'}: axis {', '.join(fixed)} of {name} cannot change in a .pt2: the layers' work "
                "depends on its length; use another target"
            )
    return program


def _exported(found: Outline, examples: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    """A first trace; the axes that move have names, if nothing else must be known of their lengths."""
    axes: dict[str, Any] = {}
    named, free = [], []
    for name, value in found.inputs.items():
        names = {a: found.axis(name, a) for a in sorted(value.moving)}
        named.append({a: axes.setdefault(each, torch.export.Dim(each)) for a, each in names.items()})
        free.append(dict.fromkeys(names, torch.export.Dim.AUTO))
    answers = _Answers(found)
    try:
        return torch.export.export(answers, examples, dynamic_shapes={"inputs": tuple(named)}, strict=False)
    except CaffeError:
        raise
    except Exception as error:  # such as that they are not 1
        log.debug("traced again, without names for the axes that may change: %s", error)
    return torch.export.export(answers, examples, dynamic_shapes={"inputs": tuple(free)}, strict=False)


def _untraced(found: Outline, error: Exception) -> NetError:
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return NetError(f"{found.net.file or 'the net'}: PyTorch cannot trace it: {why}")
