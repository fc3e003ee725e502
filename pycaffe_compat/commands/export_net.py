"""Export a net with its weights to a file that runs without Caffe and without this package, and check the result."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import CaffeError, NetError
from ..export.outline import Outline, outline, refuse_files
from ..export.preprocess import Preprocessing, picture_files, read_means, read_picture
from ..export.programs import run_alone, to_pt2, to_torchscript
from ..export.source.module import require_own_weights, to_source, weights_path
from ..export.verify import (
    TOLERANCE,
    Difference,
    compare_onnx,
    differences,
    outputs,
    random_batches,
    with_rounding,
)
from ..files import refuse_overwriting, staged_path
from ..forks.flownet2.augmentation import DataAugmentation
from ..forks.nvidia.batch_norm import AveragedBatchNorm
from ..layers import Layer
from ..layers.fillers import fill
from ..layers.normalization import BatchNorm
from ..net import Net
from ..proto import caffe_pb2
from ..tables import dims, format_table, human
from .options import Parser, add_reading, command, reading

ENDINGS = {".onnx": "onnx", ".pt2": "pt2", ".ts.pt": "ts.pt", ".py": "py"}
EPILOG = """
targets (the ending of OUT chooses one, or --to):
  .onnx    ONNX of standard operators, for onnxruntime, OpenCV 5, TensorRT …
  .pt2     torch.export.load(OUT).module()(*inputs)
  .ts.pt   torch.jit.load(OUT)(*inputs)
  .py      source: a plain nn.Module to read and change, with its weights beside it in .safetensors
None of them needs this package to run. Blobs and layers keep their names in ONNX. Axis 0 of the inputs may have any length, if
the net allows it. Losses, Accuracy and layers that write files are left out.

examples:
  %(prog)s deploy.prototxt net.caffemodel net.onnx
  %(prog)s deploy.prototxt net.caffemodel net.onnx --mean 104,117,123 --preprocess
                           the model takes RGB images with values from 0 to 255
  %(prog)s deploy.prototxt net.caffemodel net.py
                           source code, to continue in PyTorch
  %(prog)s fcn.prototxt fcn.caffemodel fcn.onnx --dynamic data=2,3
                           height and width may change too
  %(prog)s deploy.prototxt net.caffemodel net.onnx --int8 --pictures photos/ --mean 104,117,123
                           8 bits, calibrated on the images; the loss in accuracy is printed

