"""Packages that bring layers and forks of their own, found by entry point."""

from __future__ import annotations

import functools
from importlib.metadata import entry_points

PLUG_INS = "pycaffe_compat.layers"  # the entry-point group of packages that bring layers, or a fork with its layers


@functools.cache
def load_plug_ins() -> tuple[str, ...]:
    """Import every plug-in of the entry-point group :data:`PLUG_INS`; importing one registers its layers and its fork.

    Runs once, when a file first names a layer type or a field that is not known. Returns one message for each plug-in that
    failed.
    """
    broken = []
    for plug_in in entry_points(group=PLUG_INS):
        try:
            plug_in.load()
        except (Exception, SystemExit) as error:
            package = f" of the package {plug_in.dist.name}" if plug_in.dist else ""
            broken.append(f'plug-in "{plug_in.name}" ({plug_in.value}){package}: {type(error).__name__}: {error}')
    return tuple(broken)
