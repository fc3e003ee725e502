"""Copies of messages without some of their fields."""

from __future__ import annotations

from collections.abc import Container
from typing import Any


def copy_fields(source: Any, target: Any, but: Container[str] = ()) -> None:
    """Give ``target`` the fields that ``source`` has set, except those named in ``but``, which are never copied.

    The messages may be of different types that have fields of the same names and kinds.
    """
    for field, value in source.ListFields():
        if field.name in but:
            continue
        kept = getattr(target, field.name)
        if hasattr(kept, "extend"):
            kept.extend(value)
        elif field.message_type is not None:
            kept.CopyFrom(value)
        else:
            setattr(target, field.name, value)
