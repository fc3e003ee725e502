"""The errors that every reader of files shares."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pycaffe_compat
from pycaffe_compat.errors import MissingFileError, require_file


def test_a_missing_file_says_what_is_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    (work / "full").mkdir(parents=True)
    (work / "empty").mkdir()
    (work / "full" / "deploy.prototxt").write_text("")
    (work / "link").symlink_to("gone.prototxt")
    monkeypatch.chdir(work / "empty")
    cases = {
        "n.prototxt": f"; its folder {work}/empty is empty",
        "./n.prototxt": f"; its folder {work}/empty is empty",
        "../empty/n.prototxt": f"; its folder {work}/empty is empty",
        f"{work}/empty/n.prototxt": f"; its folder {work}/empty is empty",
        "nets/n.prototxt": f"; its folder {work}/empty/nets does not exist",
        "../full/depoly.prototxt": " (did you mean deploy.prototxt?)",
        "../full/zzz": f"; looked in {work}/full",
        "../full/deploy.prototxt/n": f"; its folder {work}/full/deploy.prototxt is a file",
        "../link": "; it is a link to gone.prototxt, which does not exist",
        f"{work}/full/zzz": "",
    }
    for path, words in cases.items():
        with pytest.raises(MissingFileError, match=f"^{re.escape(f'net not found: {path}{words}')}$"):
            require_file(path, "net")
        with pytest.raises(MissingFileError, match=f"^{re.escape(f'net not found: {path}{words}')}$"):
            pycaffe_compat.load(path)


def test_an_empty_path_is_named() -> None:
    with pytest.raises(MissingFileError, match="weights not found: its path is empty"):
        require_file("", "weights")
