"""Which trained nets there are: given one by one, in a run folder, in the tree of the paper's authors."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import MissingFileError, SolverError, require_file
from ..proto import read_solver
from ..solver.snapshot import filename
from .curves import Point, read_points
from .run_folder import MANIFEST, parse_variant, read_manifest

MODEL = re.compile(r"(?P<model>.+)_(?P<form>deploy|depoly|dump)\.prototxt")  # two of the authors' files are misspelt


@dataclass(frozen=True)
class Trained:
    """A net and its weights.

    Attributes:
        net: the path of its prototxt.
        weights: paths of caffemodels; a later one overrides an earlier one.
        image_shape: (channels, height, width) of an image, where that is known without the net.
    """

    net: str
    weights: tuple[str, ...]
    image_shape: tuple[int, ...] = ()


def pair(net: str, weights: str) -> Trained:
    """Return a net with weights given as ``"A,B"``.

    Raises:
        MissingFileError: a file is not there.
    """
    paths = tuple(path.strip() for path in weights.split(",") if path.strip())
    require_file(net, "net")
    for path in paths or ("",):
        require_file(path, "weights")
    return Trained(net, paths)


def in_run(folder: str) -> list[Trained]:
    """Return the net that each variant of a run folder of ``caffe-train-stages`` ends with.

    Raises:
        SolverError: it is no run folder, its variants have no decoder, or the last step of one is not finished.
    """
    path = os.path.join(folder, MANIFEST)
    require_file(folder, "run folder")
    if not os.path.exists(path):
        raise SolverError(f"{folder} is not a run folder: it has no {MANIFEST}; caffe-train-stages --out creates one")
    manifest = read_manifest(path)
    configuration, shape = manifest["configuration"], tuple(manifest.get("image_shape", ()))
    until, found = configuration.get("until", 4), []
    for variant in configuration.get("variants", []):
        decoder = parse_variant(variant)
        if decoder is None:
            continue
        steps = [(2, f"{decoder.kind}_layerwise"), (4, variant)]
        if decoder.objective != "layerwise":
            steps.insert(1, (3, variant))
        number, name = [step for step in steps if step[0] <= until][-1]
        step = os.path.join(folder, f"step{number}_{name}")
        param = read_solver(os.path.join(step, "solver.prototxt"))
        weights = os.path.join(step, os.path.basename(filename(param, param.max_iter, ".caffemodel")))
        if not os.path.exists(weights):
            raise SolverError(
                f"step {number} of {variant} is not finished: {weights} does not exist. Run the same caffe-train-stages command "
                "again to finish it, or give one of its snapshots as a net with weights"
            )
        found.append(Trained(os.path.join(step, "train_val.prototxt"), (weights,), shape))
    if not found:
        raise SolverError(f"{path}: its variants ({', '.join(configuration.get('variants', []))}) have no decoder")
    return found


def curves_of(folder: str) -> dict[str, list[Point]]:
    """Return the training curves of a run folder by step, ``step2_swwae_layerwise`` …, in order."""
    names = sorted(name for name in os.listdir(folder) if re.match(r"step\d_", name))
    return {name: read_points(os.path.join(folder, name, "curve.csv")) for name in names}


def in_release(folder: str) -> tuple[list[Trained], list[str]]:
    """Return the nets with weights in a folder that is laid out as the authors' release, or in a part of it.

    ``layer5_deploy.prototxt`` has the weights ``layer5.caffemodel`` beside it; ``layer5_dump.prototxt`` counts where there
    is no deploy net. ``caffe-make-prototxt --paper-tree`` writes the prototxts.

    Returns:
        The nets in alphabetical order, and the nets that have no weights there.

    Raises:
        MissingFileError: no net has weights.
    """
    require_file(folder, "folder of the release")
    models: dict[str, str] = {}
    for where, _, names in sorted(os.walk(folder)):
        for name in sorted(names):  # deploy before dump
            if match := MODEL.fullmatch(name):
                models.setdefault(os.path.join(where, match["model"]), os.path.join(where, name))
    found = [
        Trained(net, (f"{model}.caffemodel",)) for model, net in models.items() if os.path.exists(f"{model}.caffemodel")
    ]
    if not found:
        first = next(iter(models), "")
        wanted = f"{first}.caffemodel beside {models[first]}" if first else "no *_deploy.prototxt either"
        raise MissingFileError(f"{folder} and the folders in it hold no net with weights: wanted {wanted}")
    with_weights = {each.net for each in found}
    return found, [net for net in models.values() if net not in with_weights]


def titled(nets: Sequence[Trained], names: Sequence[str], keys: Sequence[str]) -> list[str]:
    """Return a title for each net: its name, and its folder (or file) too where nets of a name have the same key.

    Args:
        nets: the nets.
        names: ``SWWAE-first`` …; nets with one name are shown as one.
        keys: what tells nets of one name apart, such as the layer that they decode from.
    """
    titles = list(names)
    for also in (lambda each: os.path.dirname(each.net) or ".", lambda each: each.net):
        taken: dict[tuple[str, str], int] = {}
        for title, key in zip(titles, keys, strict=True):
            taken[title, key] = taken.get((title, key), 0) + 1
        doubled = {title for (title, _), count in taken.items() if count > 1}
        titles = [
            f"{name} ({also(each)})" if title in doubled else title
            for each, name, title in zip(nets, names, titles, strict=True)
        ]
    return titles
