"""Tables of results: CSVs that grow as rows are done, by several processes too."""

from __future__ import annotations

import csv
import fcntl
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pycaffe_compat.errors import DataError


class Table:
    """A CSV with fixed columns: ``{"seed": int, "psnr": float}``.

    A line that a killed run left unfinished does not count, and goes at the next row.
    """

    def __init__(self, path: Path, columns: Mapping[str, type]) -> None:
        self.path, self.columns, self.header = path, columns, list(columns)

    def rows(self) -> list[dict[str, Any]]:
        """Every whole row, each value of its column's type.

        Raises:
            DataError: the file is another table, or a value is not of its column's type.
        """
        if not self.path.exists():
            return []
        text = self.path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        rows = list(csv.DictReader(lines))
        if lines and next(csv.reader(lines[:1])) != self.header:
            raise DataError(f"{self.path}: the columns are not {', '.join(self.header)}; move the file away")
        return [self._typed(row, number) for number, row in enumerate(rows, 2)]

    def _typed(self, row: dict[Any, Any], number: int) -> dict[str, Any]:
        if None in row or None in row.values():
            raise DataError(f"{self.path}:{number}: a row of another number of columns; remove the line")
        found = {}
        for name, kind in self.columns.items():
            try:
                found[name] = kind(row[name])
            except ValueError:
                wanted = "a whole number" if kind is int else "a number"
                raise DataError(f'{self.path}:{number}: {name} is "{row[name]}", not {wanted}') from None
        return found

    def append(self, rows: Sequence[Sequence[object]]) -> None:
        """Add rows at the end, all of them at once."""
        with open(self.path, "a+", newline="") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            file.truncate(len(text[: text.rfind("\n") + 1].encode()))
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows(rows if "\n" in text else [self.header, *rows])


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
