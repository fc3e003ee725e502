"""Packages that only some functions need."""

from __future__ import annotations

import sys

import pytest

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.packages import require_package


def test_a_package_that_is_there() -> None:
    assert require_package("xml.dom", "nothing needs it", "xml") is sys.modules["xml.dom"]


@pytest.mark.parametrize("module", ["no_such_package", "xml.no_such_module", "barred"])
def test_a_package_that_is_missing(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "barred", None)
    with pytest.raises(CaffeError, match=r"^figures need paint: pip install paint\[blue\]$"):
        require_package(module, "figures need paint", "paint[blue]")
