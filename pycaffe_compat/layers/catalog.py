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
from google.protobuf.descriptor import FieldDescriptor

from ..errors import require_file
from ..forks import NAMES, fork_named
from ..proto import caffe_pb2, parse_text
from ..proto.additions import value_forks
from ..proto.schema import known_forks, merged
from . import fillers
from .base import Layer
from .registry import REGISTRY, VARIANTS

HEAD = """\
# Layers

Every layer type of BVLC Caffe 1.0, of the paper's fork (SWWAE), and of other forks of Caffe ([forks.md](forks.md)). This page is
generated from the registry: `python -m pycaffe_compat.layers.catalog tests/goldens > docs/layers.md`.

- *Options* lists the prototxt fields that hold a layer's options; the [second table](#options) shows their contents. Every
  layer also takes `name`, `type`, `bottom`, `top`, `loss_weight`, `param`, `blobs`, `include`, `exclude`, `phase` and
  `propagate_down`.
- *Blobs* lists a layer's parameters and statistics in Caffe's order, as `state_dict` names them. Those in parentheses are
  optional.
- *Source* names the Caffe that has the type. A type that is listed twice means different things in different forks.
- A type's *family* is its module in `pycaffe_compat/layers`, or in a fork's folder in `pycaffe_compat/forks`. A family's tests
  have the same name. They check gradients against finite differences in float64, cases that the goldens do not cover, and
  bad options and shapes.
- A *golden* holds what Caffe itself computed, forward and backward (`tests/goldens`). The last table lists the goldens
  in which each type occurs.
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
    for path in [
        *sorted(folder.glob("*.npz")),
        *sorted(goldens.glob("forks/*.npz")),
        goldens / "data" / "data_layers.npz",
    ]:
        with np.load(path) as file:
            meta = json.loads(str(file["meta"]))
        for name, text in meta.get("cases", {path.stem: meta.get("prototxt")}).items():
            net = parse_text(text, caffe_pb2.NetParameter, str(path))
            for type_name in {layer.type for layer in net.layer}:
                found.setdefault(type_name, []).append(name)
    return found


class Field(NamedTuple):
    """A field of a message; ``default`` is empty where there is none.

    ``forks`` names the forks that have a field which BVLC's Caffe lacks; ``("SWWAE",)`` is the paper's.
    """

    label: str
    type: str
    name: str
    default: str
    forks: tuple[str, ...]


_LABELS = {
    FieldDescriptor.LABEL_OPTIONAL: "optional",
    FieldDescriptor.LABEL_REQUIRED: "required",
    FieldDescriptor.LABEL_REPEATED: "repeated",
}
_TYPES = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_UINT64: "uint64",
}


def _default(field: Any) -> str:
    quoted = field.type == FieldDescriptor.TYPE_STRING and field.HasField("default_value")
    return f'"{field.default_value}"' if quoted else field.default_value


def schema() -> dict[str, list[Field]]:
    """The fields of every message, in order. The text of ``caffe.proto`` says which of its fields are the paper's fork's."""
    text = resources.files("pycaffe_compat.proto").joinpath("caffe.proto").read_text("utf-8")
    papers = {
        (name, field)
        for name, body in re.findall(r"^message (\w+) \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL)
        for field in re.findall(r"^  \w+ \w+ (\w+) = .*// fork$", body, re.MULTILINE)
    }
    file, additions = merged(known_forks())
    messages: dict[str, list[Field]] = {}
    for message in file.message_type:
        messages[message.name] = [
            Field(
                _LABELS[field.label],
                _TYPES.get(field.type) or field.type_name.rpartition(".")[2],
                field.name,
                _default(field),
                ("SWWAE",)
                if (message.name, field.name) in papers
                else additions.fields.get((message.name, field.name), ()),
            )
            for field in message.field
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


def _option(field: Field, enum: Any, inert: bool = False, supported: frozenset[str] = frozenset()) -> str:
    """A field with its default (``axis = 1``) and, for an enum, its values; forks' values only if they are ``supported``."""
    names = (
        []
        if enum is None
        else [value.name for value in enum.values if value.name in supported or not value_forks(value)]
    )
    values = f" ({', '.join(names)})" if names else ""
    repeated = " …" if field.label == "repeated" else ""
    default = f" = {field.default}" if field.default else ""
    return f"`{field.name}{repeated}{default}`{values}{' †' if field.forks else ''}{' ‡' if inert else ''}"


def _blobs(cls: type[Layer]) -> str:
    """The blobs of a type; those that it can lack in parentheses. Empty for a type that has none, or any number."""
    return ", ".join(f"(`{name}`)" if name in cls.blobs_optional else f"`{name}`" for name in cls.blobs_declared)


