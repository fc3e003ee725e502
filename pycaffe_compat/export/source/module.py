"""A net as a Python file with a plain PyTorch module, and a safetensors file with its weights."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...convert.formats import safetensors_library, save_safetensors
from ...errors import CaffeError, NetError
from ...files import atomic_path, require_writable
from ...forks.senet.axpy import Axpy
from ...forks.ssd.permute import Permute
from ...layers.base import Layer
from ...layers.common import Eltwise, Split
from ...layers.inputs import DummyData
from ...layers.linear import Scale
from ...layers.neuron import Dropout
from ...layers.normalization import LRN, BatchNorm
from ...layers.pooling import Pooling
from ...layers.reshaping import Concat, Flatten, Reshape
from ...net import Net
from ...wiring import Step
from ..outline import Outline, Value, outline
from ..preprocess import Preprocessing
from ..reasons import why
from ..registry import Unsaid
from . import cascades, combining, detection, flows, linear, neurons, normalization, peaks, recurrent, resizing, windows
from .forward import Body, Statement, marker, named, shape
from .layout import WIDTH, broken, class_name, identifier, importable, plain
from .writer import EMITTERS, Member, Several, Writer, as_float32

FAMILIES = (cascades, combining, detection, flows, linear, neurons, normalization, peaks, recurrent, resizing, windows)
_LIGHT = (BatchNorm, Flatten, Permute, Reshape, Scale)  # besides those that treat every element alike
PathLike = str | os.PathLike[str]


def to_source(
    net: Net,
    path: PathLike,
    *,
    dynamic: Mapping[str, Sequence[int]] | None = None,
    preprocessing: Preprocessing | None = None,
    fold: bool = False,
) -> Outline:
    """Write ``net`` as the source of a PyTorch module that needs only torch and safetensors.

    The file has one ``nn.Module``, whose attributes are named after the layers, and a function ``load`` that returns it with
    its weights, in eval mode. It takes the inputs in the net's order, and returns the outputs in alphabetical order: a
    tensor, or a tuple of several. A BatchNorm and the Scale after it are one ``nn.BatchNorm2d``.

    Args:
        net: built for the TEST phase, with its weights.
        path: ends in ``.py``; the weights go beside it, with the ending ``.safetensors``, as float32.
        dynamic: by input, the axes whose length may change besides axis 0, which always may where the net allows it.
        preprocessing: the preprocessing that the net expects; the file says so.
        fold: fold BatchNorm and Scale into the convolution before them.

    Returns:
        What was exported: inputs, outputs, notes.

    Raises:
        CaffeError: safetensors is not installed, or a file cannot be written.
        NetError: a net without inputs, or layers that cannot be written; the message names them all.
    """
    safetensors_library()
    path = os.fspath(path)
    if not path.endswith(".py"):
        raise CaffeError(f"{path}: the name of a Python file ends in .py")
    require_own_weights(path)
    weights = weights_path(path)
    found = outline(net, dynamic, fold)
    if preprocessing is not None:
        preprocessing.check(found)
    module = Path(path).stem
    if not importable(module):
        found.notes.append(f'Python cannot import a module called "{module}"; a name of letters, digits and _ would do')
    text, state = write_source(found, module, preprocessing)
    with atomic_path(weights) as temporary, atomic_path(path) as source:
        save_safetensors(_apart(state), temporary, {"format": "pt"})
        Path(source).write_text(text, encoding="utf-8")
    return found


def weights_path(path: PathLike) -> str:
    """Where the weights of a net's source lie: beside it."""
    return os.fspath(path).removesuffix(".py") + ".safetensors"


def require_own_weights(path: PathLike) -> None:
    """Find out before long work whether the files of the source ``path`` can be written and are not those of something else.

    Raises:
        CaffeError: a file cannot be written, or there are weights of the source's name without the source.
    """
    weights = weights_path(path)
    for each in (path, weights):
        require_writable(each)
    if os.path.exists(weights) and not os.path.exists(path):
        raise CaffeError(
            f"{weights} exists already and does not belong to {os.fspath(path)}, whose weights would replace it; rename one"
        )


