"""Upgrade old files to the current format: upgrade_net_proto_text, upgrade_net_proto_binary, upgrade_solver_proto_text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..proto.upgrade_files import upgrade_net_binary, upgrade_net_text, upgrade_solver_text
from .options import Parser, command

Upgrade = Callable[[str, str], Sequence[str]]
EPILOG = """
example:
  %(prog)s {0} new_{0}

It prints what was upgraded. Comments are lost. OUT may be the same file as IN.
"""


def _main(name: str, upgrade: Upgrade, description: str, source: str, example: str) -> Callable[..., int]:
    def run(argv: list[str]) -> None:
        parser = Parser(description, EPILOG.format(example))
        parser.add_argument("source", metavar="IN", help=source)
        parser.add_argument("target", metavar="OUT", help="the upgraded file to write")
        args = parser.parse_args(argv)
        upgraded = upgrade(args.source, args.target)
        print("\n".join(f"upgraded: {words}" for words in upgraded) or f"already in the current format: {args.source}")
        print(f"wrote {args.target}")

    return command(name, run)


net_text = _main(
    "upgrade_net_proto_text",
    upgrade_net_text,
    "Upgrade the prototxt of an old net to the current format: layers become layer, inputs become Input layers.",
    "the net's prototxt, of any age",
    "train_val.prototxt",
)
net_binary = _main(
    "upgrade_net_proto_binary",
    upgrade_net_binary,
    "Upgrade an old caffemodel, or another binary net, to the current format.",
    "the .caffemodel, of any age",
    "bvlc_alexnet.caffemodel",
)
solver_text = _main(
    "upgrade_solver_proto_text",
    upgrade_solver_text,
    "Upgrade the prototxt of an old solver to the current format: solver_type becomes type.",
    "the solver's prototxt, of any age",
    "solver.prototxt",
)
