"""Convert trained weights between Caffe, PyTorch, safetensors and numpy; list them; check them against a net."""

from __future__ import annotations

import argparse
import os
import sys

from tqdm import tqdm

from ..convert import (
    Model,
    fit_to_net,
    from_torchvision,
    list_model,
    read_model,
    remarks,
    suffix_of,
    to_torchvision,
    write_model,
)
from ..errors import require_file
from ..tables import human
from .options import Parser, command

EPILOG = """
formats (the ending of OUT chooses one; IN is recognised by its content):
  .caffemodel        Caffe's own; old ones (V0, V1) can be read
  .caffemodel.h5     Caffe's HDF5 format (.h5 also works)
  .pt .pth           a PyTorch state_dict: torch.load(FILE, weights_only=True)
  .safetensors       the same, as safetensors
  .npz               the same, as numpy arrays
The last three name each blob LAYER.weight, LAYER.bias, like the state_dict of pycaffe_compat.load(PROTOTXT). No conversion
loses anything: converting there and back gives the same numbers, bit for bit.

examples:
  %(prog)s VGG_ILSVRC_16_layers.caffemodel vgg16.pt
  %(prog)s vgg16.pt vgg16.caffemodel --prototxt prototxt/vgg16_deploy.prototxt
                           checks names and shapes against the net, and reshapes old 4-d blobs to the net's shapes
  %(prog)s swwae_all_iter_100000.caffemodel --list
  %(prog)s VGG_ILSVRC_16_layers.caffemodel vgg16_torchvision.pt --to torchvision --fold-scaling
                           then: torchvision.models.vgg16().load_state_dict(torch.load("vgg16_torchvision.pt"))
  %(prog)s vgg16-397923af.pth vgg16.caffemodel --from torchvision --fold-scaling

torchvision: names are translated (conv1_1 is features.0, fc6 is classifier.0), and the channels of the first convolution
change between BGR and RGB. Caffe's VGG takes pixels from 0 to 255 minus a mean; torchvision's takes (pixel / 255 - mean) / std.
Without --fold-scaling, the weights still expect the input they were trained with. With it, the first convolution is rescaled for
the other input. That is exact except at the border, where padding with 0 means a different shade of grey. AlexNet differs between
torchvision and Caffe: only weights with torchvision's shapes are translated.
"""


def _arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the arguments; exit where they do not go together."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("input", metavar="IN", help="weights to read")
    parser.add_argument("output", metavar="OUT", nargs="?", help="weights to write; the ending chooses the format")
    parser.add_argument("--list", action="store_true", help="print each blob with its shape and range")
    parser.add_argument("--prototxt", metavar="NET", help="check names and shapes against this net")
    parser.add_argument("--to", choices=["torchvision"], help="translate Caffe's VGG or AlexNet to torchvision's names")
    parser.add_argument("--from", dest="origin", choices=["torchvision"], help="translate from torchvision's names")
    parser.add_argument(
        "--fold-scaling", action="store_true", help="with --to or --from: also convert the scale of the input"
    )
    args = parser.parse_args(argv)
    if not (args.output or args.list or args.prototxt):
        parser.error("nothing to do: name a file to write, or give --list or --prototxt")
    if args.fold_scaling and not (args.to or args.origin):
        parser.error("--fold-scaling goes with --to torchvision or --from torchvision")
    if args.to and args.origin:
        parser.error("give --to torchvision or --from torchvision, not both")
    require_file(args.input, "weights")
    if args.output:
        suffix_of(args.output)
        if os.path.exists(args.output) and os.path.samefile(args.input, args.output):
            parser.error(f"{args.output} is the input file; choose another name")
    return args


def _read(args: argparse.Namespace) -> tuple[Model, list[str]]:
    """The weights, translated and fitted as the arguments say, and what the user should know."""
    with_options = bool(args.output) and suffix_of(args.output) == ".caffemodel"
    model = read_model(args.input, with_options, args.prototxt)
    notes: list[str] = []
    if args.origin:
        model, said = from_torchvision(model, args.fold_scaling)
        notes += said
    if args.prototxt:
        fitted, report = fit_to_net(model, args.prototxt)
        notes += remarks(model, report, args.prototxt)
        model = fitted
    if args.to:
        model, said = to_torchvision(model, args.fold_scaling)
        notes += said
    return model, notes


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    args = _arguments(argv)
    model, notes = _read(args)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if args.list:
        print(list_model(model))
    if args.prototxt and not args.output:
        print(f"{args.input} fits {args.prototxt}{' where both have layers' if notes else ''}")
    if args.output:
        blobs = sum(map(len, model.blobs.values()))
        with tqdm(
            total=4 * model.numbers, unit="B", unit_scale=True, disable=None, leave=False, desc=args.output
        ) as bar:
            write_model(args.output, model, bar.update)
        size = human(os.path.getsize(args.output), "B")
        print(f"{args.output}: {len(model.blobs)} layers, {blobs} blobs, {human(model.numbers)} numbers, {size}")


main = command("convert_caffemodel", run)
