"""Which backend serves the pooling operators on a device: the compiled extension, CuPy, or plain PyTorch.

The environment variable ``PYCAFFE_COMPAT_BACKEND`` (``auto``, ``extension``, ``cupy`` or ``torch``) forces one.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .. import extension
from ..errors import CaffeError, nearest
from . import torch_backend

VARIABLE = "PYCAFFE_COMPAT_BACKEND"
PREFERENCE = {"cpu": ("extension", "torch"), "cuda": ("extension", "cupy", "torch")}
NAMES = ("extension", "cupy", "torch")
_forced: str | None = None
_followed: str | None = None


@functools.cache
def _load() -> str | None:
    """Load the compiled operators. Return None if that went well, otherwise the reason."""
    why = extension.load()
    if why is None and not _has_kernels("CPU"):
        return f"{extension.NAME} is of another release of this package; build it again"
    return why


def _has_kernels(key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key("pycaffe_compat::max_pool_switch", key)


def unavailable(name: str, device_type: str) -> str | None:
    """Say why the backend ``name`` cannot serve devices of a type (``"cpu"``, ``"cuda"``); None if it can."""
    if name == "torch":
        return None
    if name == "extension":
        why = _load()
        if why is None and not _has_kernels(device_type.upper()):
            return f"built without kernels for {device_type}"
        return why
    if device_type != "cuda":
        return "serves CUDA devices only"
    try:
        return importlib.import_module(".cupy_backend", __package__).unavailable()
    except ImportError as error:
        return str(error)


@functools.cache
def _serve(name: str, device_type: str) -> tuple[str, str]:
    """Return the name of the backend that serves, and the reason for the choice."""
    if name == "auto":
        passed: list[str] = []
        for candidate in PREFERENCE.get(device_type, ("torch",)):
            why = unavailable(candidate, device_type)
            if why is None:
                return candidate, "; ".join(passed) or "preferred"
            passed.append(f"{candidate}: {why}")
    if name not in NAMES:
        raise CaffeError(f'{VARIABLE} is "{name}"{nearest(name, NAMES)}; valid: auto, {", ".join(NAMES)}')
    why = unavailable(name, device_type)
    if why is not None:
        raise CaffeError(f'the pooling backend "{name}" was requested but does not support {device_type}: {why}')
    return name, "forced"


def _choice() -> str:
    return _forced or os.environ.get(VARIABLE) or "auto"


def serving(device_type: str) -> str:
    """Return the name of the backend that serves devices of a type.

    Raises:
        CaffeError: a forced backend that is unknown or cannot serve them; the message says why.
    """
    return _serve(_choice(), device_type)[0]


def implementation(operator: str, device: torch.device | None = None) -> Callable[..., Any]:
    """Return the Python function that runs an operator: on a device, or anywhere (plain PyTorch).

    Raises:
        CaffeError: a forced backend that is unknown or cannot serve the device; the message says why.
    """
    if device is not None and _serve(_choice(), device.type)[0] == "cupy":
        cupy_backend = importlib.import_module(".cupy_backend", __package__)
        if hasattr(cupy_backend, operator):
            return getattr(cupy_backend, operator)
    return getattr(torch_backend, operator)


def follow() -> None:
    """Let the extension's kernels serve if there are any, or pass every call on to Python if another backend is forced."""
    global _followed
    choice = _choice()
    if choice != _followed:
        if _load() is None:
            torch.ops.pycaffe_compat.use_kernels(choice in ("auto", "extension"))
        _followed = choice


def backend_info() -> dict[str, dict[str, str]]:
    """Say which backend serves which device and why: ``{"cpu": {"backend": …, "reason": …}, "cuda": …}``.

    CUDA is listed where this machine has a device. A forced backend that cannot serve a device shows as ``"none"``.
    """
    info = {}
    for device_type in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        try:
            name, reason = _serve(_choice(), device_type)
        except CaffeError as error:
            name, reason = "none", str(error)
        info[device_type] = {"backend": name, "reason": reason}
    return info


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Force a backend (or ``"auto"``), for the whole process, while the ``with`` block runs.

    Raises:
        CaffeError: there is no such backend.
    """
    global _forced
    if name != "auto" and name not in NAMES:
        raise CaffeError(f'there is no pooling backend "{name}"{nearest(name, NAMES)}; valid: auto, {", ".join(NAMES)}')
    before, _forced = _forced, name
    follow()
    try:
        yield
    finally:
        _forced = before
        follow()
