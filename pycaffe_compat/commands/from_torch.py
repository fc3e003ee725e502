"""Write a PyTorch module as a Caffe net with its weights, and check the result."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..convert.formats import safetensors_library
from ..errors import CaffeError, require_file
from ..export.caffe_nets.conversion import Normalised
from ..export.caffe_nets.write import CaffeNet, program_to_caffe, to_caffe
from ..tables import dims, format_table
from .options import Parser, command

EPILOG = """
modules (MODULE is one of these):
  net.pt2                  a program that torch.export.save wrote
  package.module:NAME      NAME in package.module: a module, or a function or class that makes one
  file.py:NAME             NAME in a file, which is run

examples:
  %(prog)s torchvision.models:resnet18 resnet18.prototxt resnet18.caffemodel --input 1,3,224,224 --weights resnet18-f37072fd.pth
  %(prog)s net.py:load net.prototxt net.caffemodel --input 1,3,227,227
  %(prog)s net.pt2 net.prototxt net.caffemodel
  %(prog)s torchvision.models:vgg16 vgg16.prototxt vgg16.caffemodel --input 1,3,224,224 --weights vgg16.pth \\
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
                           the net takes images as Caffe reads them: BGR, 0 to 255, nothing subtracted

The module is traced in eval mode. Layers are named after its submodules; BatchNorm becomes Caffe's BatchNorm and Scale. If there
are operators that no Caffe layer computes, one error names them all, with their paths in the module. Before a file is written,
the net runs beside the module on random input at two batch sizes. An output that differs by more than 1e-4 of its range is an
error. --no-verify skips this check.
"""


def shape(text: str) -> tuple[int, ...]:
    """``1,3,224,224`` or ``1x3x224x224`` as numbers."""
    try:
        found = tuple(int(n) for n in text.replace("x", ",").split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a shape, such as 1,3,224,224')
    return found


def numbers(text: str) -> tuple[float, ...]:
    """``0.485,0.456,0.406`` as numbers."""
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) != 3:
        raise argparse.ArgumentTypeError(f'"{text}" is not three numbers, such as 0.485,0.456,0.406')
    return found


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument(
        "module", metavar="MODULE", help="net.pt2, package.module:NAME or file.py:NAME, whose code is run"
    )
    parser.add_argument("prototxt", metavar="PROTOTXT", help="the net to write")
    parser.add_argument("weights_out", metavar="CAFFEMODEL", help="its weights (.caffemodel or .caffemodel.h5)")
    parser.add_argument(
        "--input",
        action="append",
        type=shape,
        metavar="1,3,224,224",
        help="the shape of the input; repeat it for further inputs. A .pt2 has its own",
    )
    parser.add_argument("--weights", default="", metavar="FILE", help="a state_dict to load (.pt, .pth, .safetensors)")
    parser.add_argument(
        "--mean",
        type=numbers,
        metavar="R,G,B",
        help="mean of images from 0 to 1; the net then subtracts it, and takes BGR from 0 to 255",
    )
    parser.add_argument(
        "--std", type=numbers, metavar="R,G,B", help="standard deviation, divided by after the mean (default: 1,1,1)"
    )
    parser.add_argument("--name", default="", help="the net's name (default: the module's class)")
    parser.add_argument("--no-verify", action="store_true", help="do not run the net beside the module")
    args = parser.parse_args(argv)
    program = args.module.endswith(".pt2")
    if program and (args.input or args.weights):
        parser.error(f"{args.module} has its own inputs and weights: leave out --input and --weights")
    if not program and not args.input:
        parser.error("--input is missing: give the shape of the module's input, such as --input 1,3,224,224")
    if args.std and not args.mean:
        parser.error("--std without --mean")
    pictures = Normalised(args.mean, args.std or (1.0, 1.0, 1.0)) if args.mean else None
    options: dict[str, Any] = {"pictures": pictures, "name": args.name, "verify": not args.no_verify}
    if program:
        require_file(args.module, "program")
        found = program_to_caffe(args.module, args.prototxt, args.weights_out, **options)
    else:
        module = find_module(args.module)
        if args.weights:
            _load(module, args.weights)
        example = tuple(torch.randn(each) for each in args.input)
        found = to_caffe(module, example, args.prototxt, args.weights_out, **options)
    _say(found, args.prototxt, args.weights_out)


def find_module(spec: str) -> nn.Module:
    """What ``package.module:NAME`` or ``file.py:NAME`` stands for.

    Raises:
        CaffeError: there is no such module or name, or it makes no ``nn.Module``.
    """
    place, _, name = spec.rpartition(":")
    if not place or not name:
        raise CaffeError(f"{spec}: must be net.pt2, package.module:NAME or file.py:NAME")
    value: Any = _imported(place)
    for part in name.split("."):
        if not hasattr(value, part):
            raise CaffeError(f"{spec}: {place} has no {name}")
        value = getattr(value, part)
    if not isinstance(value, nn.Module) and callable(value):
        value = _called(spec, value)
    if not isinstance(value, nn.Module):
        raise CaffeError(f"{spec} must be a torch.nn.Module, or make one, but is of type {type(value).__name__}")
    return value


def _imported(place: str) -> Any:
    try:
        if not place.endswith(".py"):
            sys.path.insert(0, os.getcwd())
            return importlib.import_module(place)
        require_file(place, "Python file")
        spec = importlib.util.spec_from_file_location(os.path.basename(place)[:-3], place)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    except CaffeError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise CaffeError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error


def _called(spec: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:  # the user's code may raise anything
        raise CaffeError(f"{spec}() fails: {type(error).__name__}: {error}") from error


def _load(module: nn.Module, path: str) -> None:
    require_file(path, "weights")
    try:
        if path.endswith(".safetensors"):
            state = safetensors_library().torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except CaffeError:
        raise
    except Exception as error:  # torch and safetensors have no errors of their own for this
        raise CaffeError(f"{path} is not a state_dict of this module: {' '.join(str(error).split())}") from error


def _say(found: CaffeNet, prototxt: str, weights: str) -> None:
    if found.differences:
        rows = [[d.output, str(d.batch), f"{d.largest:.3g}", f"{d.relative:.2g}"] for d in found.differences]
        print(format_table(["output", "batch", "largest difference", "of its range"], rows, right=(1, 2, 3)))
    for note in found.notes:
        print(f"note: {note}")
    for what, blobs in (("input", found.inputs), ("output", found.outputs)):
        for name, size in blobs.items():
            print(f"{what} {name}: {dims(size)}")
    print(f"{prototxt}, {weights}: {len(found.net.layer)} layers")


main = command("from_torch", run)
