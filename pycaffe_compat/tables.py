"""Plain tables of text, and numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Return lines of aligned columns under ``head`` and a rule.

    Args:
        head: the title of each column.
        rows: the cells; a row shorter than ``head`` has empty ones.
        right: the columns that are aligned to the right.
    """
    cells = [list(row) + [""] * (len(head) - len(row)) for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    ]
    return "\n".join(line.rstrip() for line in (lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]))


def human(number: float, unit: str = "") -> str:
    """Return ``138.36 M``: the number in thousands, millions or billions, with ``unit`` after it; ``0`` for nothing."""
    if not number:
        return "0"
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.2f} {prefix}{unit}"
    return f"{number:g} {unit}".rstrip()


def dims(shape: Sequence[int]) -> str:
    """Return ``64×3×3×3``; ``scalar`` for no axes."""
    return "×".join(map(str, shape)) or "scalar"


def some(names: Sequence[str], most: int = 6) -> str:
    """Return ``a, b, c and 4 more``: the first ``most`` of ``names``, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