Every export is run beside the net, on random input (at two batch sizes, and at other lengths of --dynamic axes) or on --pictures.
If an output differs by more than 1e-4 of its range, that is an error and no file is written. --no-verify skips this check.
"""


def dynamic_axes(text: str) -> tuple[str, list[int]]:
    """``data=2,3`` as the name of an input and axes."""
    name, _, axes = text.partition("=")
    try:
        return name, [int(axis) for axis in axes.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f'"{text}" is not INPUT=AXIS,AXIS, such as data=2,3') from None


def _parser() -> Parser:
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("net", metavar="NET", help="the net's prototxt, with Input layers")
    parser.add_argument(
        "weights", metavar="WEIGHTS", nargs="?", default="", help="its caffemodel, or several separated by commas"
    )
    parser.add_argument("output", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--to", choices=list(ENDINGS.values()), help="the target format, if not given by the ending of OUT"
    )
    parser.add_argument("--opset", type=int, metavar="N", help="version of ONNX's operators (default: 18)")
    parser.add_argument(
        "--dynamic",
        action="append",
        type=dynamic_axes,
        metavar="INPUT=2,3",
        help="more axes whose length may change",
    )
    parser.add_argument("--fold", action="store_true", help="fold BatchNorm and Scale into the convolution before them")
    parser.add_argument(
        "--mean", default="", metavar="M", help="mean of the input images: numbers, a .binaryproto or a .npy file"
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="S", help="scale of the input images, after the mean"
    )
    parser.add_argument(
        "--channel-order",
        type=str.upper,
        choices=("BGR", "RGB"),
        default="BGR",
        help="channel order of the net (default: BGR)",
    )
    parser.add_argument(
        "--preprocess",
        action="store_true",
        help="ONNX: the model preprocesses its input itself; it takes RGB images from 0 to 255",
    )
    parser.add_argument("--fp16", action="store_true", help="ONNX: weights and arithmetic in float16")
    parser.add_argument(
        "--int8", action="store_true", help="ONNX: weights and activations in int8, calibrated on --pictures"
    )
    parser.add_argument(
        "--pictures", nargs="+", default=[], metavar="FILE", help="images or folders, for checking and calibrating"
    )
    parser.add_argument("--no-verify", action="store_true", help="do not run the result")
    parser.add_argument(
        "--random-weights",
        action="store_true",
        help="also export layers without weights: filled by their fillers, or at random if they have none, BatchNorm with the "
        "statistics of random input; the same each time",
    )
    add_reading(parser)
    return parser


def _target(parser: Parser, args: argparse.Namespace) -> str:
    """The target, which the options must be for; else the parser says why not, and exits."""
    target: str = args.to or next((to for end, to in ENDINGS.items() if args.output.endswith(end)), "")
    if not target:
        parser.error(
            f"{args.output}: the file name's ending names no target; valid endings: {', '.join(ENDINGS)}, or --to"
        )
    only_onnx = [name for name in ("preprocess", "fp16", "int8", "opset") if getattr(args, name) and target != "onnx"]
    if only_onnx:
        parser.error(f"--{only_onnx[0]} is for ONNX, not for {target}")
    if args.fold and target not in ("onnx", "py"):
        parser.error(f"--fold is for ONNX and source, not for {target}")
    if target in ("pt2", "ts.pt") and _says_of_pictures(args) and not args.pictures:
        parser.error(f"with {target}, --mean, --scale and --channel-order only apply to --pictures")
    if args.fp16 and args.int8:
        parser.error("give --fp16 or --int8, not both")
    if args.int8 and not args.pictures:
        parser.error("--int8 needs --pictures to find the ranges of activations")
    return target


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = _parser()
    args = parser.parse_args(argv)
    target = _target(parser, args)
    reading(vars(args))
    refuse_overwriting(args.output, args.net, *args.weights.split(","), args.mean, *args.pictures)
    if target == "py":
        require_own_weights(args.output)
    with _replacing(target, args.output), staged_path(args.output) as path, contextlib.closing(_load(args)) as net:
        export = {"onnx": _onnx, "pt2": _program, "ts.pt": _program, "py": _source}[target]
        found = export(net, args, path)
    _say(found, args.output)


def _replacing(target: str, path: str) -> contextlib.AbstractContextManager[None]:
    """Within, ``path`` is written; a model's weights that lay beside the old one do not outlive it."""
    if target != "onnx":
        return contextlib.nullcontext()
    from ..export.onnx.model import replacing

    return replacing(path)


def _load(args: Any) -> Net:
    refuse_files(args.net)
    if not args.weights and not args.random_weights:
        raise NetError(f"{args.net}: no weights given; name a caffemodel, or pass --random-weights")
    paths = [path for path in args.weights.split(",") if path]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # so that random weights, and what a check finds with them, are the same each time
        return _with_weights(args, paths)


def _with_weights(args: Any, paths: Sequence[str]) -> Net:
    """The net with the weights of the files; what they lack is drawn, if that is allowed.

    Raises:
        NetError: it is not allowed.
    """
    net = Net(args.net, "TEST", weights=paths)
    lacking = [n for n, layer in net.layers.items() if layer.blob_specs and n not in net.load_report.loaded]
    if lacking and not args.random_weights:
        raise NetError(
            f"{args.weights} has no weights for {', '.join(lacking)}: these layers would have only their fillers' values; give "
            "their weights, or pass --random-weights"
        )
    drawn = [net.layers[name] for name in lacking]
    _draw_weights(drawn)
    _measure_statistics(net, drawn)
    return net


def _draw_weights(layers: Sequence[Layer]) -> None:
    """Draw the filters of layers that are all 0, as in deploy nets, which have no fillers: a check of zeros shows nothing."""
    drawn, one = caffe_pb2.FillerParameter(type="msra"), caffe_pb2.FillerParameter(value=1)
    for layer in layers:
        for spec in layer.blob_specs:
            blob = getattr(layer, spec.name)
            if blob.any():
                continue
            if spec.name.startswith(("weight", "W_")):
                fill(blob, drawn)
            elif spec.name in ("running_var", "scale_factor"):
                fill(blob, one)
            elif isinstance(layer, DataAugmentation) and spec.name == "passes":
                blob.fill_(layer.following)


