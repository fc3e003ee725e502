"""The paper's nets and files, made once in a process: they take seconds."""

from __future__ import annotations

import functools
from typing import Any

from pycaffe_compat.swwae.generate import all_files
from pycaffe_compat.swwae.release import paper_tree


@functools.cache
def nets() -> dict[str, Any]:
    """The nets of the authors' release, by path; not to be changed."""
    return paper_tree()


@functools.cache
def files() -> dict[str, str]:
    """What the generator writes, by path."""
    return all_files()
