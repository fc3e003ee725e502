"""Holistically nested edges."""

from ..fork import Fork

FORK = Fork(
    name="hed",
    title="Holistically nested edges",
    source="s9xie/hed",
    types="ImageLabelmapData",
)
