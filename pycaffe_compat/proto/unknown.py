"""The fields and enum values of a prototxt that its messages do not have."""

from __future__ import annotations

from typing import Any, NamedTuple

from .outline import Outline, Source

_MOST = 12  # names listed


class Unknown(NamedTuple):
    """A name that is not in the schema: the message or enum that lacks it, and the offsets where it stands."""

    owner: str
    name: str
    offsets: list[int]


def unknown_names(outline: Outline, root: Any) -> list[Unknown]:
    """Return the unknown names of a text in the order in which they first appear.

    What an unknown field holds is not looked at. The brackets of the text must pair.

    Args:
        outline: the text's tokens.
        root: the descriptor of the message that the text should be.
    """
    found: dict[tuple[str, str], Unknown] = {}
    stack: list[tuple[Any, Any]] = []  # of the brackets that are open: the message and the field around each
    message, field = root, None  # the message is None inside an unknown field
    tokens = outline.tokens
    for i, token in enumerate(tokens):
        before = tokens[i - 1].text if i else ""
        after = tokens[i + 1].text if i + 1 < len(tokens) else ""
        owner = None
        if token.kind == "open":
            stack.append((message, field))
            if token.text != "[":
                message = field.message_type if field is not None else None
        elif token.kind == "close":
            message, field = stack.pop()
        elif token.kind == "word" and message is not None and before != ":" and after in (":", "{", "<", "["):
            field = message.fields_by_name.get(token.text)
            owner = message if field is None else None
        elif token.kind == "word" and field is not None and field.enum_type is not None and before in (":", "[", ","):
            owner = field.enum_type if token.text not in field.enum_type.values_by_name else None
        if owner is not None:
            found.setdefault((owner.name, token.text), Unknown(owner.name, token.text, [])).offsets.append(token.start)
    return list(found.values())


def listed(names: list[Unknown], source: Source) -> str:
    """Return unknown names with the line and column where each first stands, and how often it does."""
    words = []
    for unknown in names[:_MOST]:
        _, line, column = source.where(unknown.offsets[0]).rsplit(":", 2)
        times = f", {len(unknown.offsets)} times" if len(unknown.offsets) > 1 else ""
        words.append(f"{unknown.name} of {unknown.owner} ({line}:{column}{times})")
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(words) + more
