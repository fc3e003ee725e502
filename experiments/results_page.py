"""Sections of docs/results.md: each experiment writes its own, between two marks, and leaves the rest as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from pycaffe_compat.files import atomic_path


def write_section(page: Path, name: str, lines: Iterable[str]) -> None:
    """Write the section ``name`` of a page: in its place if it has one, else at the end."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before = page.read_text() if page.exists() else "# Results\n"
    section = "\n".join([begin, *lines, end])
    if begin in before:
        text = re.sub(f"{re.escape(begin)}.*{re.escape(end)}", lambda match: section, before, flags=re.DOTALL)
    else:
        text = f"{before.rstrip()}\n\n{section}\n"
    with atomic_path(page) as temporary, open(temporary, "w") as file:
        file.write(text)
    print(f"{page}: section {name} written")
