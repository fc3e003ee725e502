"""Python text as ruff and black would lay it out: literals, calls, and lines broken at brackets."""

from __future__ import annotations

import keyword
import math
import re
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

WIDTH = 88
_OPEN, _CLOSE = "([{", ")]}"
_OPERATORS = (" + ", " - ", " * ", " / ")


def literal(value: Any) -> str:
    """A number, name or tuple as it stands in source; a float as short as float32 and Python allow."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return f'float("{value}")'
        short = float(str(np.float32(value)))
        return str(int(short)) if short.is_integer() and abs(short) < 1e6 else repr(short)
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(literal, value))
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return str(value)


def call(function: str, *arguments: Any, **options: Any) -> str:
    """``function(argument, option=value)``, without what is None. Strings are source."""
    given = [literal(each) for each in arguments if each is not None]
    given += [f"{name}={literal(value)}" for name, value in options.items() if value is not None]
    return f"{function}({', '.join(given)})"


def square(values: tuple[int, ...]) -> int | tuple[int, ...]:
    """One number for all axes where they have the same; else the tuple."""
    return values[0] if len(set(values)) == 1 else values


def unless(usual: Any, value: Any) -> Any:
    """``value``, or None where it is what PyTorch takes if it is not given."""
    return None if value == usual else value


def importable(module: str) -> bool:
    """Whether ``import`` takes the name of a module."""
    return module.isidentifier() and not keyword.iskeyword(module)


def identifier(name: str, taken: Collection[str] = (), prefix: str = "layer") -> str:
    """A name of the net as an identifier that is not among ``taken``."""
    found = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or prefix
    if found[0].isdigit():
        found = f"{prefix}_{found}"
    if keyword.iskeyword(found):
        found += "_"
    number, candidate = 1, found
    while candidate in taken:
        number += 1
        candidate = f"{found}_{number}"
    return candidate


def plain(text: str) -> str:
    """A name of the net as it may stand in a docstring or a comment, which it cannot end."""
    return "".join(letter if letter.isprintable() and letter not in '"\\' else "_" for letter in text)


def class_name(name: str, taken: Collection[str]) -> str:
    """The name of a net as that of a class."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    found = "".join(word[0].upper() + word[1:] for word in words) or "Net"
    if found[0].isdigit():
        found = f"Net{found}"
    return identifier(f"{found}Net" if found in taken else found, taken)


def broken(line: str, indent: int) -> list[str]:
    """A statement as lines of at most :data:`WIDTH`, where brackets allow that."""
    if indent + len(line) <= WIDTH:
        return [" " * indent + line]
    target, equals, value = line.partition(" = ")
    place = _last_bracket(line)
    if equals and (len(_split(value, _OPERATORS)) > 1 or (place is None and indent + 4 + len(value) <= WIDTH)):
        head, body, tail = f"{target} = (", value, ")"
    elif place is not None:
        start, end = place
        head, body, tail = line[: start + 1], line[start + 1 : end], line[end:]
    else:
        return [" " * indent + line]
    inside = indent + 4
    parts = _split(body, (", ",))
    if inside + len(body) <= WIDTH:
        parts = [body]
    elif len(parts) == 1:
        parts = _split(body, _OPERATORS)
    else:
        parts = [f"{part.removesuffix(',')}," for part in parts]
    middle = [each for part in parts for each in broken(part, inside)]
    return [" " * indent + head, *middle, " " * indent + tail]


def _last_bracket(line: str) -> tuple[int, int] | None:
    """Where the last bracket of a line opens and closes that holds anything."""
    stack, found = [], None
    for i, letter in _letters(line):
        if letter in _OPEN:
            stack.append(i)
        elif letter in _CLOSE:
            start = stack.pop()
            if not stack and i > start + 1:
                found = start, i
    return found


def _split(text: str, separators: tuple[str, ...]) -> list[str]:
    """Parts of a text between separators outside of brackets; operators begin a part, commas end one."""
    parts, depth, start = [], 0, 0
    for i, letter in _letters(text):
        depth += (letter in _OPEN) - (letter in _CLOSE)
        found = next((s for s in separators if not depth and text.startswith(s, i)), None)
        if found:
            cut = i + 1 if letter == "," else i
            parts.append(text[start:cut].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def _letters(text: str) -> Iterator[tuple[int, str]]:
    """The letters outside of strings, and where they are."""
    quoted = False
    for i, letter in enumerate(text):
        if letter == '"':
            quoted = not quoted
        elif not quoted:
            yield i, letter