def _is_ours(cls: type[Layer]) -> bool:
    return cls.__module__.startswith(("pycaffe_compat.layers.", "pycaffe_compat.forks."))


def _heeds(cls: type[Layer], option: str, field: Field) -> bool:
    """Whether a layer reads a field of its options: BVLC's, the paper's, its own fork's, or one that it lists."""
    return (
        set(field.forks) <= {"SWWAE"}
        or bool(set(field.forks) & set(cls.forks))
        or f"{option}.{field.name}" in cls.fork_options
    )


def _origin(cls: type[Layer], messages: dict[str, list[Field]]) -> str:
    """The Caffe that a type comes from; for one of BVLC's, the forks whose fields it also supports."""
    if cls.forks:
        return ", ".join(fork_named(name).title if name in NAMES else name for name in cls.forks)
    if cls.fork:
        return cls.fork
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    added = {
        fork
        for option in cls.option_fields()
        for field in messages[fields[option].message_type.name]
        for fork in field.forks[:1]
        if _heeds(cls, option, field)
    }
    names = [fork_named(name).title if name in NAMES else name for name in sorted(added)]
    return f"BVLC, extended by {', '.join(names)}" if names else "BVLC"


def _forks(types: set[str]) -> list[list[str]]:
    """A row for each fork: its name, its title, where its facts are from, and those of its types that are not in ``types``."""
    forks = [fork_named(name) for name in NAMES]
    return [
        [f"`{fork.name}`", fork.title, fork.source, ", ".join(f"`{each}`" for each in sorted(fork.layer_types - types))]
        for fork in forks
    ]


def own_layers() -> list[tuple[str, type[Layer]]]:
    """The types of this package and their classes, in order; a type of several forks has several."""
    return [(name, cls) for name in sorted(REGISTRY) for cls in VARIANTS.get(name, [REGISTRY[name]]) if _is_ours(cls)]


def family(cls: type[Layer]) -> str:
    """The module of a class: ``pooling``, or ``ssd.normalize`` in a fork's folder."""
    return cls.__module__.removeprefix("pycaffe_compat.").removeprefix("layers.").removeprefix("forks.")


def catalog(goldens_folder: Path) -> str:
    """Return ``docs/layers.md``: every layer type of this package, its options, its origin and its goldens."""
    own = own_layers()
    messages, goldens = schema(), goldens_by_type(goldens_folder)
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name
    cells: dict[str, str] = {}
    for option in sorted({option for _, cls in own for option in cls.option_fields()}):
        message = fields[option].message_type
        users = [cls for _, cls in own if option in cls.option_fields()]
        cells[option] = ", ".join(
            _option(
                f,
                message.fields_by_name[f.name].enum_type,
                all(f.name in cls.inert_options for cls in users),
                frozenset(
                    o.rpartition("=")[2]
                    for cls in users
                    for o in cls.fork_options
                    if o.startswith(f"{option}.{f.name}=")
                ),
            )
            for f in messages[message.name]
            if any(_heeds(cls, option, f) for cls in users)
        )
    cells["a filler"] = ", ".join(_option(f, None) for f in messages["FillerParameter"] if set(f.forks) <= {"SWWAE"})
    kinds = [name for name, rule in fillers.FILLERS.items() if rule.__module__ == fillers.__name__]
    cells["a filler"] += f" (types: {', '.join(kinds)})"
    types = []
    for name, cls in own:
        used = ", ".join(f"`{option}`" for option in cls.option_fields())
        takes = (_takes(cls.bottoms), _takes(cls.tops))
        types.append([f"`{name}`", _summary(cls), *takes, used, _blobs(cls), _origin(cls, messages), family(cls)])
    goldens["Input"] = ["every golden of a layer"]
    lines = [
        HEAD,
        f"## The {len({name for name, _ in own})} types\n",
        *_table(["type", "what it computes", "bottoms", "tops", "options", "blobs", "source", "family"], types),
        "\n## Options\n\nEvery option with its default. `…` marks a field that can be repeated, † a fork's field, ‡ an option "
        "that is accepted but\ndoes not change results: in Caffe it affects speed, memory or logging.\n",
        *_table(["in", "options"], [[option, cell] for option, cell in cells.items()]),
        "\n## Forks\n\nEach fork's name for `--fork`, the source of its fields and layers, and its layer types that are "
        "not implemented here.\nA net that uses one of those gets an error that names it.\n",
        *_table(["`--fork`", "files of", "source", "not implemented"], _forks({name for name, _ in own})),
        "\n## Goldens\n",
        *_table(["type", "occurs in"], [[f"`{name}`", ", ".join(goldens.get(name, "–"))] for name in dict(own)]),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(catalog(Path(sys.argv[1])), end="")