def _measure_statistics(net: Net, layers: Sequence[Layer]) -> None:
    """Give normalisations without statistics those of random input: else a deep net's values grow, until rounding is all."""

    def measure(layer: Any, bottoms: tuple[torch.Tensor, ...]) -> None:
        x = bottoms[0]
        if x.numel() == x.shape[1]:  # one value alone has no variance
            return
        axes = [axis for axis in range(x.dim()) if axis != 1]
        layer.running_mean.copy_(x.mean(axes).view_as(layer.running_mean))
        layer.running_var.copy_(x.var(axes, correction=0).view_as(layer.running_var))

    kept = [layer for layer in layers if isinstance(layer, (BatchNorm, AveragedBatchNorm))]
    if not kept:
        return
    hooks = [layer.register_forward_pre_hook(measure) for layer in kept]
    try:
        found = outline(net)
        with contextlib.suppress(CaffeError):  # what cannot run says so where it is exported
            outputs(net, found, random_batches(found)[0])
    finally:
        for hook in hooks:
            hook.remove()


def _batches(found: Outline, args: Any) -> list[dict[str, np.ndarray]]:
    """The pictures as batches of one, as the net takes them; random input without pictures."""
    if not args.pictures:
        return random_batches(found)
    name, value = next(iter(found.inputs.items()))
    if len(found.inputs) > 1:
        raise NetError(
            f"--pictures: the net has {len(found.inputs)} inputs, {', '.join(found.inputs)}; it must have one"
        )
    how = _preprocessing(args)
    batches = []
    for path in picture_files(args.pictures):
        pixels = read_picture(path, value.shape[1:], how.order)
        made = (pixels - how.means(len(pixels))[:, None, None]) * np.float32(how.scale)
        batches.append({name: made[None].astype(np.float32)})
    return batches


def _says_of_pictures(args: Any) -> bool:
    return bool(args.mean or args.scale != 1 or args.channel_order != "BGR")


def _preprocessing(args: Any) -> Preprocessing:
    return Preprocessing(read_means(args.mean) if args.mean else (), args.scale, args.channel_order)


def _onnx(net: Net, args: Any, path: str) -> Outline:
    from ..export.onnx.model import OPSET, to_onnx
    from ..export.smaller import to_float16, to_int8

    how = _preprocessing(args) if args.preprocess or _says_of_pictures(args) else None
    found = to_onnx(
        net,
        path,
        opset=OPSET if args.opset is None else args.opset,
        dynamic=dict(args.dynamic or ()),
        preprocessing=how,
        bake=args.preprocess,
        fold=args.fold,
    )
    batches = _batches(found, args)
    raw = [_unprepared(found, batch, how) for batch in batches] if args.preprocess else None
    if not args.no_verify:
        _check(found, with_rounding(net, found, batches, compare_onnx(net, found, path, batches, raw)), args.output)
    if args.fp16 or args.int8:
        to_float16(path, path) if args.fp16 else to_int8(path, path, raw or batches)
        print(f"{'float16' if args.fp16 else 'int8'} costs:")
        _show(compare_onnx(net, found, path, batches, raw), choices=True)
        with contextlib.suppress(FileNotFoundError):
            os.remove(f"{path}.data")  # of the whole model
    return found


def _unprepared(found: Outline, batch: dict[str, np.ndarray], how: Preprocessing | None) -> dict[str, np.ndarray]:
    """What a model with the preprocessing in it takes for what the net takes in ``batch``."""
    assert how is not None
    name = next(iter(found.inputs))
    x = batch[name]
    raw = x / np.float32(how.scale) + how.means(x.shape[1])[:, None, None]
    return {**batch, name: np.ascontiguousarray(raw[:, ::-1] if how.order == "BGR" and x.shape[1] == 3 else raw)}


def _program(net: Net, args: Any, path: str) -> Outline:
    write: Callable[..., Outline] = to_pt2 if args.output.endswith(".pt2") or args.to == "pt2" else to_torchscript
    return _alone(net, args, write(net, path, dict(args.dynamic or ())), path)


def _source(net: Net, args: Any, path: str) -> Outline:
    how = _preprocessing(args) if _says_of_pictures(args) else None
    found = to_source(net, path, dynamic=dict(args.dynamic or ()), preprocessing=how, fold=args.fold)
    return _alone(net, args, found, path)