def _apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the host, each with memory of its own, as safetensors wants them."""
    made: dict[str, Tensor] = {}
    seen = set[int]()
    for name, value in state.items():
        tensor = as_float32(value)
        storage = tensor.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        seen.add(storage.data_ptr())
        made[name] = tensor
    return made


def write_source(
    found: Outline, module: str, preprocessing: Preprocessing | None = None
) -> tuple[str, dict[str, Tensor]]:
    """The text of the file, and the weights by the keys of the module's ``state_dict``.

    Args:
        found: what is exported.
        module: the name of the file, without its ending.
        preprocessing: what the net expects of pictures.

    Raises:
        NetError: layers that cannot be written; the message names them all.
    """
    writer = Writer(found)
    statements = _statements(writer)
    names = writer.forbidden()
    inputs: dict[int, str] = {}
    for name, value in found.inputs.items():
        inputs[_number(found, value)] = identifier(name, {*names, *inputs.values()}, "blob")
    outputs = [writer.root(_number(found, value)) for value in found.outputs.values()]
    body = Body(statements, found.values, inputs | writer.constants, outputs, names)
    name = class_name(found.net.caffe_name, names)
    return _text(found, writer, body, name, _Told(module, list(inputs.values()), preprocessing)), writer.weights


def _number(found: Outline, value: Value) -> int:
    return next(v for v, each in found.values.items() if each is value)


def _statements(w: Writer) -> list[Statement]:
    """What each layer does, in order."""
    made: list[Statement] = []
    faults: list[str] = []
    for step in w.found.steps:
        if step.is_source and not isinstance(step.layer, DummyData):
            continue
        if step.name in w.absorbed:
            continue
        if step.name in w.found.aliases and not isinstance(step.layer, (Dropout, Split)):  # folded
            w.same[step.top_values[0]] = w.root(step.bottom_values[0])
            continue
        try:
            made += _step(w, step)
        except Unsaid as error:
            faults.append(named(str(error), w.found.values))
    if faults:
        raise NetError(f"{w.found.net.file or 'the net'}: cannot be written as source: {'; '.join(faults)}")
    return made


def _sums(layer: Layer) -> bool:
    return isinstance(layer, Eltwise) and layer.operation == "SUM"


def _step(w: Writer, step: Step) -> list[Statement]:
    """What one layer does.

    Raises:
        Unsaid: it cannot be written.
    """
    layer = step.layer
    function = EMITTERS.find(type(layer))
    if function is None:
        reason = why(type(layer)) or "no PyTorch source is known here for it"
        raise Unsaid(f'layer "{layer.name}" ({layer.type_name}): {reason}')
    w.begin(step)
    bottoms = [Value(marker(w.root(v)), w.found.values[v].shape, w.found.values[v].moving) for v in step.bottom_values]
    result = function(w, layer, *bottoms)
    light = len(bottoms) == 1 and (
        function.__module__ == neurons.__name__
        or isinstance(layer, _LIGHT)
        or (step.bottoms[:1] == step.tops[:1] and not isinstance(layer, Pooling))
    )
    planes = [w.found.values[v].shape[2:] for v in (*step.bottom_values[:1], *step.top_values[:1])]
    kind: dict[str, bool] = {
        "light": light,
        "joins": len(bottoms) > 1 and (isinstance(layer, (Axpy, Concat)) or _sums(layer)),
        "pools": isinstance(layer, Pooling) and layer.window is not None and planes[0] != planes[1],
        "trails": isinstance(layer, LRN),
    }
    if isinstance(result, Several):
        statements = [Statement(list(w.targets), result.expression, [step.name], **kind)]
        statements += [Statement([w.targets[i]], f"{marker(w.targets[i])}.float()", [step.name]) for i in result.counts]
        return statements
    made = []
    for target, text in zip(w.targets, [result] if isinstance(result, str) else result, strict=True):
        if same := re.fullmatch(r"_value(\d+)_", text):
            w.same[target] = w.root(int(same[1]))
        elif re.fullmatch(r"self\.\w+", text):
            w.constants[target] = text
        else:
            made.append(Statement([target], text, [step.name], **kind))
    return made


@dataclass(frozen=True)
class _Told:
    """What the docstrings tell: the name of the module, the arguments of the net, what it expects of pictures."""

    module: str
    arguments: list[str]
    preprocessing: Preprocessing | None


def _text(found: Outline, w: Writer, body: Body, name: str, told: _Told) -> str:
    """The file."""
    arguments = told.arguments
    outputs = list(found.outputs)
    called = plain(found.net.caffe_name) or "A net"
    lines = body.lines(8)
    several = ", ".join(["Tensor"] * len(outputs)) if len(outputs) <= 3 else "Tensor, ..."
    returned = "Tensor" if len(outputs) == 1 else f"tuple[{several}]"
    forward = _signature("forward", ["self", *(f"{each}: Tensor" for each in arguments)], returned)
    made = "\n".join(lines)
    inside = "\n".join(_members(w, body))
    helpers = "\n\n\n".join(w.helper_sources())
    source = "\n".join(
        [
            f"class {name}(nn.Module):",
            f'    """{called}.',
            "",
            *(f"    {line}" for line in _described("Inputs", found.inputs, arguments)),
            *(f"    {line}" for line in _described("Outputs", found.outputs)),
            *(f"    {line}" for line in _expected(arguments[0], told.preprocessing)),
            '    """',
            "",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            *([inside] if inside else []),
            "",
            *forward,
            made,
            "",
            "",
            f"def load(path: str | Path = WEIGHTS) -> {name}:",
            '    """Return the net with its weights, in evaluation mode."""',
            f"    net = {name}()",
            "    load_model(net, path)",
            "    return net.eval()",
        ]
    )
    everything = f"{helpers}\n{source}"
    imports = ["from collections.abc import Callable"] * ("Callable[" in everything)
    imports += ["from pathlib import Path", ""]
    imports += ["import torch"] * bool(re.search(r"\btorch\.", everything))
    imports += ["import torch.nn.functional as F"] * bool(re.search(r"\bF\.", everything))
    imports += ["from safetensors.torch import load_model", "from torch import Tensor, nn"]
    variables = {name: body.names[w.root(_number(found, value))] for name, value in found.outputs.items()}
    given = ", ".join(name if "." in variable else variable for name, variable in variables.items())
    head = [
        *_described_file(called, told.module, f"{given} = net({', '.join(arguments)})"),
        "",
        *imports,
        "",
        'WEIGHTS = Path(__file__).with_suffix(".safetensors")',
    ]
    return "\n".join([*head, "", "", *([helpers, "", ""] if helpers else []), source, ""])


