"""What writes the layers of a class for a target, and how a target says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..errors import LayerError
from ..layers.base import Layer
from .outline import Value

Emission = TypeVar("Emission", bound=Callable[..., Any])
Function = TypeVar("Function", bound=Callable[..., Any])


class Registry(Generic[Emission]):
    """Functions by the classes of layers that they write."""

    def __init__(self) -> None:
        self._by_class: dict[type[Layer], Emission] = {}

    def enter(self, *classes: type[Layer]) -> Callable[[Function], Function]:
        """Decorator: the function writes these layers."""

        def entered(function: Function) -> Function:
            self._by_class.update(dict.fromkeys(classes, function))  # type: ignore[arg-type]
            return function

        return entered

    def find(self, layer: type[Layer]) -> Emission | None:
        """What writes a class of layers; None if nothing does.

        A subclass is not written as its parent is: forks change layers in ways that no rule could tell.
        """
        return self._by_class.get(layer)


class Unsaid(LayerError):
    """A layer that cannot be said in a target's words as it is."""


def unsaid(layer: Layer, why: str) -> Unsaid:
    """Return (for the caller to raise) that ``layer`` cannot be written, and why."""
    return Unsaid(f'layer "{layer.name}" ({layer.type_name}): {why}')


def static(layer: Layer, value: Value, *axes: int) -> None:
    """Raise unless these axes of ``value`` (all without ``axes``) keep their length.

    Raises:
        LayerError: one of them may change.
    """
    wanted = axes or tuple(range(len(value.shape)))
    changing = [axis for axis in wanted if axis in value.moving]
    if changing:
        raise unsaid(layer, f"axis {changing[0]} of its bottom {value.name} may change")
