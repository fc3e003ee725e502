"""The fields and enum values of a prototxt that its messages do not have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from . import caffe_pb2
from .outline import Outline, Source, Token

_MOST = 12  # names listed


class Unknown(NamedTuple):
    """A name that is not in the schema: the message or enum that lacks it, and the offsets where it stands."""

    owner: str
    name: str
    offsets: list[int]


def unknown_names(outline: Outline, root: Any) -> list[Unknown]:
    """Return the unknown names of a text in the order in which they first appear.

    Args:
        outline: the text's tokens. Its brackets must pair.
        root: the descriptor of the message that the text should be.
    """
    found: dict[tuple[str, str], Unknown] = {}
    for owner, token, known in _names(outline, root):
        if not known:
            found.setdefault((owner.name, token.text), Unknown(owner.name, token.text, [])).offsets.append(token.start)
    return list(found.values())


def known_additions(outline: Outline, root: Any) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the (message, field) in a text that forks have and BVLC's Caffe has not, and the forks of each."""
    names = {(owner.name, token.text) for owner, token, known in _names(outline, root) if known}
    fields = caffe_pb2.ADDITIONS.fields
    return {name: fields[name] for name in sorted(names) if name in fields}


def layer_types(outline: Outline) -> dict[str, str]:
    """Return the quoted types of the layers of a net's text, each with the name of the first layer of that type."""
    layers = [block for block in outline.blocks if block.field == "layer" and block.bracket != "["]
    tokens, found = outline.tokens, dict[str, str]()
    for i, token in enumerate(tokens[:-2]):
        if token.text == "type" and tokens[i + 1].text == ":" and tokens[i + 2].kind == "string":
            inside = [block for block in outline.around(token.start) if block.bracket != "["]
            if inside and inside[-1] in layers:
                found.setdefault(tokens[i + 2].text[1:-1], inside[-1].name)
    return found


def _names(outline: Outline, root: Any) -> Iterator[tuple[Any, Token, bool]]:
    """Yield the names of fields and enum values in a text: the message or enum, the token, and whether that has the name.

    What an unknown field holds is not looked at.
    """
    stack: list[tuple[Any, Any]] = []  # of the brackets that are open: the message and the field around each
    message, field = root, None  # the message is None inside an unknown field
    tokens = outline.tokens
    for i, token in enumerate(tokens):
        before = tokens[i - 1].text if i else ""
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        if token.kind == "open":
            stack.append((message, field))
            if token.text != "[":
                message = field.message_type if field is not None else None
        elif token.kind == "close":
            message, field = stack.pop()
        elif token.kind == "word" and message is not None and before != ":" and after in (":", "{", "<", "["):
            field = message.fields_by_name.get(token.text)
            yield message, token, field is not None
        elif token.kind == "word" and field is not None and field.enum_type is not None and before in (":", "[", ","):
            yield field.enum_type, token, token.text in field.enum_type.values_by_name


def listed(names: list[Unknown], source: Source) -> str:
    """Return unknown names with the line and column where each first stands, and how often it does."""
    words = []
    for unknown in names[:_MOST]:
        _, line, column = source.where(unknown.offsets[0]).rsplit(":", 2)
        times = f", {len(unknown.offsets)} times" if len(unknown.offsets) > 1 else ""
        words.append(f"{unknown.name} of {unknown.owner} ({line}:{column}{times})")
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(words) + more