def _alone(net: Net, args: Any, found: Outline, path: str) -> Outline:
    """Run what was written where this package is not."""
    if not args.no_verify:
        batches = _batches(found, args)
        tried = [
            each
            for batch, results in zip(batches, run_alone(path, batches), strict=True)
            for each in differences(net, found, batch, results)
        ]
        _check(found, with_rounding(net, found, batches, tried), args.output)
    return found


def _check(found: Outline, tried: list[Difference], output: str) -> None:
    """Print how far the outputs are from the net's.

    Raises:
        CaffeError: one is further than :data:`TOLERANCE`, and than rounding explains.
    """
    _show(tried)
    wrong = [each for each in tried if not each.right]
    if wrong:
        worst = max(wrong, key=lambda each: math.inf if math.isnan(each.relative) else each.relative)
        choosing = [step.name for step in found.steps if step.layer.type_name == "ArgMax"]
        why = ""
        if choosing:
            why = f". {choosing[0]} chooses among values: two that are equal but for rounding may change places; if that is all, "
            why += "say --no-verify"
        elif not worst.finite:
            why = ". Values of the net's own output are infinite or no numbers, which shows nothing: give --pictures, or trained "
            why += "weights"
        elif worst.rounding > TOLERANCE * worst.reach:
            moves = f"moves the net's own output by {worst.rounding:.3g}"
            if math.isinf(worst.rounding):
                moves = "decides what the net's own output is"
            why = f". Rounding alone {moves} (float32 beside float64): give --pictures, or trained weights, with which it is "
            why += "steadier"
        raise CaffeError(
            f"{output} is not written: its output {worst.output} differs from the net's by {worst.largest:.3g}, "
            f"{worst.relative:.2g} of its range; at most {TOLERANCE:g} is allowed{why}"
        )


def _show(tried: list[Difference], choices: bool = False) -> None:
    """Print a row for each output and batch size: the largest difference of all batches of that size.

    Args:
        tried: the differences.
        choices: whether to print for how many of the batches' items the largest element is the same, too.
    """
    groups: dict[tuple[str, int], list[Difference]] = {}
    for each in tried:
        groups.setdefault((each.output, each.batch), []).append(each)
    several = any(len(group) > 1 for group in groups.values())
    titles = ["output", "batch", *["batches"] * several, "largest difference", "of its range"]
    rows = []
    for (output, batch), group in groups.items():
        worst = max(group, key=lambda each: math.inf if math.isnan(each.relative) else each.relative)
        largest = max(each.largest for each in group)
        rows.append([output, str(batch), *[str(len(group))] * several, f"{largest:.3g}", f"{worst.relative:.2g}"])
        if choices:
            rows[-1].append(f"{sum(each.alike for each in group) / len(group):.1%}")
    print(format_table([*titles, *["same choice"] * choices], rows, right=range(1, len(rows[0]))))
    if chosen := max(d.chosen for d in tried):
        print(
            f"note: {chosen} pooling windows chose another of values that are equal but for rounding, and so did the net"
        )
    for name in dict.fromkeys(d.output for d in tried if d.right and d.relative > TOLERANCE):
        most = max(d.rounding for d in tried if d.output == name)
        print(f"note: rounding alone moves {name} by {most:.3g} in the net too (float32 beside float64)")
    for name in dict.fromkeys(d.output for d in tried if d.right and not d.finite):
        print(f"note: some values of {name} are infinite or no numbers, in the net too")


def _say(found: Outline, path: str) -> None:
    for note in found.notes:
        print(f"note: {note}")
    for what, values in (("input", found.inputs), ("output", found.outputs)):
        for name, value in values.items():
            shape = ["any" if a in value.moving else str(n) for a, n in enumerate(value.shape)]
            print(f"{what} {name}: {'×'.join(shape) or dims(())}")
    sizes = [f"{len(found.steps)} layers", human(os.path.getsize(path), "B")]
    for weights in (f"{path}.data", weights_path(path)):  # of a large ONNX; of source
        if weights != path and os.path.exists(weights):
            sizes.append(f"weights in {weights}, {human(os.path.getsize(weights), 'B')}")
    print(f"{path}: {', '.join(sizes)}")


main = command("export_net", run)
