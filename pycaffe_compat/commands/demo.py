"""Train a small VGG with an SAE and a SWWAE decoder on real digits, and show what each reconstructs: a few minutes."""

from __future__ import annotations

from ..swwae import demo
from .options import Parser, command

EPILOG = """
example:
  %(prog)s        # then look at demo/reconstruction.png

It takes no options. It writes two folders into the current one: prototxt/demo/, the nets and solver files, where they are
missing; and demo/, with the digits, two LMDBs, logs, snapshots and the picture.
"""


def run(argv: list[str]) -> int:
    """Run the demo in the current folder; return the exit status."""
    Parser(__doc__, EPILOG).parse_args(argv)
    return demo.run()


main = command("demo", run)
