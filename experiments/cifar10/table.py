"""The experiment's tables."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from results_table import Table


@dataclass(frozen=True)
class Tables:
    """The four tables of a folder of results."""

    choice: Table
    errors: Table
    reconstruction: Table
    times: Table


def tables(folder: Path) -> Tables:
    """Return the tables in ``folder``; a file that is not there is an empty table."""
    counts = {"images": int, "wrong": int}
    return Tables(
        choice=Table(folder / "choice.csv", {"seed": int, "variant": str, "rate": float, "strength": float, **counts}),
        errors=Table(
            folder / "errors.csv", {"size": str, "seed": int, "variant": str, "data": str, "mode": str, **counts}
        ),
        reconstruction=Table(
            folder / "reconstruction.csv",
            {"seed": int, "kind": str, "depth": int, "images": int, "psnr": float, "ssim": float},
        ),
        times=Table(folder / "times.csv", {"job": str, "seconds": float, "threads": str, "machine": str}),
    )
