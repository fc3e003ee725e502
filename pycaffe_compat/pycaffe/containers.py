"""The dicts and lists in which a net shows its blobs: looking into them is free, replacing what is in them is not.

Assigning to an item sets the blob's values; whatever would only change the dict or list, and not the net, is an error.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any, NoReturn, SupportsIndex

import torch

from ..errors import CaffeError, UnknownNameError, nearest
from .blob import Blob

_SPLIT = re.compile(r"(?P<of>.+_)\d+_split(_\d+)?")  # blob, layer and top; then the consumer


class FixedError(CaffeError, TypeError):
    """An attempt to add, remove or reorder what the net's prototxt determines."""


class Names(OrderedDict[str, Any]):
    """A dict by name that answers a missing key with the names that are spelt alike. Copies are independent of the net."""

    def __init__(self, items: Iterable[tuple[str, Any]] = (), what: str = "name") -> None:
        super().__init__()
        for name, value in items:
            OrderedDict.__setitem__(self, name, value)
        self._what = what

    def __missing__(self, name: str) -> Any:
        split = _SPLIT.fullmatch(str(name))
        source = next((each for each in self if split and split["of"].startswith(f"{each}_")), None)
        hint = f'; Caffe splits "{source}" where several layers read it, and here they read "{source}" itself'
        raise UnknownNameError(
            f'the net has no {self._what} "{name}"{hint if source is not None else nearest(str(name), self)}'
        )

    def copy(self) -> Names:
        """A dict of the same values, whose items may be replaced."""
        return Names(self.items(), self._what)

    def __reduce__(self) -> Any:
        return Names, (list(self.items()), self._what)

    @classmethod
    def fromkeys(cls, iterable: Iterable[Any], value: Any = None) -> OrderedDict[Any, Any]:  # type: ignore[override]
        return OrderedDict.fromkeys(iterable, value)

    def __or__(self, other: Any) -> Any:
        return OrderedDict(self) | other

    def __ror__(self, other: Any) -> Any:
        return OrderedDict(other) | OrderedDict(self) if isinstance(other, Mapping) else NotImplemented


class FixedNames(Names):
    """``net.blobs`` and ``net.params``: assigning to an item sets values."""

    def __setitem__(self, name: str, value: Any) -> None:
        held = self[name]
        if held is value:  # the last step of an operation in place
            return
        if isinstance(held, Blob):
            held.assign(value, f'blob "{name}"')
        else:
            held.assign(value)

    def _fixed(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise FixedError(
            f"a net's {self._what}s come from its prototxt: none can be removed or moved; edit a copy() instead"
        )

    __delitem__ = pop = popitem = clear = move_to_end = _fixed  # type: ignore[assignment]

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The item, which must exist."""
        return self[name]

    def update(self, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        """Set the values of several items."""
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __ior__(self, other: Any) -> FixedNames:  # type: ignore[override,misc]
        self.update(other)
        return self


def _of_free_lists(method: Callable[..., Any]) -> Any:
    """A method of lists that a layer's blobs do not have."""

    @wraps(method)
    def checked(blobs: BlobVec, *args: Any, **kwargs: Any) -> Any:
        if blobs._layer is not None:
            raise FixedError(
                f'layer "{blobs._layer}" has the parameter blobs that its type and options give it: none can be added, '
                "removed or moved; change the net's prototxt, or edit list(blobs)"
            )
        return method(blobs, *args, **kwargs)

    return checked


class BlobVec(list[Blob]):
    """A list of blobs. In one that is a ``layer``'s, as ``net.params["conv1"]`` is, assigning to an item sets values."""

    def __init__(self, blobs: Iterable[Blob] = (), layer: str | None = None) -> None:
        super().__init__(blobs)
        self._layer = layer

    def add_blob(self, *shape: int) -> None:
        """Append a blob of zeros of this shape. A layer, which is built, does not use it, and ``save`` not write it."""
        super().append(Blob.empty(shape, torch.device("cpu")))

    def assign(self, values: Any, where: slice = slice(None)) -> None:
        """Set the values of a layer's blobs, or of those that a slice selects; if one does not fit, none is set.

        Raises:
            CaffeError: not a list of as many arrays, or an array of another shape than its blob's.
        """
        blobs = self[where]
        if not isinstance(values, (list, tuple)) or len(values) != len(blobs):
            given = f"{len(values)} values" if isinstance(values, (list, tuple)) else f"a {type(values).__name__}"
            raise CaffeError(
                f'layer "{self._layer}": parameters of shapes {", ".join(str(blob.shape) for blob in blobs) or "none"}; '
                f"a list of {len(blobs)} arrays can be assigned to them, not {given}"
            )
        indices = range(len(self))[where]
        arrays = [blob.fitting(v, self._what(i)) for i, blob, v in zip(indices, blobs, values, strict=True)]
        arrays = [array.copy() for array in arrays]  # they may be one another's
        for blob, array in zip(blobs, arrays, strict=True):
            blob.data[...] = array

    def rebind(self, index: int, blob: Blob) -> None:
        """Put another blob in this place: the one that the layer uses from now on."""
        super().__setitem__(index, blob)

    def _what(self, index: int) -> str:
        return f'parameter {index} of layer "{self._layer}"'

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._layer is None:
            super().__setitem__(index, value)
        elif isinstance(index, slice):
            self.assign(value, index)
        else:
            self[index].assign(value, self._what(range(len(self))[index]))

    append = _of_free_lists(list.append)
    extend = _of_free_lists(list.extend)
    insert = _of_free_lists(list.insert)
    remove = _of_free_lists(list.remove)
    pop = _of_free_lists(list.pop)
    clear = _of_free_lists(list.clear)
    sort = _of_free_lists(list.sort)
    reverse = _of_free_lists(list.reverse)
    __delitem__ = _of_free_lists(list.__delitem__)
    __iadd__ = _of_free_lists(list.__iadd__)
    __imul__ = _of_free_lists(list.__imul__)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:  # copies are no layer's
        return BlobVec, (list(self),)
