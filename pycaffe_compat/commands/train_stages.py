"""Train a variant of the paper from a pretrained VGG-16, in the paper's steps, each with its own solver file."""

from __future__ import annotations

from ..swwae.generate import VARIANTS
from ..swwae.stages import train_in_stages
from .options import Parser, command

EPILOG = """
example:
  %(prog)s swwae_all --weights VGG_ILSVRC_16_layers.caffemodel --trainer-options "--gpu all"

steps: 1. the classification net has its pretrained weights (--weights). 2. The layerwise decoder is trained, the encoder
fixed (prototxt/decoder/KIND_layerwise_solver.prototxt). 3. For first and all, the top-down decoder is trained from there,
the encoder still fixed. 4. The whole net is fine-tuned (prototxt/VARIANT_solver.prototxt). The same command goes on where
it was stopped. Learning rates, batch sizes and lengths are this project's own choices: they were not published.
"""


def run(argv: list[str]) -> None:
    """Do what the arguments say."""
    parser = Parser(__doc__, EPILOG)
    variants = {each.name: each for each in VARIANTS}
    parser.add_argument("variant", choices=list(variants), metavar="VARIANT", help=", ".join(variants))
    parser.add_argument("--weights", required=True, metavar="FILE", help="VGG-16's caffemodel")
    parser.add_argument(
        "--trainer-options", default="", metavar="OPTIONS", help="further ones for tools/train_net.py, in quotes"
    )
    args = parser.parse_args(argv)
    final = train_in_stages(variants[args.variant], args.weights, args.trainer_options.split())
    print(f"trained: {final}")


main = command("train_stages", run, "the same command goes on from the newest snapshot")
