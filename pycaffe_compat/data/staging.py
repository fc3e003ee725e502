"""Batches on their way to a CUDA device: the copy of the next one while the net computes with this one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Make = Callable[[], Sequence[Tensor]]


class Staged:
    """A batch that is being brought to a device.

    Args:
        make: returns its tensors in the memory of the host, page-locked if the copy is to overlap with anything.
        finish: what is done with them on the device.
        device: where to.
        stream: of a CUDA device, on which both are done; None waits for nothing.
    """

    def __init__(
        self,
        make: Make,
        finish: Callable[[Sequence[Tensor]], tuple[Tensor, ...]],
        device: torch.device,
        stream: torch.cuda.Stream | None,
    ) -> None:
        host = make()
        self._stream = stream
        with contextlib.nullcontext() if stream is None else torch.cuda.stream(stream):
            self._tops = finish([tensor.to(device, non_blocking=True) for tensor in host])

    def tops(self) -> tuple[Tensor, ...]:
        """Return the tensors of the batch, for use in the current stream of their device."""
        if self._stream is not None:
            current = torch.cuda.current_stream(self._stream.device)
            current.wait_stream(self._stream)
            for top in self._tops:
                top.record_stream(current)  # their memory belongs to the other stream
        return self._tops
