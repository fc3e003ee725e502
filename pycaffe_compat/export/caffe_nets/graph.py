"""A module of PyTorch as a graph of its operators, by ``torch.export``."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import CaffeError, NetError
from ...files import PathLike
from .stored import load_program

LIBRARY = torch.library.Library("pycaffe_compat_way_in", "DEF")
LIBRARY.define("local_response_norm(Tensor input, int size, float alpha, float beta, float k) -> Tensor")
LIBRARY.impl("local_response_norm", lambda x, size, alpha, beta, k: torch.empty_like(x), "Meta")


@dataclass(frozen=True)
class Graph:
    """The operators of a module in evaluation, in order.

    Attributes:
        name: of the module's class.
        nodes: of ``torch.fx``.
        constants: parameters, buffers and constants, by the name of the node that stands for them.
        inputs: the nodes that stand for what the module takes.
        outputs: the nodes that it returns.
        module: what was traced; None if it came from a file.
        run: computes what the module computes.
        any_batch: whether axis 0 of the inputs may have any length.
    """

    name: str
    nodes: list[torch.fx.Node]
    constants: dict[str, Tensor]
    inputs: list[torch.fx.Node]
    outputs: list[torch.fx.Node]
    module: nn.Module | None
    run: Any
    any_batch: bool


def trace(module: nn.Module, example: Tensor | Sequence[Tensor], known: Container[str]) -> Graph:
    """Trace a module, in evaluation, for inputs like these.

    Args:
        module: stays as it is.
        example: the input, or several.
        known: the names of operators (:func:`operator_name`) that need not be rewritten.

    Raises:
        NetError: PyTorch cannot trace it, or not for these inputs.
    """
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if not inputs or not all(isinstance(each, Tensor) for each in inputs):
        raise CaffeError(f"the example must be a tensor, or a tuple of them, not {type(example).__name__}")
    name = type(module).__name__
    module = copy.deepcopy(module).eval().requires_grad_(False)
    try:
        with torch.no_grad():
            module(*(each.clone() for each in inputs))
    except Exception as error:  # whatever the user's module raises
        shapes = ", ".join("×".join(map(str, each.shape)) for each in inputs)
        raise NetError(f"{name} does not run on inputs of shape {shapes}: {_first(error)}") from error
    several = tuple(torch.cat([each, each]) if each.dim() and len(each) == 1 else each.clone() for each in inputs)
    batch, axes = torch.export.Dim("batch"), torch.export.ShapesCollection()
    for each in several:
        if each.dim():
            axes[each] = {0: batch}
    try:
        program = _export(module, several, axes.dynamic_shapes(module, several))
        any_batch = True
    except Exception:  # another length of axis 0 is refused in many words
        any_batch = False
        try:
            program = _export(module, tuple(each.clone() for each in inputs), None)
        except Exception as error:
            raise NetError(_untraceable(name, error)) from error
    return _graph(name, program, module, module, any_batch, known)


def read(path: PathLike, known: Container[str]) -> tuple[Graph, tuple[Tensor, ...]]:
    """Read a ``.pt2``; return its graph, and the inputs that it was made with.

    Raises:
        CaffeError: the file cannot be read.
    """
    file = os.fspath(path)
    with _quiet():
        program = load_program(file)
    args, kwargs = program.example_inputs or ((), {})
    if not args or kwargs or not all(isinstance(each, Tensor) for each in args):
        raise CaffeError(f"{file}: its inputs must be tensors that are given by position, with examples in the file")
    inputs = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in program.graph_signature.user_inputs]
    any_batch = all(isinstance(n.meta["val"].shape[0], torch.SymInt) for n in inputs if n.meta["val"].dim())
    name = os.path.basename(file).partition(".")[0]
    try:
        run = program.module()
    except Exception as error:  # whatever of the file does not fit together
        raise CaffeError(f"{file}: its program cannot be run: {_first(error)}") from error
    return _graph(name, program, None, run, any_batch, known), args


def operator_name(target: Any) -> str:
    """An operator of PyTorch as its namespace calls it, such as ``conv2d.default``."""
    return str(target).partition(".")[2]


def shape_of(node: torch.fx.Node) -> tuple[int, ...]:
    """The shape of what a node makes, for the example."""
    return tuple(size(n) for n in node.meta["val"].shape)


def size(value: Any) -> int:
    """A length, which may be a symbol, for the example."""
    return value.node.hint if isinstance(value, torch.SymInt) else int(value)


def _export(module: nn.Module, inputs: tuple[Tensor, ...], dynamic: Any) -> Any:
    with _quiet(), torch.no_grad(), _kept_whole():
        return torch.export.export(module, inputs, dynamic_shapes=dynamic, strict=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, PyTorch says nothing of what it traces: what matters is in its exception."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _kept_whole() -> Iterator[None]:
    """Within, local response normalisation is one operator: PyTorch would trace what it consists of."""

    def whole(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
        made: Tensor = torch.ops.pycaffe_compat_way_in.local_response_norm(input, size, alpha, beta, k)
        return made

    before = F.local_response_norm
    F.local_response_norm = whole
    try:
        yield
    finally:
        F.local_response_norm = before


def _graph(
    name: str, program: Any, module: nn.Module | None, run: Any, any_batch: bool, known: Container[str]
) -> Graph:
    """The graph of a program.

    Where operators change their arguments, or are not known, it is the one that PyTorch rewrites with operators that do not.
    """
    targets = [node.target for node in program.graph.nodes if hasattr(node.target, "_schema")]
    if any(target._schema.is_mutable or operator_name(target) not in known for target in targets):
        with _quiet(), torch.no_grad():
            program = program.run_decompositions({})
    signature = program.graph_signature
    nodes = list(program.graph.nodes)
    found = {**dict(program.state_dict), **dict(program.constants)}
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    if signature.buffers_to_mutate:
        what = ", ".join(signature.buffers_to_mutate.values())
        raise NetError(f"{name}: changes {what} as it runs, which no Caffe net does")
    constants = {node: found[target].detach() for node, target in named.items()}
    by_name = {node.name: node for node in nodes}
    inputs = [by_name[n] for n in signature.user_inputs if isinstance(n, str) and n in by_name]
    outputs = []
    for each in signature.user_outputs:
        if each not in by_name or not isinstance(by_name[each].meta.get("val"), Tensor):
            raise NetError(f"{name}: returns something other than tensors")
        outputs.append(by_name[each])
    return Graph(name, nodes, constants, inputs, outputs, module, run, any_batch)


def _untraceable(name: str, error: Exception) -> str:
    text = str(error)
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        where = next((line.strip() for line in text.splitlines() if line.lstrip().startswith("File ")), "")
        why = "what it does depends on the values of its input, and a net of Caffe does the same for all"
        return f"{name}: {why}{f' ({where})' if where else ''}"
    return f"{name}: PyTorch cannot trace it: {_first(error)}"


def _first(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
