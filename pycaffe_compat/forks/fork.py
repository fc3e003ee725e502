"""What a fork of Caffe is here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Fork:
    """A fork of Caffe: what it has that BVLC's Caffe has not.

    Its messages and fields, with the fork's numbers, are ``fork.proto`` in its folder; its layers are the other modules
    there.

    Attributes:
        name: what ``--fork`` and ``@register(…, fork=…)`` take; the name of its folder.
        title: its name in messages.
        source: the repository that its facts were read from.
        types: the layer types that BVLC's Caffe has not, with spaces between them; also those that do not run here.
        speed: fields, as ``Message.field``, that change no result here, and what they steer in the fork.
        refused: fields, as ``Message.field``, that would change results and are not supported, and what they would do.
        sign: says whether a ``NetParameter`` is of this fork by something else than types and fields; None where nothing does.
        prepare: changes a ``NetParameter`` as the fork does before it builds the layers; None where it does nothing.
    """

    name: str
    title: str
    source: str
    types: str = ""
    speed: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Any], None] | None = None
    sign: Callable[[Any], bool] | None = None

    @cached_property
    def layer_types(self) -> frozenset[str]:
        """``types`` as a set."""
        return frozenset(self.types.split())
