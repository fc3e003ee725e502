"""The geometry of pooling windows: Caffe's sizes, and what makes a window impossible."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import CaffeError

Pair = tuple[int, int]
PairLike = int | Sequence[int]
NO_SWITCH = 255
"""The switch of a window in which nothing was chosen; also the most places that a window with a byte switch has."""


class OperatorError(CaffeError, ValueError):
    """A pooling operator called with arguments that do not fit together; the message names them and their values."""


def _integer(value: Any) -> Any:
    if isinstance(value, (int, torch.SymInt)):
        return value
    if not hasattr(value, "__index__"):  # the compiler of PyTorch 2.6 cannot catch what operator.index raises
        raise TypeError(value)
    return operator.index(value)


def pair(value: PairLike, name: str = "value") -> Pair:
    """Return ``(h, w)``; an int stands for both.

    Raises:
        OperatorError: neither an integer nor a sequence of two.
    """
    if isinstance(value, (int, torch.SymInt)):
        return (value, value)
    try:
        h, w = map(_integer, value if isinstance(value, Sequence) else (value, value))
    except (TypeError, ValueError):
        shown = tuple(value) if isinstance(value, (list, tuple)) else repr(value)
        raise OperatorError(f"{name} is {shown}, but must be one integer or two, (h, w)") from None
    return (h, w)


@contextlib.contextmanager
def untraced() -> Iterator[None]:
    """Keep what the ``with`` block does out of the graph that ``torch.jit.trace`` records."""
    if not torch.jit.is_tracing():
        yield
        return
    state = torch._C._get_tracing_state()
    torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch._C._set_tracing_state(state)  # type: ignore[attr-defined]


def plane_of(x: Tensor | Sequence[int]) -> Pair:
    """Return the height and width of ``(N, C, H, W)``, given the tensor or its shape.

    They are numbers also under ``torch.jit.trace``, whose shapes hold tensors, so they are constants of the graph.
    """
    shape = x.shape if isinstance(x, Tensor) else x
    if torch.jit.is_tracing():
        with untraced():
            return (int(shape[2]), int(shape[3]))
    return (shape[2], shape[3])


class Window(NamedTuple):
    """Kernel, stride and pad of a pooling, each ``(h, w)``."""

    kernel: Pair
    stride: Pair
    pad: Pair

    @property
    def places(self) -> int:
        """How many places a window has."""
        return self.kernel[0] * self.kernel[1]

    @property
    def byte(self) -> bool:
        """Whether a switch of this window fits into a byte."""
        return self.places <= NO_SWITCH

    @property
    def overlaps(self) -> bool:
        """Whether a place can lie in more than one window."""
        return self.kernel[0] > self.stride[0] or self.kernel[1] > self.stride[1]

    def pooled(self, plane: Pair, ceil_mode: bool = True) -> Pair:
        """How many windows Caffe's Pooling makes of a plane; nothing is checked."""

        def along(axis: int) -> int:
            span, s, p = plane[axis] + 2 * self.pad[axis] - self.kernel[axis], self.stride[axis], self.pad[axis]
            count = (-(-span // s) if ceil_mode else span // s) + 1
            return torch.sym_min(count, (plane[axis] + p - 1) // s + 1) if any(self.pad) else count

        return along(0), along(1)

    def unpooled(self, windows: Pair) -> Pair:
        """The size of the plane that the fork's Depooling makes of so many windows; nothing is checked."""
        h, w = (self.stride[a] * (windows[a] - 1) + self.kernel[a] - 2 * self.pad[a] for a in (0, 1))
        return h, w

    def covered(self, plane: Pair, windows: Pair) -> Pair:
        """The size of the part of a plane, from its first row and column on, that so many windows cover."""
        h, w = (min(plane[a], self.stride[a] * (windows[a] - 1) + self.kernel[a] - self.pad[a]) for a in (0, 1))
        return h, w

    def problem(self, plane: Pair | None = None, windows: Pair | None = None) -> str | None:
        """Say why this pooling cannot be, or return None.

        Args:
            plane: the size of the plane that the windows lie on.
            windows: how many windows there are; each must reach the plane.

        Sizes that are symbolic (while a graph is traced) are not looked at.
        """
        for axis in (0, 1):
            k, s, p, letter = self.kernel[axis], self.stride[axis], self.pad[axis], "hw"[axis]
            if k <= 0:
                return f"kernel_{letter} is {k}, but must be positive"
            if s <= 0:
                return f"stride_{letter} is {s}, but must be positive"
            if not 0 <= p < k:
                return f"pad_{letter} is {p}, but must be at least 0 and smaller than kernel_{letter}, which is {k}"
            side = "height" if axis == 0 else "width"
            size = plane[axis] if plane is not None else None
            if isinstance(size, int) and size <= 0:
                return f"the {side} of the plane is {size}, but must be positive"
            count = windows[axis] if windows is not None else None
            if isinstance(count, int):
                if count <= 0 and isinstance(size, int) and k > size + 2 * p:
                    return f"kernel_{letter} is {k}, larger than the input's {side} {size} plus twice pad_{letter} {p}"
                if count <= 0:
                    return f"the number of windows along the {side} is {count}, but must be positive"
                if isinstance(size, int) and (count - 1) * s - p >= size:
                    return (
                        f"window {count - 1} along the {side} would start at {(count - 1) * s - p} with no input in "
                        f"it, as the {side} is {size} (kernel_{letter} {k}, stride_{letter} {s}, pad_{letter} {p})"
                    )
        return None


def window(kernel: PairLike, stride: PairLike, pad: PairLike) -> Window:
    """Return a :class:`Window`; an int stands for ``(h, w)`` alike."""
    return Window(pair(kernel, "kernel"), pair(stride, "stride"), pair(pad, "pad"))


def pooled_size(size: PairLike, kernel: PairLike, stride: PairLike, pad: PairLike, ceil_mode: bool = True) -> Pair:
    """The number of windows of Caffe's Pooling on a plane of ``size``: ``ceil((size + 2*pad - kernel) / stride) + 1``.

    With padding on any side, one less where the last window would start past the plane or in its padding. A kernel may be
    larger than the padded plane, by less than the stride: there is one window then. ``ceil_mode`` False is
    ``round_mode: FLOOR``.

    Raises:
        OperatorError: an impossible window, one larger than its input, or (stride > kernel) one with no input at all.
    """
    w, plane = window(kernel, stride, pad), pair(size, "size")
    problem = w.problem(plane)
    if problem is None:
        windows = w.pooled(plane, ceil_mode)
        problem = w.problem(plane, windows)
    if problem is not None:
        raise OperatorError(f"pooling: {problem}")
    return windows


def unpooled_size(size: PairLike, kernel: PairLike, stride: PairLike, pad: PairLike) -> Pair:
    """The size of the plane that the fork's Depooling makes of ``size`` windows: ``stride*(size-1) + kernel - 2*pad``.

    Raises:
        OperatorError: an impossible window, or a plane without places.
    """
    w, windows = window(kernel, stride, pad), pair(size, "size")
    problem = w.problem()
    if problem is None:
        plane = w.unpooled(windows)
        problem = w.problem(plane, windows)
    if problem is not None:
        raise OperatorError(f"unpooling: {problem}")
    return plane


def corners(w: Window, windows: Pair, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Where each window starts before clipping: rows ``(PH, 1)`` and columns ``(1, PW)``, int64."""
    rows = torch.arange(windows[0], device=device) * w.stride[0] - w.pad[0]
    columns = torch.arange(windows[1], device=device) * w.stride[1] - w.pad[1]
    return rows[:, None], columns[None, :]
