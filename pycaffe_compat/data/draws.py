"""Random numbers as a function of a seed and a position, independent of earlier draws.

Record number ``p`` always gets the same numbers. So batches can be made in any order by any number of threads, and a run
that resumes at ``p`` continues bit for bit. The mixing function is SplitMix64 (Steele, Lea, Flood:
*Fast splittable pseudorandom number generators*, OOPSLA 2014), used as a counter-based generator.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import DataError

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
RECORDS, ORDER, SKIP, ROWS, PICTURES, SIZES = range(6)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def words(seed: int, positions: Sequence[int] | np.ndarray, count: int, stream: int = RECORDS) -> np.ndarray:
    """Return ``count`` random 64-bit words for each position: ``uint64`` of shape ``(len(positions), count)``.

    ``stream`` separates draws for different purposes: each gets its own numbers.
    """
    start = _mix(np.array([seed & (2**64 - 1)], np.uint64) + _GAMMA * np.array([stream + 1], np.uint64))
    rows = _mix(start + _GAMMA * (np.asarray(positions, np.uint64) + np.uint64(1)))
    return _mix(rows[:, None] + _GAMMA * np.arange(1, count + 1, dtype=np.uint64))


def draw(seed: int, position: int, below: int, stream: int = RECORDS) -> int:
    """Return one number in ``[0, below)``."""
    return int(words(seed, [position], 1, stream)[0, 0]) % below


def shares(seed: int, position: int, count: int, stream: int) -> np.ndarray:
    """Return ``count`` random numbers in [0, 1) for a position, ``float64``."""
    return (words(seed, [position], count, stream)[0] >> np.uint64(11)) * 2.0**-53


def permutation(seed: int, epoch: int, n: int, stream: int = ORDER) -> np.ndarray:
    """Return the order of ``n`` items in an epoch: a permutation of ``range(n)``."""
    start = int(words(seed, [epoch], 1, stream)[0, 0])
    return np.argsort(words(start, np.arange(n), 1, stream)[:, 0], kind="stable")


class Order:
    """The order in which a list is read: as it stands, or a new one in every epoch.

    Args:
        count: how many items the list has.
        shuffle: use a new order in every epoch.
        skip: start at a random one of the first ``skip`` items.
    """

    @classmethod
    def of_list(cls, count: int, options: Any, field: str, what: str) -> Order:
        """The order that ``shuffle`` and ``rand_skip`` of ``options`` say.

        Args:
            count: how many items the list has.
            field: the name of the options, and ``what`` the items are, for messages.

        Raises:
            DataError: ``rand_skip`` is more than there are items.
        """
        if options.rand_skip > count:
            raise DataError(f"{field}.rand_skip {options.rand_skip} is more than the {count} {what}")
        return cls(count, options.shuffle, options.rand_skip)

    def __init__(self, count: int, shuffle: bool = False, skip: int = 0) -> None:
        self._count, self._shuffle, self._skip = count, shuffle, skip
        self._permutation = functools.lru_cache(maxsize=2)(permutation)

    def index(self, seed: int, position: int) -> int:
        """Return the index of the item at ``position`` of the endless sequence of epochs."""
        if self._skip:
            position += draw(seed, 0, self._skip, SKIP)
        epoch, index = divmod(position, self._count)
        return int(self._permutation(seed, epoch, self._count)[index]) if self._shuffle else index
