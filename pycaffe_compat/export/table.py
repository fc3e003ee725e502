"""Which layers can be written for which target: the table of ``docs/export.md``, made from the registries.

``python -m pycaffe_compat.export.table docs/export.md`` writes it there, in a checkout.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..layers.base import Layer, Source
from ..layers.catalog import family, own_layers
from ..layers.common import Split
from ..layers.inputs import DummyData
from ..layers.neuron import Dropout
from .onnx.model import EMITTERS as ONNX
from .outline import LEFT_OUT
from .reasons import TRACED, why
from .source.module import EMITTERS as SOURCE

BY_MODEL = (DummyData, Dropout, Split)  # of which the model needs no nodes, or constants
BEGIN, END = "<!-- layers: begin -->", "<!-- layers: end -->"


def table() -> Iterator[str]:
    """The lines of the table."""
    rows, missing = [], {"ONNX": 0, "programs": 0, ".py": 0}
    for name, cls in own_layers():
        if _is_cut(cls):
            continue
        marks = {"ONNX": ONNX.find(cls) or cls in BY_MODEL, "programs": cls.traceable, ".py": SOURCE.find(cls)}
        for target, can in marks.items():
            missing[target] += not can
        cells = ["yes" if can else "–" for can in marks.values()]
        rows.append(f"| `{name}` | {family(cls)} | {' | '.join(cells)} | {_reason(cls, marks)} |")
    lacking = ", ".join(f"{count} as {target}" for target, count in missing.items())
    yield (
        f"{len(rows)} layers compute something in a trained net. The others read data, compare with labels or write files, and "
        f"are left out. Not available: {lacking}. *Programs* are `.pt2` and `.ts.pt`. A dash is an error that names the layer; "
        "an unsupported option is an error too. The tests run every layer that has a golden through every target."
    )
    yield ""
    yield "| layer | family | ONNX | programs | .py | why not |"
    yield "| --- | --- | --- | --- | --- | --- |"
    yield from rows


def _reason(cls: type[Layer], marks: Mapping[str, object]) -> str:
    """Why a target does not have a layer, or nothing."""
    if all(marks.values()):
        return ""
    if marks["ONNX"] and marks[".py"]:
        return TRACED
    return why(cls) or "not written yet"


def _is_cut(cls: type[Layer]) -> bool:
    """Whether a layer is left out of everything that is exported, or is the input that a caller fills."""
    return cls.loss or issubclass(cls, LEFT_OUT) or (issubclass(cls, Source) and not issubclass(cls, DummyData))


def replaced(page: str) -> str:
    """``page`` with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join((before + BEGIN, *table(), END + after))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(replaced(path.read_text("utf-8")), "utf-8")
