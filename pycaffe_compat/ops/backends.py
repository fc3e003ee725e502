"""Which implementation of the pooling operators serves a device: the compiled extension, CuPy, or plain PyTorch.

The environment variable ``PYCAFFE_COMPAT_BACKEND`` (``auto``, ``extension``, ``cupy`` or ``torch``) forces one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from .. import extension
from ..errors import CaffeError, nearest
from . import torch_backend

VARIABLE = "PYCAFFE_COMPAT_BACKEND"
PREFERENCE = {"cpu": ("extension", "torch"), "cuda": ("extension", "cupy", "torch")}
NAMES = ("extension", "cupy", "torch")
_NAMESPACE = "pycaffe_compat_ext"
_forced: str | None = None


def unavailable(name: str, device_type: str) -> str | None:
    """Say why the backend ``name`` cannot serve devices of a type (``"cpu"``, ``"cuda"``); None if it can."""
    if name == "torch":
        return None
    if name == "extension":
        why = extension.load()
        if why is None and not torch._C._dispatch_has_kernel_for_dispatch_key(
            f"{_NAMESPACE}::max_pool_switch", device_type.upper()
        ):
            return f"built without kernels for {device_type}"
        return why
    if device_type != "cuda":
        return "serves CUDA devices only"
    try:
        return importlib.import_module(".cupy_backend", __package__).unavailable()
    except ImportError as error:
        return str(error)


def _operators(name: str) -> Any:
    """The object whose functions are the operators of an available backend."""
    if name == "extension":
        return getattr(torch.ops, _NAMESPACE)
    return torch_backend if name == "torch" else importlib.import_module(".cupy_backend", __package__)


@functools.cache
def _serve(name: str, device_type: str) -> tuple[str, Any, str]:
    """Return the chosen backend's name, its operators, and the reason for the choice."""
    if name == "auto":
        passed: list[str] = []
        for candidate in PREFERENCE.get(device_type, ("torch",)):
            why = unavailable(candidate, device_type)
            if why is None:
                return candidate, _operators(candidate), "; ".join(passed) or "preferred"
            passed.append(f"{candidate}: {why}")
    if name not in NAMES:
        raise CaffeError(f'{VARIABLE} is "{name}"{nearest(name, NAMES)}; valid: auto, {", ".join(NAMES)}')
    why = unavailable(name, device_type)
    if why is not None:
        raise CaffeError(f'the pooling backend "{name}" was asked for but cannot serve {device_type}: {why}')
    return name, _operators(name), "forced"


def _choice() -> str:
    return _forced or os.environ.get(VARIABLE) or "auto"


def choose(device: torch.device) -> Any:
    """Return the object whose functions run the operators on ``device``.

    Raises:
        CaffeError: a forced backend that is unknown or cannot serve the device; the message says why.
    """
    return _serve(_choice(), device.type)[1]


_PLAIN = (torch.Tensor, torch.nn.Parameter)


def direct(*tensors: Any) -> Any:
    """Return the compiled operators where they may be called as they are, with derivatives of their own; else None.

    The registered operators reach the same kernels through Python, which takes longer than pooling a small tensor. They
    are needed where something watches the calls: a tracer, a fake or subclassed tensor, a functorch transform.
    """
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return None
    if torch._C._functorch.maybe_current_level() is not None or any(type(t) not in _PLAIN for t in tensors):
        return None
    name, operators, _ = _serve(_choice(), tensors[0].device.type)
    return operators if name == "extension" else None


def backend_info() -> dict[str, dict[str, str]]:
    """Say which backend serves which device and why: ``{"cpu": {"backend": …, "reason": …}, "cuda": …}``.

    CUDA is listed where this machine has a device. A forced backend that cannot serve a device shows as ``"none"``.
    """
    info = {}
    for device_type in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        try:
            name, _, reason = _serve(_choice(), device_type)
        except CaffeError as error:
            name, reason = "none", str(error)
        info[device_type] = {"backend": name, "reason": reason}
    return info


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force a backend (or ``"auto"``), for the whole process, while the ``with`` block runs."""
    global _forced
    if name != "auto" and name not in NAMES:
        raise CaffeError(
            f'no pooling backend is called "{name}"{nearest(name, NAMES)}; valid: auto, {", ".join(NAMES)}'
        )
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before
