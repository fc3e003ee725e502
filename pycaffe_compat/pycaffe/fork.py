"""Processes that ``fork`` makes of one that has used torch."""

from __future__ import annotations

import os
from functools import cache

import torch


@cache
def keep_forks_alive() -> None:
    """Let the forks of this process compute with one thread, from now on.

    The threads of torch's pool do not exist in a fork, but OpenMP waits for them there: without this, a fork of a process
    that has run a net hangs at its first large operator.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_use_one_thread)


def _use_one_thread() -> None:
    torch.set_num_threads(1)
