"""Packages that only some functions need."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import CaffeError


def require_package(module: str, need: str, install: str) -> Any:
    """Import and return a module of a package that may be missing.

    Args:
        module: its dotted name.
        need: what needs it, as the message begins: ``"figures need matplotlib"``.
        install: what ``pip install`` takes, and advice that may follow.

    Raises:
        CaffeError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CaffeError(f"{need}: pip install {install}") from error
