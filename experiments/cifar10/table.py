"""CSV tables that grow: rows are appended as they are done, by several processes too."""

from __future__ import annotations

import csv
import fcntl
from collections.abc import Sequence
from pathlib import Path

from pycaffe_compat.errors import DataError


class Table:
    """A CSV with a fixed header. A line that a killed run left unfinished does not count, and goes at the next row."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self.path, self.header = path, list(header)

    def rows(self) -> list[dict[str, str]]:
        """Every whole row.

        Raises:
            DataError: the file is another table.
        """
        if not self.path.exists():
            return []
        text = self.path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        rows = list(csv.DictReader(lines))
        if lines and next(csv.reader(lines[:1])) != self.header:
            raise DataError(f"{self.path}: the columns are not {', '.join(self.header)}; move the file away")
        for number, row in enumerate(rows, 2):
            if None in row or None in row.values():
                raise DataError(f"{self.path}:{number}: a row of another number of columns; remove the line")
        return rows

    def number(self, row: dict[str, str], column: str) -> int:
        """A whole number of a row.

        Raises:
            DataError: it is none.
        """
        try:
            return int(row[column])
        except ValueError as error:
            raise DataError(f'{self.path}: {column} is "{row[column]}", which is no whole number') from error

    def append(self, rows: Sequence[Sequence[object]]) -> None:
        """Add rows at the end, all of them at once."""
        with open(self.path, "a+", newline="") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            text = file.read()
            file.truncate(len(text[: text.rfind("\n") + 1].encode()))
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows(rows if "\n" in text else [self.header, *rows])
