"""Options of forks that share a message's name and not its fields."""

from __future__ import annotations

from typing import Any

from ..errors import DataError


def require_only(param: Any, names: str, where: str) -> None:
    """Refuse fields of other forks.

    Args:
        param: the message.
        names: the fields that it may have, with spaces between.
        where: what it is called.

    Raises:
        DataError: another one is set.
    """
    other = [field.name for field, _ in param.ListFields() if field.name not in names.split()]
    if other:
        raise DataError(
            f"{where}.{other[0]} belongs to another fork's message of that name and has no effect: remove it"
        )
