"""The tokens and brackets of a prototxt, found without knowing its message."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass, field
from typing import NamedTuple

_LEXER = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|["'][^\n]*)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>-?[0-9.][0-9A-Za-z_.+-]*|-[A-Za-z]\w*)
      | (?P<open>[{<\[])
      | (?P<close>[}>\]])
      | (?P<other>\S)""",
    re.VERBOSE,
)
_OPENED_BY = {"}": "{", ">": "<", "]": "["}


class Token(NamedTuple):
    """A piece of text that is neither space nor comment; ``kind`` is a group of the lexer."""

    kind: str
    start: int
    text: str


@dataclass(eq=False)
class Block:
    """What stands between two brackets.

    Attributes:
        field: the field whose value it is.
        bracket: ``{`` or ``<`` for a message, ``[`` for a list.
        start: the offset of the opening bracket.
        end: the offset of the closing one, -1 while there is none.
        name: the value of its field ``name``, if it has one.
    """

    field: str
    bracket: str
    start: int
    end: int = -1
    name: str = ""


@dataclass
class Outline:
    """The tokens of a text and how its brackets pair.

    Attributes:
        tokens: all of them, in order.
        blocks: all of them, in the order of their opening brackets.
        open: those that are open where the text ends, the innermost last.
        extra: the offset of the first closing bracket that closes nothing, or None.
        crossed: the first block that a bracket of another kind closes, and the offset of that bracket; or None.
    """

    tokens: list[Token] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    open: list[Block] = field(default_factory=list)
    extra: int | None = None
    crossed: tuple[Block, int] | None = None

    def around(self, offset: int) -> list[Block]:
        """The blocks that are open at ``offset``, the innermost last."""
        return [block for block in self.blocks if block.start < offset and not -1 < block.end < offset]


def read_outline(text: str) -> Outline:
    """Return the outline of ``text``, whatever is wrong with it."""
    outline = Outline()
    stack = outline.open
    word, key = "", ""
    for match in _LEXER.finditer(text):
        kind, token = str(match.lastgroup), match.group()
        if kind == "comment":
            continue
        outline.tokens.append(Token(kind, match.start(), token))
        if kind == "word":
            word, key = token, token
        elif kind == "string":
            if key == "name" and stack and not stack[-1].name:
                stack[-1].name = token[1:-1]
            key = ""
        elif kind == "open":
            inside = stack[-1] if stack and stack[-1].bracket == "[" else None
            block = Block(inside.field if inside else word, token, match.start())
            outline.blocks.append(block)
            stack.append(block)
        elif kind == "close":
            _close(outline, token, match.start())
    return outline


def _close(outline: Outline, bracket: str, offset: int) -> None:
    stack = outline.open
    kind = _OPENED_BY[bracket]
    if all(block.bracket != kind for block in stack):
        if outline.extra is None:
            outline.extra = offset
        return
    while True:
        block = stack.pop()
        block.end = offset
        if block.bracket == kind:
            return
        if outline.crossed is None:
            outline.crossed = block, offset


class Source:
    """A text with its name: turns offsets into ``file:line:column``."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def line(self, offset: int) -> int:
        """The index of the line that ``offset`` lies in."""
        return bisect.bisect_right(self.starts, offset) - 1

    def indent(self, offset: int) -> int:
        """How many characters of space the line of ``offset`` begins with."""
        begin = self.starts[self.line(offset)]
        found = re.compile(r"[ \t]*").match(self.text, begin)
        return found.end() - begin if found else 0

    def where(self, offset: int) -> str:
        """``file:line:column``, counted from 1."""
        line = self.line(offset)
        return f"{self.file}:{line + 1}:{offset - self.starts[line] + 1}"

    def offset(self, line: int, column: int) -> int:
        """The offset of a line and column, counted from 1."""
        return min(self.starts[min(line, len(self.starts)) - 1] + column - 1, len(self.text))
