"""Fields that take several messages here, as in one fork, and that scripts of the other forks write as the one they know.

``transform_param.resize_param`` is one message in SSD's Caffe and a list of them in MobileNet-YOLO's. Here both work:
``resize_param.height = 300`` as well as ``resize_param.add(height=300)``.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence
from typing import Any

from google.protobuf.message import Message


class OneOrSeveral:
    """The messages of a repeated field; what is asked of one message, the first answers, which is made when it is written to.

    Args:
        messages: the field as protobuf has it.
        kind: the class of the messages.
    """

    __slots__ = ("_kind", "_messages")

    def __init__(self, messages: Any, kind: type[Message]) -> None:
        object.__setattr__(self, "_messages", messages)
        object.__setattr__(self, "_kind", kind)

    def first(self) -> Any:
        """The first message, made if there is none."""
        return self._messages[0] if len(self._messages) else self._messages.add()

    def CopyFrom(self, other: Any) -> None:
        """Hold what ``other``, a message or several, holds, and nothing else."""
        found = [each.__deepcopy__() for each in _messages(other)]  # other may be this very field
        del self._messages[:]
        self._messages.extend(found)

    def MergeFrom(self, other: Any) -> None:
        """Merge a message into the first, or append several."""
        if isinstance(other, Message):
            self.first().MergeFrom(other)
        else:
            self._messages.extend(list(other))

    def SetInParent(self) -> None:
        """Have a message, though nothing be set in it."""
        self.first()

    def Clear(self) -> None:
        """Hold nothing."""
        del self._messages[:]

    def __getattr__(self, name: str) -> Any:
        if hasattr(self._messages, name):
            return getattr(self._messages, name)
        if len(self._messages):
            return getattr(self._messages[0], name)
        value = getattr(self._kind(), name)
        if hasattr(value, "append") and name in self._kind.DESCRIPTOR.fields_by_name:
            return _Values(self, name)
        return getattr(self.first(), name) if name in ("MergeFromString", "ParseFromString") else value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.first(), name, value)

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._messages)

    def __getitem__(self, index: Any) -> Any:
        return self._messages[index]

    def __delitem__(self, index: Any) -> None:
        del self._messages[index]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Message):
            return len(self._messages) < 2 and (self._messages[0] if len(self) else self._kind()) == other
        return list(self) == (list(other) if hasattr(other, "__iter__") else other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._messages) if len(self) > 1 else str(self._messages[0] if len(self) else self._kind())


class _Values(MutableSequence[Any]):
    """The values of a repeated field of the first message; none until the first is put in."""

    def __init__(self, owner: OneOrSeveral, name: str) -> None:
        self._owner, self._name = owner, name

    def _now(self) -> Any:
        return getattr(self._owner[0], self._name) if len(self._owner) else []

    def __len__(self) -> int:
        return len(self._now())

    def __getitem__(self, index: Any) -> Any:
        return self._now()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        getattr(self._owner.first(), self._name)[index] = value

    def __delitem__(self, index: Any) -> None:
        del self._now()[index]

    def insert(self, index: int, value: Any) -> None:
        getattr(self._owner.first(), self._name).insert(index, value)

    def __eq__(self, other: object) -> bool:
        return list(self) == other

    def __repr__(self) -> str:
        return repr(list(self))


def _messages(given: Any) -> list[Any]:
    return [given] if isinstance(given, Message) else list(given)


def let_one_do(cls: type[Message], kinds: dict[str, type[Message]]) -> None:
    """Give the messages of ``cls`` the fields ``kinds``, name to class of its messages, as :class:`OneOrSeveral`.

    ``HasField`` then takes these names, too. protobuf looks a field up before it looks for an attribute of the class, so
    that is done in ``__getattribute__``.
    """
    get, has = cls.__getattribute__, cls.HasField

    def get_attribute(self: Any, name: str) -> Any:
        value = get(self, name)
        return OneOrSeveral(value, kinds[name]) if name in kinds else value

    def has_field(self: Any, name: Any) -> bool:
        return len(get(self, name)) > 0 if name in kinds else bool(has(self, name))

    changed: Any = cls
    changed.__getattribute__ = get_attribute
    changed.HasField = has_field