def _described_file(called: str, module: str, use: str) -> list[str]:
    """The docstring of the file."""
    imported = [f"    from {module} import load", ""] if importable(module) else []
    return [
        f'"""{called} in plain PyTorch.',
        "",
        "Written by caffe-export-net. The weights lie beside this file:",
        "",
        *imported,
        "    net = load()",
        f"    {use if len(use) <= WIDTH - 4 else 'outputs = net(...)'}",
        '"""',
    ]


def _described(what: str, values: Mapping[str, Value], names: Sequence[str] = ()) -> list[str]:
    """Names and shapes for a docstring."""
    parts = [f"{plain(name)} {shape(value)}" for name, value in zip(names or values, values.values(), strict=True)]
    line = f"{what}: {', '.join(parts)}."
    if len(line) <= WIDTH - 4:
        return [line]
    return [f"{what}:", *(f"    {part}" for part in parts)]


def _expected(name: str, how: Preprocessing | None) -> list[str]:
    """What the net expects of pictures."""
    if how is None:
        return []
    means = ", ".join(f"{mean:g}" for mean in how.mean) or "0"
    times = f", times {how.scale:g}" if how.scale != 1 else ""
    return ["", f"{name} holds pictures in {how.order}, of 0 to 255, minus {means}{times}."]


def _signature(name: str, arguments: Sequence[str], returned: str) -> list[str]:
    line = f"def {name}({', '.join(arguments)}) -> {returned}:"
    if len(line) <= WIDTH - 4:
        return [f"    {line}"]
    inside = ", ".join(arguments)
    if len(inside) <= WIDTH - 8:
        return [f"    def {name}(", f"        {inside}", f"    ) -> {returned}:"]
    return [f"    def {name}(", *(f"        {each}," for each in arguments), f"    ) -> {returned}:"]


def _members(w: Writer, body: Body) -> list[str]:
    """The lines of ``__init__`` after the first, in the parts that ``forward`` has."""
    of_layer: dict[str, list[Member]] = {}
    for member in w.members:
        of_layer.setdefault(member.layer, []).append(member)
    made: list[str] = []
    ends = set(body.ends())
    for i, statement in enumerate(body.statements):
        for step in statement.steps:
            for member in of_layer.pop(step, []):
                pieces = broken(member.text, 8)
                note = f"  # {plain(member.note)}"
                if member.note and len(pieces[-1]) + len(note) <= WIDTH:
                    pieces[-1] += note
                elif member.note:
                    pieces.insert(0, " " * 8 + note.strip())
                made += pieces
        if i in ends and made and made[-1]:
            made.append("")
    for members in of_layer.values():  # of layers whose top is a parameter
        made += [line for member in members for line in broken(member.text, 8)]
    while made and not made[-1]:
        made.pop()
    return made + [line for tie in w.ties for line in broken(tie, 8)]
