"""The demo's nets and solver files: a small VGG for 32×32 digits, and its decoders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .blocks import Filler, lmdb_layers
from .decoder import KINDS, Decoder, augment, reconstruction_net
from .nets import deploy_inputs, vgg, without_fillers
from .prototxt import FOLDER, LOSSES, TITLES, net_text, solver_text

DEMO_FOLDER = f"{FOLDER}/demo"
SHAPE = (1, 32, 32)
STORED = 36  # the edge of the stored digits: a random 32×32 of them is seen in training
MEAN = 26  # of the digits in their frame, of 255
STAGES = ((2, 16), (2, 32), (2, 64))
LOSS_WEIGHTS = {"data": 2e-2, "conv1_2": 5e-3, "conv2_2": 5e-3}
WHOLE = (400, 2e-3)  # iterations and rate of step 3, and of the baseline that is trained on beside it
BASELINE = "vgg_longer"
MSRA: Filler = {"type": "msra"}


def demo_net(inputs: list[Any] | None = None) -> Any:
    """Return the demo's classification net: VGG's pattern, three stages of two convolutions, for 32×32 grey digits."""
    layers = deploy_inputs((1, *SHAPE)) if inputs is None else inputs
    return vgg(inputs=layers, stages=STAGES, hidden=(128,), classes=10, filler=MSRA, name="VGG_MNIST")


def demo_decoder(kind: str) -> Decoder:
    """Return the demo's decoder; its images are of the right scale already."""
    return Decoder(kind, "all", filler=MSRA, image_shape=SHAPE, image_scale=1)


def demo_files() -> Iterator[tuple[str, str]]:
    """Yield path and text of every file in ``prototxt/demo/``."""

    def inputs(labels: bool = True) -> list[Any]:
        transform = {"scale": 1 / 255, "crop_size": SHAPE[1], "mean_value": [MEAN]}
        return lmdb_layers("demo/train_lmdb", "demo/test_lmdb", (50, 100), labels, **transform)

    def solver(header: str, name: str, iterations: int, rate: float, net: str = "") -> tuple[str, str]:
        options: dict[str, Any] = {
            "type": "Adam",
            "base_lr": rate,
            "lr_policy": "poly",
            "power": 1,
            "max_iter": iterations,
            "test_iter": [10],
            "test_interval": iterations,
            "test_initialization": False,
            "display": 20,
            "average_loss": 20,
            "random_seed": 1,
        }
        text = solver_text(header, f"{DEMO_FOLDER}/{net or name}_train_val.prototxt", f"demo/{name}", **options)
        return f"{DEMO_FOLDER}/{name}_solver.prototxt", text

    about = "The demo's classification net for MNIST digits, 32x32: a small VGG, three stages, six convolutions."
    data = "Reads demo/{train,test}_lmdb, which make demo writes."
    yield f"{DEMO_FOLDER}/vgg_train_val.prototxt", net_text(demo_net(inputs()), f"{about}\n{data}")
    yield f"{DEMO_FOLDER}/vgg_deploy.prototxt", net_text(without_fillers(demo_net()), about)
    yield solver("Step 1 of the demo: only the classification net.", "vgg", 600, 2e-3)
    header = "The baseline of step 3: only the classification net, trained on for as long as the augmented nets."
    yield solver(header, BASELINE, *WHOLE, net="vgg")
    for kind in KINDS:
        decoder = demo_decoder(kind)
        first = f"{kind}_layerwise"
        about = f"The demo's encoder, fixed (lr_mult 0), with the {first} decoder: {LOSSES['layerwise']}."
        net = reconstruction_net(demo_net(inputs(labels=False)), replace(decoder, objective="layerwise"), "conv3_2")
        yield f"{DEMO_FOLDER}/{first}_train_val.prototxt", net_text(net, f"{about}\n{data}")
        yield solver(f"Step 2 of the demo: the {first} decoder, the encoder fixed.", first, 240, 4e-3)
        about = f"The demo's net with a mirrored decoder, {TITLES[kind]}, {decoder.name}: {LOSSES['all']}."
        net = augment(demo_net(inputs()), decoder, LOSS_WEIGHTS)
        yield f"{DEMO_FOLDER}/{decoder.name}_train_val.prototxt", net_text(net, f"{about}\n{data}")
        deploy = without_fillers(augment(demo_net(), decoder, LOSS_WEIGHTS))
        yield f"{DEMO_FOLDER}/{decoder.name}_deploy.prototxt", net_text(deploy, about)
        header = f"Step 3 of the demo: {decoder.name} trained whole, from the weights of steps 1 and 2."
        yield solver(header, decoder.name, *WHOLE)
