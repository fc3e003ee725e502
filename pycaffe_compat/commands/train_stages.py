"""Train variants of the paper from a pretrained classification net, in the paper's steps, each with its own solver file."""

from __future__ import annotations

import argparse
import os
import shlex
from typing import Any

from ..errors import MissingFileError
from ..swwae.generate import VARIANTS
from ..swwae.loss_weights import STRENGTH
from ..swwae.progress import progress_text
from ..swwae.prototxt import FOLDER
from ..swwae.run_folder import BASELINE, Recipe, train_run
from ..swwae.stages import train_in_stages
from .options import Parser, command, reading
from .train_net import add_training

EPILOG = """
examples:
  %(prog)s swwae_all --weights VGG_ILSVRC_16_layers.caffemodel --trainer-options "--gpu all"
                           VGG-16, with the files of prototxt/, which caffe-make-prototxt writes
  %(prog)s --net my_train_val.prototxt --variant swwae_all,sae_all,baseline --weights my.caffemodel --out runs/first
                           any chain of convolutions, ReLUs and max poolings; writes all files into runs/first
  %(prog)s --net my_train_val.prototxt --variant swwae_first --weights my.caffemodel --out runs/mine \\
           --solver finetune.prototxt --decoder-solver decode.prototxt --loss-weight data=1e-3 --seed 1
  %(prog)s --out runs/first --status
                           how far that run is, how fast each step goes, and how long the rest will take

steps:
  1. The classification net takes its pretrained weights (--weights).
  2. The layerwise decoder is trained, with the encoder fixed.
  3. For first and all, the top-down decoder is trained, starting from step 2, with the encoder still fixed.
  4. The whole net is fine-tuned. The variant "baseline" has only this step: the classification net is trained for as long.

After an interruption, even a kill, the same command continues from the newest snapshot. With --out, a folder with a different
configuration is refused, and the run ends with a report: report.md, report.html, curves.png. The paper gives no learning rates,
batch sizes or numbers of iterations; those in this project's solver files are its own choices. Default loss weights are the
paper's for VGG-16; for other nets they follow from each blob's size and magnitude (docs/swwae.md).
"""
NAMED = {each.name: each for each in VARIANTS}
OF_A_RUN = (
    "net",
    "solver",
    "decoder_solver",
    "loss_weight",
    "strength",
    "seed",
    "filler",
    "source",
    "until",
    "image",
    "image_scale",
)


def loss_weight(text: str) -> tuple[str, float]:
    """Return the name and the number of ``NAME=NUMBER``."""
    name, _, number = text.rpartition("=")
    if not name:
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME=NUMBER')
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{number}" in "{text}" is not a number') from None


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.status:
        if not args.out:
            parser.error("--status needs --out RUN, the folder of the run")
        print(progress_text(args.out))
        return
    names = [name for name in (args.variant or args.given or "").split(",") if name]
    if not args.weights:
        parser.error("--weights FILE is needed, the caffemodel of the classification net")
    if not names or (args.variant and args.given):
        parser.error("name the variant, once: --variant swwae_all")
    options = _training_options(args.trainer_options)
    if args.out:
        reading(options)
        for name, path in train_run(_recipe(args, names), args.out, **options).items():
            print(f"trained {name}: {path}")
        print(f"report: {os.path.join(args.out, 'report.html')}")
        return
    _check_without_run(parser, args, names)
    reading(options)
    final = train_in_stages(NAMED[names[0]], args.weights, **options)
    print(f"trained: {final}")


def _parser() -> Parser:
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("given", nargs="?", metavar="VARIANT", help=f"{', '.join(NAMED)}, or with --out {BASELINE}")
    parser.add_argument("--variant", default="", metavar="A,B", help="the same; several share step 2 (with --out)")
    parser.add_argument("--weights", metavar="FILE", help="the caffemodel of the classification net")
    parser.add_argument(
        "--out", default="", metavar="RUN", help="the folder for all files of the run; created if missing"
    )
    parser.add_argument(
        "--net", default="", metavar="FILE", help="the classification net (default: VGG-16 on ImageNet)"
    )
    parser.add_argument("--solver", default="", metavar="FILE", help="the solver of step 4 (default: as VGG-16's)")
    parser.add_argument(
        "--decoder-solver", default="", metavar="FILE", help="the solver of steps 2 and 3 (default: as VGG-16's)"
    )
    parser.add_argument(
        "--loss-weight",
        action="append",
        type=loss_weight,
        metavar="NAME=W",
        help="weight of a reconstruction loss in step 4; NAME is the pooled layer or the image blob that is reconstructed",
    )
    parser.add_argument(
        "--strength",
        type=float,
        default=STRENGTH,
        metavar="S",
        help="strength for the rule that sets loss weights (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="random_seed of all solvers")
    parser.add_argument(
        "--filler",
        default="",
        metavar="TYPE",
        help="filler of the decoder's weights, such as msra (default: the paper's)",
    )
    parser.add_argument(
        "--source", default="", metavar="LAYER", help="decode from here (default: the last pooled layer)"
    )
    parser.add_argument("--until", type=int, default=4, choices=(2, 3, 4), help="the last step (default: %(default)s)")
    parser.add_argument("--image", default="data", metavar="BLOB", help="the blob of the images (default: %(default)s)")
    parser.add_argument(
        "--image-scale",
        type=float,
        metavar="X",
        help="scale of images in the loss (default: the one that maps pixels to 0 to 1)",
    )
    parser.add_argument(
        "--trainer-options", default="", metavar="OPTIONS", help="more options for caffe-train-net, in quotes"
    )
    parser.add_argument(
        "--status",
        action="store_true",
        help="only show how far the steps in --out RUN are and how long the rest will take; may be added to the command of a run",
    )
    return parser


def _training_options(text: str) -> dict[str, Any]:
    """The options of ``--trainer-options``."""
    trainer = Parser("Options of each training step; caffe-train-net --help explains them.", prog="--trainer-options")
    add_training(trainer)
    options = vars(trainer.parse_args(shlex.split(text)))
    if options["iterations"] is not None:
        trainer.error(
            "a step ends at the max_iter of its solver, not at --iterations: change max_iter in the solver files"
        )
    return options


def _check_without_run(parser: Parser, args: Any, names: list[str]) -> None:
    """End with an error where the arguments need ``--out``, or the files of ``caffe-make-prototxt`` are not here."""
    wrong = [name for name in OF_A_RUN if getattr(args, name) != parser.get_default(name)]
    if wrong:
        parser.error(f"--{wrong[0].replace('_', '-')} needs --out RUN, the folder for the files of the run")
    if len(names) > 1 or names[0] not in NAMED:
        parser.error(f"without --out there is one variant of {', '.join(NAMED)}, not {','.join(names)}")
    if not os.path.isdir(FOLDER):
        raise MissingFileError(
            f"no folder {FOLDER}/ in {os.getcwd()}: write the paper's nets with: caffe-make-prototxt"
        )


def _recipe(args: Any, names: list[str]) -> Recipe:
    return Recipe(
        names,
        args.weights,
        net=args.net,
        solver=args.solver,
        decoder_solver=args.decoder_solver,
        loss_weights=dict(args.loss_weight) if args.loss_weight else None,
        strength=args.strength,
        seed=args.seed,
        filler={"type": args.filler} if args.filler else None,
        source=args.source,
        until=args.until,
        image=args.image,
        image_scale=args.image_scale,
    )


main = command("train_stages", run, "the same command resumes from the newest snapshot")
