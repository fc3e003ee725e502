"""Programs of PyTorch from ``.pt2`` files, of which nothing is run or unpickled but what a program of tensors needs.

``torch.export.load`` unpickles whatever a file holds, loads compiled libraries, and evaluates the formulas of lengths as
Python. A file from elsewhere could so run any code.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ...errors import CaffeError

_PICKLED = ("custom_obj_", "opaque_obj_")  # objects that only unpickling makes
_COMPILED = re.compile(r"(^|/)data/(aotinductor|executorch|mtia)")
_SYMBOL = re.compile(r"Symbol\('\w+'(, \w+=(True|False))*\)")
_FORMULA = re.compile(r"(\w|[-+*/%(),<>=&|~ ]|(?<=\d)\.|\.(?=\d))*")
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
# what sympy prints of lengths, and torch.utils._sympy.functions
_FUNCTIONS = set(
    re.findall(
        r"\w+",
        "Add Mul Pow Integer Rational Float Max Min Abs Eq Ne Lt Le Gt Ge And Or Not FloorDiv ModularIndexing Where PythonMod "
        "Mod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift PowByNatural FloatPow FloatTrueDiv IntTrueDiv TruncToFloat "
        "TruncToInt RoundToInt RoundDecimal ToFloat Identity IsNonOverlappingAndDenseIndicator",
    )
)
_ONLY_TENSORS = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def load_program(file: str) -> Any:
    """Return the ``ExportedProgram`` that a file holds.

    Raises:
        CaffeError: the file holds what only running code of it can make, or is no program.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if os.path.basename(name).startswith(_PICKLED) or _COMPILED.search(name):
                    raise _refused(file, f"{name} in it")
                if name.endswith(".json"):
                    for formula in _formulas(json.loads(archive.read(name))):
                        if not _is_harmless(formula):
                            raise _refused(file, f"the length {formula[:80]} in it")
        with _only_tensors():
            return torch.export.load(file)
    except CaffeError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused(file, "what is pickled in it") from error
    except Exception as error:  # torch.export has no errors of its own for this
        said = str(error).strip().split("\n")[0] or type(error).__name__
        raise CaffeError(f"{file}: not a program that torch.export.load reads: {said}") from error


def _refused(file: str, what: str) -> CaffeError:
    return CaffeError(
        f"{file}: {what} could run any code when it is loaded; only tensors and operators of PyTorch are read"
    )


def _formulas(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            if name == "expr_str":
                yield str(each)
            else:
                yield from _formulas(each)
    elif isinstance(value, list):
        for each in value:
            yield from _formulas(each)


def _is_harmless(formula: str) -> bool:
    """Whether a formula has only numbers, symbols, arithmetic and functions of lengths."""
    plain = _SYMBOL.sub("s", formula)
    return _FORMULA.fullmatch(plain) is not None and "__" not in plain and _FUNCTIONS.issuperset(_CALL.findall(plain))


@contextmanager
def _only_tensors() -> Iterator[None]:
    """Let ``torch.load`` unpickle nothing but tensors, whatever its caller asks for."""
    before = os.environ.get(_ONLY_TENSORS)
    os.environ[_ONLY_TENSORS] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ONLY_TENSORS]
        else:
            os.environ[_ONLY_TENSORS] = before
