"""What ``prototxt/`` holds: every net and solver file of the paper and of the demo, as text.

The nets are the paper's. Its learning rates, batch sizes and lengths of training were not published: those in the
solver files are this project's own choices, and the files say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import CaffeError
from ..files import atomic_path
from .decoder import KINDS, OBJECTIVES, Decoder, augment, reconstruction_net
from .demo_nets import demo_files
from .nets import imagenet_inputs, vgg, without_fillers
from .prototxt import FOLDER, LOSSES, TITLES, net_text, solver_text

VARIANTS = tuple(Decoder(kind, objective) for kind in KINDS for objective in OBJECTIVES)
BATCH = (32, 25)
FINETUNING: dict[str, Any] = {
    "test_iter": [2000],
    "test_interval": 5000,
    "test_initialization": False,
    "base_lr": 1e-3,
    "lr_policy": "step",
    "gamma": 0.1,
    "stepsize": 40000,
    "max_iter": 100000,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "iter_size": 2,
    "display": 20,
    "average_loss": 20,
    "snapshot": 5000,
}
DECODING: dict[str, Any] = {
    "type": "Adam",
    "test_iter": [40],
    "test_interval": 5000,
    "test_initialization": False,
    "base_lr": 1e-4,
    "lr_policy": "step",
    "gamma": 0.1,
    "stepsize": 40000,
    "max_iter": 60000,
    "momentum": 0.9,
    "momentum2": 0.999,
    "weight_decay": 0,
    "display": 20,
    "average_loss": 20,
    "snapshot": 5000,
}


def all_files() -> dict[str, str]:
    """Return the text of every file that ``prototxt/`` holds, by its path from the repository's root."""
    files = dict(_imagenet_files())
    files.update(demo_files())
    return files


def write_all(root: str = ".") -> list[str]:
    """Write :func:`all_files` under ``root`` and return their paths.

    Raises:
        CaffeError: a folder cannot be written to.
    """
    return write_files(all_files(), root)


def write_files(files: Mapping[str, str], root: str) -> list[str]:
    """Write each text to its path under ``root``; return the paths.

    Raises:
        CaffeError: a folder cannot be made or written to.
    """
    paths = []
    for name, text in files.items():
        path = os.path.join(root, name)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except OSError as error:
            raise CaffeError(f"cannot write {path}: {error.strerror}") from error
        with atomic_path(path) as temporary, open(temporary, "w") as file:
            file.write(text)
        paths.append(path)
    return paths


def _imagenet_files() -> Iterator[tuple[str, str]]:
    tested = f"Tests all 50,000 validation images ({FINETUNING['test_iter'][0]} batches of {BATCH[1]})."
    about = "VGG-16, the classification net that the paper augments: 13 convolutions, 3 fully connected layers."
    data = "Reads data/ilsvrc12/{train,val}_lmdb, which caffe-convert-imageset makes."
    yield (
        f"{FOLDER}/vgg16_train_val.prototxt",
        net_text(vgg(inputs=imagenet_inputs(BATCH), top5=True), f"{about}\n{data}"),
    )
    yield f"{FOLDER}/vgg16_deploy.prototxt", net_text(without_fillers(vgg(top5=True)), about)
    yield (
        f"{FOLDER}/vgg16_solver.prototxt",
        solver_text(
            "The baseline: VGG-16 alone, trained on as the augmented nets are (start it with --weights).\n" + tested,
            f"{FOLDER}/vgg16_train_val.prototxt",
            "snapshots/vgg16/vgg16",
            **FINETUNING,
        ),
    )
    for decoder in VARIANTS:
        name = decoder.name
        about = f"VGG-16 with a mirrored decoder, {TITLES[decoder.kind]}, {name}: {LOSSES[decoder.objective]}."
        net = augment(vgg(inputs=imagenet_inputs(BATCH)), decoder)
        yield f"{FOLDER}/{name}_train_val.prototxt", net_text(net, f"{about}\n{data}")
        yield f"{FOLDER}/{name}_deploy.prototxt", net_text(without_fillers(augment(vgg(), decoder)), about)
        yield (
            f"{FOLDER}/{name}_solver.prototxt",
            solver_text(
                f"Step 4 of the paper: {name} is trained whole, classification and reconstruction together.\n"
                f"Start it with --weights VGG.caffemodel,DECODER.caffemodel (caffe-train-stages runs all steps).\n"
                f"{tested}",
                f"{FOLDER}/{name}_train_val.prototxt",
                f"snapshots/{name}/{name}",
                **FINETUNING,
            ),
        )
        step = 2 if decoder.objective == "layerwise" else 3
        start = "from random weights" if step == 2 else f"from the weights of {decoder.kind}_layerwise"
        about = f"Step {step} of the paper: the {name} decoder is trained {start}, the encoder fixed"
        decoding = reconstruction_net(vgg(inputs=imagenet_inputs((16, BATCH[1]))), decoder, "conv5_3")
        yield (
            f"{FOLDER}/decoder/{name}_train_val.prototxt",
            net_text(decoding, f"{about} (lr_mult 0), every loss with weight 1.\n{data}"),
        )
        yield (
            f"{FOLDER}/decoder/{name}_solver.prototxt",
            solver_text(
                f"{about}. The losses are sums of squares up to 1e9: Adam, which does not mind their scale.",
                f"{FOLDER}/decoder/{name}_train_val.prototxt",
                f"snapshots/decoder/{name}",
                **{**DECODING, "max_iter": DECODING["max_iter"] // (1 if step == 2 else 2)},
            ),
        )
