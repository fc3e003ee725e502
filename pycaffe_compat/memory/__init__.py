"""Memory of the host: how much is left, and where large tensors live."""

from .exhaustion import is_exhausted
from .limits import available, lacking
from .recycling import State, recycle, recycling, release, state

__all__ = ["State", "available", "is_exhausted", "lacking", "recycle", "recycling", "release", "state"]
