"""The catalogue of layer types, ``docs/layers.md``, made from the registry, the schema and the goldens.

``python -m pycaffe_compat.layers.catalog > docs/layers.md`` writes it anew.
"""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import require_file
from ..proto import caffe_pb2, parse_text
from . import fillers
from .base import REGISTRY, Layer

GOLDENS = Path(__file__).parents[2] / "tests" / "goldens"
FORK = {"Depooling", "SafeInv", "ImageOutput"}
OPTIONS = {
    "Data": ("data", "transform"),
    "Deconvolution": ("convolution",),
    "Depooling": ("pooling",),
    "Im2col": ("convolution",),
    "ImageData": ("image_data", "transform"),
    "InfogainLoss": ("infogain_loss", "loss"),
    "LSTM": ("recurrent",),
    "MemoryData": ("memory_data", "transform"),
    "RNN": ("recurrent",),
    "SigmoidCrossEntropyLoss": ("loss",),
    "SoftmaxWithLoss": ("softmax", "loss"),
    "WindowData": ("window_data", "transform"),
}
"""The types whose options are not (only) in the field that is named after them, without ``_param``."""

HEAD = """\
# Layers

Every layer type of BVLC Caffe 1.0 and of the fork that the paper was written on, generated from the registry by
`python -m pycaffe_compat.layers.catalog > docs/layers.md`.

- *Options* names the fields of a layer in a prototxt; the second table holds what is in them. Every layer also takes
  `name`, `type`, `bottom`, `top`, `loss_weight`, `param`, `blobs`, `include`, `exclude`, `phase` and `propagate_down`.
- A type's *family* is its module in `pycaffe_compat/layers`. Its tests have the family's name: gradients against finite
  differences in float64, what the goldens leave open, bad options and shapes.
- A *golden* is what Caffe itself computed, forward and backward (`tests/goldens`); the third table says where a type
  occurs.
"""


def option_fields(type_name: str) -> list[str]:
    """The fields of ``LayerParameter`` that hold the options of a type: ``["pooling_param"]`` for ``Depooling``."""
    if type_name in OPTIONS:
        return [f"{name}_param" for name in OPTIONS[type_name]]
    own = type_name.lower() + "param"
    return [name for name in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name if name.replace("_", "") == own]


def goldens_by_type() -> dict[str, list[str]]:
    """The goldens in which each layer type occurs.

    Raises:
        MissingFileError: the package is not in a checkout that has the goldens.
    """
    found: dict[str, list[str]] = {}
    folder = Path(require_file(GOLDENS / "layers", "the goldens", "The catalogue is made in a checkout of the project"))
    for path in [*sorted(folder.glob("*.npz")), GOLDENS / "data" / "data_layers.npz"]:
        with np.load(path) as file:
            meta = json.loads(str(file["meta"]))
        for name, text in meta.get("cases", {path.stem: meta.get("prototxt")}).items():
            net = parse_text(text, caffe_pb2.NetParameter, str(path))
            for type_name in {layer.type for layer in net.layer}:
                found.setdefault(type_name, []).append(name)
    return found


class Field(NamedTuple):
    """A field of a message as ``caffe.proto`` declares it; ``default`` is empty where there is none."""

    label: str
    type: str
    name: str
    default: str
    fork: bool


def schema() -> dict[str, list[Field]]:
    """The fields of every message of ``caffe.proto``, from its text: descriptors do not tell which are the fork's."""
    text = resources.files("pycaffe_compat.proto").joinpath("caffe.proto").read_text("utf-8")
    messages: dict[str, list[Field]] = {}
    for name, body in re.findall(r"^message (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        declared = re.findall(r"^  (\w+) (\w+) (\w+) = \d+(?: \[default = (.*?)\])?.*?;(.*)$", body, re.MULTILINE)
        messages[name] = [
            Field(label, kind, field, default, "fork" in comment) for label, kind, field, default, comment in declared
        ]
    return messages


def _takes(allowed: tuple[int, int | None]) -> str:
    least, most = allowed
    return f"{least}+" if most is None else str(least) if least == most else f"{least}–{most}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _summary(cls: type[Layer]) -> str:
    """The first sentence of a class's docstring, for a cell of a table."""
    text = " ".join((cls.__doc__ or "").split("\n\n")[0].split())
    text = re.sub(r":\w+:`([^`]*)`", r"`\1`", text.split(" Source:")[0]).replace("``", "`")
    return text.replace("|", "\\|")


def _option(field: Field, enum: Any) -> str:
    """A field and its default: ``axis = 1``; with what it can be, where that is not a number or a word."""
    values = f" ({', '.join(value.name for value in enum.values)})" if enum else ""
    repeated = " …" if field.label == "repeated" else ""
    default = f" = {field.default}" if field.default else ""
    return f"`{field.name}{repeated}{default}`{values}{' †' if field.fork else ''}"


def catalog() -> str:
    """Return ``docs/layers.md``: every layer type of this package, its options, where it is from, what tests it."""
    own = {name: cls for name, cls in sorted(REGISTRY.items()) if cls.__module__.startswith(f"{__package__}.")}
    messages, goldens = schema(), goldens_by_type()
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    options = {name: option_fields(name) for name in own}
    cells: dict[str, str] = {}
    for option in sorted({option for used in options.values() for option in used}):
        message = fields[option].message_type
        cells[option] = ", ".join(_option(f, message.fields_by_name[f.name].enum_type) for f in messages[message.name])
    cells["a filler"] = ", ".join(_option(f, None) for f in messages["FillerParameter"])
    kinds = [name for name, rule in fillers.FILLERS.items() if rule.__module__ == fillers.__name__]
    cells["a filler"] += f" (types: {', '.join(kinds)})"
    types = []
    for name, cls in own.items():
        extended = any("†" in cells[option] for option in options[name])
        source = "fork" if name in FORK else "BVLC, extended by the fork" if extended else "BVLC"
        used = ", ".join(f"`{option}`" for option in options[name])
        family = cls.__module__.rpartition(".")[2]
        types.append([f"`{name}`", _summary(cls), _takes(cls.bottoms), _takes(cls.tops), used, source, family])
    goldens["Input"] = ["every one of a layer"]
    lines = [
        HEAD,
        f"## The {len(own)} types\n",
        *_table(["type", "what it computes", "bottoms", "tops", "options", "source", "family"], types),
        "\n## Options\n\nWith their defaults; `…` can be repeated, † is the fork's.\n",
        *_table(["in", "options"], [[option, cell] for option, cell in cells.items()]),
        "\n## Goldens\n",
        *_table(["type", "occurs in"], [[f"`{name}`", ", ".join(goldens.get(name, "–"))] for name in own]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(catalog(), end="")
