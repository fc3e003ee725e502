"""The order that ``std::srand`` and ``std::random_shuffle`` give on Linux, where a published split of data depends on it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_LAG, _NEAR, _DROPPED = 31, 3, 310
_MODULUS, _FACTOR = 2**31 - 1, 16807


def numbers(seed: int) -> Iterator[int]:
    """The numbers of ``rand()`` of the GNU C library after ``srand(seed)``, without end.

    The generator adds the numbers 3 and 31 places back, modulo 2^32, and gives all bits but the last.
    """
    state = [seed % 2**32 or 1]
    first = state[0] - 2**32 if state[0] >= 2**31 else state[0]
    state[0] = first
    for _ in range(_LAG - 1):
        high, low = divmod(abs(state[-1]), 127773)
        if state[-1] < 0:
            high, low = -high, -low
        word = _FACTOR * low - 2836 * high
        state.append(word + _MODULUS if word < 0 else word)
    ring = [word % 2**32 for word in state]
    front, rear = _NEAR, 0
    made = 0
    while True:
        ring[front] = (ring[front] + ring[rear]) % 2**32
        word = ring[front]
        front, rear = (front + 1) % _LAG, (rear + 1) % _LAG
        made += 1
        if made > _DROPPED:
            yield word >> 1


def shuffle(items: np.ndarray, drawn: Iterator[int]) -> None:
    """Shuffle ``items`` in place, as ``std::random_shuffle`` of libstdc++ does with :func:`numbers`."""
    for i in range(1, len(items)):
        j = next(drawn) % (i + 1)
        items[i], items[j] = items[j], items[i]
