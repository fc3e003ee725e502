"""The catalogue of layer types, ``docs/layers.md``, made from the registry, the schema and the goldens.

``python -m pycaffe_compat.layers.catalog tests/goldens > docs/layers.md`` writes it, in a checkout.
"""

from __future__ import annotations

import json
import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import require_file
from ..proto import caffe_pb2, parse_text
from . import fillers
from .base import REGISTRY, Layer

HEAD = """\
# Layers

Every layer type of BVLC Caffe 1.0 and of the paper's fork. This page is generated from the registry:
`python -m pycaffe_compat.layers.catalog tests/goldens > docs/layers.md`.

- *Options* lists the fields of the prototxt that hold a layer's options; the second table shows their contents. Every
  layer also takes `name`, `type`, `bottom`, `top`, `loss_weight`, `param`, `blobs`, `include`, `exclude`, `phase` and
  `propagate_down`.
- *Blobs* lists a layer's parameters and statistics in Caffe's order, as `state_dict` names them. Options can leave out
  those in parentheses.
- A type's *family* is its module in `pycaffe_compat/layers`. The tests of a family carry its name. They check gradients
  against finite differences in float64, cases that the goldens leave open, and bad options and shapes.
- A *golden* holds what Caffe itself computed, forward and backward (`tests/goldens`). The third table lists the goldens
  in which a type occurs.
"""


def goldens_by_type(goldens: Path) -> dict[str, list[str]]:
    """The names of the goldens in the folder ``goldens`` in which each layer type occurs.

    Raises:
        MissingFileError: the folder has no goldens of layers.
    """
    found: dict[str, list[str]] = {}
    folder = Path(
        require_file(goldens / "layers", "the goldens", "A checkout of the project has them in tests/goldens")
    )
    for path in [*sorted(folder.glob("*.npz")), goldens / "data" / "data_layers.npz"]:
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
    """The fields of every message in ``caffe.proto``, read from its text: descriptors do not say which are the fork's."""
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


def _option(field: Field, enum: Any, inert: bool = False) -> str:
    """A field with its default (``axis = 1``) and, for an enum, its values."""
    values = f" ({', '.join(value.name for value in enum.values)})" if enum else ""
    repeated = " …" if field.label == "repeated" else ""
    default = f" = {field.default}" if field.default else ""
    return f"`{field.name}{repeated}{default}`{values}{' †' if field.fork else ''}{' ‡' if inert else ''}"


def _blobs(cls: type[Layer]) -> str:
    """The blobs of a type; those that it can lack in parentheses. Empty for a type that has none, or any number."""
    return ", ".join(f"(`{name}`)" if name in cls.blobs_optional else f"`{name}`" for name in cls.blobs_declared)


def catalog(goldens_folder: Path) -> str:
    """Return ``docs/layers.md``: every layer type of this package, its options, its origin and its goldens."""
    own = {name: cls for name, cls in sorted(REGISTRY.items()) if cls.__module__.startswith(f"{__package__}.")}
    messages, goldens = schema(), goldens_by_type(goldens_folder)
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    options = {name: cls.option_fields() for name, cls in own.items()}
    cells: dict[str, str] = {}
    for option in sorted({option for used in options.values() for option in used}):
        message = fields[option].message_type
        users = [cls for name, cls in own.items() if option in options[name]]
        cells[option] = ", ".join(
            _option(
                f,
                message.fields_by_name[f.name].enum_type,
                all(f.name in cls.inert_options for cls in users),
            )
            for f in messages[message.name]
        )
    cells["a filler"] = ", ".join(_option(f, None) for f in messages["FillerParameter"])
    kinds = [name for name, rule in fillers.FILLERS.items() if rule.__module__ == fillers.__name__]
    cells["a filler"] += f" (types: {', '.join(kinds)})"
    types = []
    for name, cls in own.items():
        extended = any("†" in cells[option] for option in options[name])
        source = "fork" if cls.fork else "BVLC, extended by the fork" if extended else "BVLC"
        used = ", ".join(f"`{option}`" for option in options[name])
        family = cls.__module__.rpartition(".")[2]
        takes = (_takes(cls.bottoms), _takes(cls.tops))
        types.append([f"`{name}`", _summary(cls), *takes, used, _blobs(cls), source, family])
    goldens["Input"] = ["every golden of a layer"]
    lines = [
        HEAD,
        f"## The {len(own)} types\n",
        *_table(["type", "what it computes", "bottoms", "tops", "options", "blobs", "source", "family"], types),
        "\n## Options\n\nWith their defaults. `…` marks a field that can be repeated, † a field of the fork, ‡ an option "
        "that is accepted but\nchanges no result: in Caffe it steers speed, memory or logging.\n",
        *_table(["in", "options"], [[option, cell] for option, cell in cells.items()]),
        "\n## Goldens\n",
        *_table(["type", "occurs in"], [[f"`{name}`", ", ".join(goldens.get(name, "–"))] for name in own]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(catalog(Path(sys.argv[1])), end="")
