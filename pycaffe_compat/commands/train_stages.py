"""Train a variant of the paper from a pretrained VGG-16, in the steps of the paper, each with its own solver file."""

from __future__ import annotations

import os
import shlex

from ..errors import MissingFileError
from ..swwae.generate import VARIANTS
from ..swwae.prototxt import FOLDER
from ..swwae.stages import train_in_stages
from .options import Parser, command, python_layers
from .train_net import add_training

EPILOG = """
example:
  %(prog)s swwae_all --weights VGG_ILSVRC_16_layers.caffemodel --trainer-options "--gpu all"

steps:
  1. The classification net takes its pretrained weights (--weights).
  2. The layerwise decoder is trained, the encoder fixed (prototxt/decoder/KIND_layerwise_solver.prototxt).
  3. For first and all, the top-down decoder is trained from there, the encoder still fixed.
  4. The whole net is fine-tuned (prototxt/VARIANT_solver.prototxt).

Run it where prototxt/ is; caffe-make-prototxt writes that folder. After an interruption the same command resumes from the
newest snapshot. The paper gives no learning rates, batch sizes or numbers of iterations; those of the solver files are ours.
"""


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    variants = {each.name: each for each in VARIANTS}
    parser.add_argument("variant", choices=list(variants), metavar="VARIANT", help=", ".join(variants))
    parser.add_argument("--weights", required=True, metavar="FILE", help="VGG-16's caffemodel")
    parser.add_argument(
        "--trainer-options", default="", metavar="OPTIONS", help="more options for caffe-train-net, in quotes"
    )
    args = parser.parse_args(argv)
    if not os.path.isdir(FOLDER):
        raise MissingFileError(
            f"no folder {FOLDER}/ in {os.getcwd()}: write the paper's nets with: caffe-make-prototxt"
        )
    trainer = Parser("Options of each training step; caffe-train-net --help explains them.", prog="--trainer-options")
    add_training(trainer)
    options = vars(trainer.parse_args(shlex.split(args.trainer_options)))
    python_layers(options)
    final = train_in_stages(variants[args.variant], args.weights, **options)
    print(f"trained: {final}")


main = command("train_stages", run, "the same command resumes from the newest snapshot")
