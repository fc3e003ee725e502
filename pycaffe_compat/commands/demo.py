"""Train a small VGG with an SAE and a SWWAE decoder on real digits, and show what each reconstructs: a few minutes."""

from __future__ import annotations

import os

import pycaffe_compat

from ..swwae import demo
from .options import Parser, command

EPILOG = """
example:
  %(prog)s        # as `make demo`; then look at demo/reconstruction.png

It takes no options. All it makes is in demo/: the digits, two LMDBs, logs, snapshots, the picture.
"""


def run(argv: list[str]) -> int:
    """Run the demo in the repository's root; return the exit status."""
    Parser(__doc__, EPILOG).parse_args(argv)
    os.chdir(os.path.dirname(os.path.dirname(os.path.abspath(pycaffe_compat.__file__))))
    return demo.run()


main = command("demo", run)
