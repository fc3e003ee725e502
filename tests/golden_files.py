"""Reading the goldens: numbers that real Caffe computed (tests/goldens/README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent / "goldens"


class Golden:
    """One golden file: ``meta`` and the arrays, by folder (``golden.group("in")`` is a dict by name)."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        with np.load(path) as file:
            self.arrays = {k: file[k] for k in file.files if k != "meta"}
            self.meta: dict[str, Any] = json.loads(str(file["meta"]))

    def group(self, folder: str) -> dict[str, np.ndarray]:
        prefix = folder + "/"
        return {k[len(prefix) :]: v for k, v in self.arrays.items() if k.startswith(prefix)}


def names(folder: str) -> list[str]:
    """The names of the goldens of a folder."""
    return sorted(p.stem for p in (ROOT / folder).glob("*.npz"))


def golden(folder: str, name: str) -> Golden:
    return Golden(ROOT / folder / f"{name}.npz")


def prototxt(folder: str, name: str) -> str:
    """The net of a golden, without reading its arrays."""
    with np.load(ROOT / folder / f"{name}.npz") as file:
        return json.loads(str(file["meta"]))["prototxt"]


def assert_close(got: np.ndarray, want: np.ndarray, what: str, rtol: float = 1e-4, floor: float = 1e-5) -> None:
    """The goldens' tolerance: relative, with an absolute floor of a share of the largest magnitude."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape, f"{what}: shape {got.shape}, Caffe has {want.shape}"
    scale = float(np.abs(want).max()) if want.size else 0.0
    np.testing.assert_allclose(got, want, rtol=rtol, atol=floor * scale, err_msg=what)
