"""The statements of ``forward``: which calls go onto one line, what variables are called, where a blank line stands."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from ..outline import Value
from .layout import WIDTH, broken, identifier

DEEPEST = 3  # calls within calls
_MARKER = re.compile(r"_value(\d+)_")


def marker(value: int) -> str:
    """What stands for a value in an expression until its variable has a name."""
    return f"_value{value}_"


def markers(text: str) -> list[int]:
    """The values in an expression, as often as they occur."""
    return [int(number) for number in _MARKER.findall(text)]


def named(text: str, values: Mapping[int, Value]) -> str:
    """A text for people, in which values are called as in the net."""
    return _MARKER.sub(lambda found: values[int(found[1])].name, text)


@dataclass
class Statement:
    """An assignment.

    Attributes:
        targets: the values that it makes.
        text: the expression.
        steps: names of the layers that it runs.
        light: whether the layer may stand on one line with the one before it, as an activation does.
        joins: whether it brings several branches together.
        pools: whether planes become smaller.
        trails: whether it belongs to the part before it.
    """

    targets: list[int]
    text: str
    steps: list[str] = field(default_factory=list)
    light: bool = False
    joins: bool = False
    pools: bool = False
    trails: bool = False

    @property
    def reads(self) -> list[int]:
        """The values that it reads, as often as it reads them."""
        return markers(self.text)


class Body:
    """The lines of ``forward``.

    Args:
        statements: in order.
        values: by number.
        given: what stands for the arguments and for members, by number.
        outputs: the numbers of what is returned.
        forbidden: names that no variable may have.
    """

    def __init__(
        self,
        statements: Sequence[Statement],
        values: Mapping[int, Value],
        given: Mapping[int, str],
        outputs: Sequence[int],
        forbidden: Collection[str],
    ) -> None:
        self.statements = list(statements)
        self._values, self._outputs = values, outputs
        blobs = {identifier(value.name, (), "blob") for value in values.values()}
        self._passed = next((name for name in ("x", "h", "y", "z") if name not in blobs), "passed_on")
        self._proper = dict(given)
        for statement in self.statements:
            self._proper.update({v: identifier(values[v].name, forbidden, "blob") for v in statement.targets})
        self._merge()
        named, taken = self._names(), {*forbidden, *given.values(), self._passed}
        for value in (v for statement in self.statements for v in statement.targets):
            if named[value] not in (self._passed, "_"):
                self._proper[value] = identifier(values[value].name, taken, "blob")
                taken.add(self._proper[value])
        self.names = self._names()

    def _merge(self) -> None:
        """Let light layers take the expression before them as their argument, where the line holds it."""
        i = 1
        while i < len(self.statements):
            inner, outer = self.statements[i - 1 : i + 1]
            if not self._may_merge(inner, outer):
                i += 1
                continue
            text = outer.text.replace(marker(inner.targets[0]), inner.text)
            together = Statement(
                outer.targets, text, inner.steps + outer.steps, outer.light, inner.joins or outer.joins, outer.pools
            )
            before = self.statements[i - 1 : i + 1]
            self.statements[i - 1 : i + 1] = [together]
            self.names = self._names()
            if len(self._line(i - 1)) + len(self._shapes(i - 1)) > WIDTH - 8:
                self.statements[i - 1 : i] = before
                i += 1

    def _may_merge(self, inner: Statement, outer: Statement) -> bool:
        if not outer.light or len(inner.targets) != 1 or inner.targets[0] in self._outputs:
            return False
        value = inner.targets[0]
        uses = Counter(v for statement in self.statements for v in statement.reads)
        if uses[value] != 1 or outer.reads.count(value) != 1:
            return False
        return _fits_in(inner.text, outer.text, marker(value)) and _depth(inner.text) + _depth(outer.text) <= DEEPEST

    def _names(self) -> dict[int, str]:
        """``x`` for what only the next statement reads; ``_`` for what nothing does; the blob's name for others.

        It is another letter where a blob is called x.
        """
        last: dict[int, int] = {}
        for i, statement in enumerate(self.statements):
            last.update(dict.fromkeys(statement.reads, i))
        named = dict(self._proper)
        for i, statement in enumerate(self.statements):
            free = [v for v in statement.targets if v not in self._outputs]
            for value in free:
                if value not in last:
                    named[value] = "_"
            if statement.targets[0] in free and last.get(statement.targets[0]) == i + 1:
                named[statement.targets[0]] = self._passed
        return named

    def _line(self, i: int) -> str:
        statement = self.statements[i]
        targets = ", ".join(self.names[value] for value in statement.targets)
        return f"{targets} = {_MARKER.sub(lambda found: self.names[int(found[1])], statement.text)}"

    def _shapes(self, i: int) -> str:
        """A comment with the shapes of what a statement makes; none where ``x`` keeps the shape that it had."""
        now = self.statements[i].targets
        if i and self.names[now[0]] == self._passed and len(now) == 1:
            before = self.statements[i - 1].targets
            if len(before) == 1 and self._values[before[0]].shape == self._values[now[0]].shape:
                return ""
        return "  # " + ", ".join(dict.fromkeys(shape(self._values[value]) for value in now))

    def lines(self, indent: int) -> list[str]:
        """The text, with blank lines between parts, and what is returned."""
        made: list[str] = []
        ends = set(self.ends())
        for i in range(len(self.statements)):
            line, shapes = self._line(i), self._shapes(i)
            pieces = broken(line, indent)
            if len(pieces[-1]) + len(shapes) <= WIDTH:
                pieces[-1] += shapes
            else:
                pieces.insert(0, " " * indent + shapes.strip())
            made += pieces
            if i in ends:
                made.append("")
        if made and not made[-1]:
            made.pop()
        returned = ", ".join(self.names[value] for value in self._outputs)
        if indent + len(returned) + 7 <= WIDTH:
            return [*made, " " * indent + f"return {returned}"]
        return [*made, *broken(f"return ({returned})", indent)]

    def ends(self) -> list[int]:
        """The statements that end a part: branches have come together, or planes are smaller.

        Of what the part has made only the end is read later on, or what was pooled.
        """
        last: dict[int, int] = {}
        for i, statement in enumerate(self.statements):
            last.update(dict.fromkeys(statement.reads, i))
        found: list[int] = []
        made: set[int] = set()
        for i, statement in enumerate(self.statements):
            made |= set(statement.targets)
            alive = {v for v in made if last.get(v, -1) > i}
            kept = {*statement.targets, *(statement.reads if statement.pools else ())}
            if (statement.joins or statement.pools) and alive <= kept:
                trailed = i + 1 < len(self.statements) and self.statements[i + 1].trails
                found.append(i + 1 if trailed else i)
                made = set()
        return found


def shape(value: Value) -> str:
    """The shape of a blob, with letters for the axes that may have any length."""
    letters = {0: "N", 2: "H", 3: "W"}
    axes = [letters.get(a, f"D{a}") if a in value.moving else str(n) for a, n in enumerate(value.shape)]
    return f"({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def _depth(text: str) -> int:
    """How many calls of modules and functions stand within one another; methods of tensors do not count."""

    def deep(node: ast.AST) -> int:
        counts = isinstance(node, ast.Call) and not (
            isinstance(node.func, ast.Attribute) and markers(ast.unparse(node.func))
        )
        return counts + max(map(deep, ast.iter_child_nodes(node)), default=0)

    return deep(ast.parse(text, mode="eval"))


def _fits_in(inner: str, outer: str, place: str) -> bool:
    """Whether an expression may stand where another has ``place``, without brackets around it."""
    if isinstance(ast.parse(inner, mode="eval").body, (ast.Call, ast.Name, ast.Attribute, ast.Subscript)):
        return True
    return any(
        isinstance(node, ast.Call) and any(isinstance(a, ast.Name) and a.id == place for a in node.args)
        for node in ast.walk(ast.parse(outer, mode="eval"))
    )
