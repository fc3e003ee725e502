"""Times training steps of small nets in both memory layouts: what the rule in ``pycaffe_compat/solver/layout.py`` follows from.

    python benchmarks/bench_layout.py [--rounds N] [--threads N] [NET ...]

The layouts take turns in one process. A step is forward, backward and SGD's update, on random images in float32.
Writes ``layout.md``'s table to standard output.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from bench_pooling import cpu_name

from pycaffe_compat.solver import GraphRunner, Solver

CLASSES = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "loss" }\n'


def layer(kind: str, bottom: str, top: str, options: str = "") -> str:
    """The text of a layer with one bottom and one top, named like its top and type."""
    return f'layer {{ name: "{top}_{kind}" type: "{kind}" bottom: "{bottom}" top: "{top}" {options} }}\n'


def conv(bottom: str, top: str, outputs: int, kernel: int, pad: int = 0, stride: int = 1, relu: bool = True) -> str:
    """A convolution, and a ReLU over it."""
    sizes = f"num_output: {outputs} kernel_size: {kernel} pad: {pad} stride: {stride}"
    made = layer("Convolution", bottom, top, f'convolution_param {{ {sizes} weight_filler {{ type: "xavier" }} }}')
    return made + (layer("ReLU", top, top) if relu else "")


def inner(bottom: str, top: str, outputs: int) -> str:
    """An inner product."""
    options = f'inner_product_param {{ num_output: {outputs} weight_filler {{ type: "xavier" }} }}'
    return layer("InnerProduct", bottom, top, options)


def pool(bottom: str, top: str, kind: str, kernel: int, stride: int) -> str:
    """A pooling."""
    return layer("Pooling", bottom, top, f"pooling_param {{ pool: {kind} kernel_size: {kernel} stride: {stride} }}")


def lenet() -> str:
    """Caffe's LeNet."""
    text = conv("data", "c1", 20, 5, relu=False) + pool("c1", "p1", "MAX", 2, 2)
    text += conv("p1", "c2", 50, 5, relu=False) + pool("c2", "p2", "MAX", 2, 2)
    return text + inner("p2", "i1", 500) + layer("ReLU", "i1", "i1") + inner("i1", "i2", 10) + CLASSES % "i2"


def cifar10_full() -> str:
    """Caffe's full net for CIFAR-10."""
    norm = "lrn_param { local_size: 3 alpha: 5e-05 beta: 0.75 norm_region: WITHIN_CHANNEL }"
    text = conv("data", "c1", 32, 5, 2, relu=False) + pool("c1", "p1", "MAX", 3, 2) + layer("ReLU", "p1", "p1")
    text += layer("LRN", "p1", "n1", norm) + conv("n1", "c2", 32, 5, 2) + pool("c2", "p2", "AVE", 3, 2)
    text += layer("LRN", "p2", "n2", norm) + conv("n2", "c3", 64, 5, 2) + pool("c3", "p3", "AVE", 3, 2)
    return text + inner("p3", "i1", 10) + CLASSES % "i1"


def cifar10_quick() -> str:
    """Caffe's quick net for CIFAR-10."""
    text = conv("data", "c1", 32, 5, 2, relu=False) + pool("c1", "p1", "MAX", 3, 2) + layer("ReLU", "p1", "p1")
    text += conv("p1", "c2", 32, 5, 2) + pool("c2", "p2", "AVE", 3, 2)
    text += conv("p2", "c3", 64, 5, 2) + pool("c3", "p3", "AVE", 3, 2)
    return text + inner("p3", "i1", 64) + inner("i1", "i2", 10) + CLASSES % "i2"


def small_vgg() -> str:
    """Three pairs of convolutions as in VGG."""
    text, bottom = "", "data"
    for number, outputs in enumerate((32, 64, 128)):
        for which in "ab":
            text += conv(bottom, f"c{number}{which}", outputs, 3, 1)
            bottom = f"c{number}{which}"
        text += pool(bottom, f"p{number}", "MAX", 2, 2)
        bottom = f"p{number}"
    return text + inner(bottom, "i1", 256) + layer("ReLU", "i1", "i1") + inner("i1", "i2", 10) + CLASSES % "i2"


def resnet14() -> str:
    """He's residual net for CIFAR-10, of two blocks a stage."""

    def normal(top: str) -> str:
        return layer("BatchNorm", top, top) + layer("Scale", top, top, "scale_param { bias_term: true }")

    text = conv("data", "r", 16, 3, 1, relu=False) + normal("r") + layer("ReLU", "r", "r")
    bottom = "r"
    for stage in range(3):
        for block in range(2):
            outputs, stride, top = 16 << stage, 2 if stage and not block else 1, f"r{stage}{block}"
            text += conv(bottom, f"{top}a", outputs, 3, 1, stride, relu=False) + normal(f"{top}a")
            text += layer("ReLU", f"{top}a", f"{top}a") + conv(f"{top}a", f"{top}b", outputs, 3, 1, relu=False)
            text += normal(f"{top}b")
            if stride == 2:
                text += conv(bottom, f"{top}s", outputs, 1, 0, 2, relu=False)
                bottom = f"{top}s"
            text += layer("Eltwise", bottom, top, f'bottom: "{top}b"') + layer("ReLU", top, top)
            bottom = top
    return text + pool(bottom, "p", "AVE", 8, 1) + inner("p", "i", 10) + CLASSES % "i"


def nin() -> str:
    """Network in network, for CIFAR-10."""
    text = conv("data", "c1", 192, 5, 2) + conv("c1", "k1", 160, 1) + conv("k1", "k2", 96, 1)
    text += pool("k2", "p1", "MAX", 3, 2) + conv("p1", "c2", 192, 5, 2) + conv("c2", "k3", 192, 1)
    text += pool("k3", "p2", "AVE", 3, 2) + conv("p2", "c3", 192, 3, 1) + conv("c3", "k5", 10, 1)
    return text + pool("k5", "p3", "AVE", 8, 1) + CLASSES % "p3"


def srcnn() -> str:
    """Super-resolution of patches (SRCNN)."""
    text = conv("data", "c1", 64, 9) + conv("c1", "c2", 32, 1) + conv("c2", "c3", 1, 5, relu=False)
    return text + layer("EuclideanLoss", "c3", "loss", 'bottom: "label"')


def alexnet() -> str:
    """AlexNet without groups."""
    norm = "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }"
    text = conv("data", "c1", 96, 11, 0, 4) + pool("c1", "p1", "MAX", 3, 2) + layer("LRN", "p1", "n1", norm)
    text += conv("n1", "c2", 256, 5, 2) + pool("c2", "p2", "MAX", 3, 2) + layer("LRN", "p2", "n2", norm)
    text += conv("n2", "c3", 384, 3, 1) + conv("c3", "c4", 384, 3, 1) + conv("c4", "c5", 256, 3, 1)
    text += pool("c5", "p5", "MAX", 3, 2) + inner("p5", "i6", 4096) + layer("ReLU", "i6", "i6")
    return text + inner("i6", "i7", 4096) + layer("ReLU", "i7", "i7") + inner("i7", "i8", 1000) + CLASSES % "i8"


# The net; the shape of an image and of its label; batches; steps a turn at the first batch.
NETS: dict[str, tuple[Callable[[], str], tuple[int, ...], tuple[int, ...], tuple[int, ...], int]] = {
    "LeNet": (lenet, (1, 28, 28), (), (64, 16, 1), 10),
    "CIFAR-10 quick": (cifar10_quick, (3, 32, 32), (), (100, 16, 1), 3),
    "CIFAR-10 full": (cifar10_full, (3, 32, 32), (), (100, 16), 2),
    "small VGG": (small_vgg, (3, 32, 32), (), (64, 16, 4), 2),
    "small VGG, 64 × 64": (small_vgg, (3, 64, 64), (), (16,), 2),
    "ResNet-14": (resnet14, (3, 32, 32), (), (128, 16), 1),
    "NIN": (nin, (3, 32, 32), (), (32,), 1),
    "SRCNN": (srcnn, (1, 33, 33), (1, 21, 21), (128, 16), 1),
    "AlexNet, 227 × 227": (alexnet, (3, 227, 227), (), (16,), 1),
}


def write(folder: Path, net: str, image: tuple[int, ...], label: tuple[int, ...], batch: int) -> str:
    """Write a solver and its net; return the solver's path."""
    shapes = " ".join(f"shape {{ {' '.join(f'dim: {n}' for n in (batch, *each))} }}" for each in (image, label))
    filled = 'data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 }'
    data = f'layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{ {filled} {shapes} }} }}\n'
    (folder / "net.prototxt").write_text(data + net)
    rates = 'base_lr: 0.00001 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed" max_iter: 1000000'
    path = folder / "solver.prototxt"
    path.write_text(f'net: "{folder}/net.prototxt" {rates} snapshot_prefix: "{folder}/s" solver_mode: CPU')
    return str(path)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", help=f"which nets (default: all of {', '.join(NETS)})")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each layout (default 9)")
    parser.add_argument("--threads", type=int, default=1, help="threads of an operator (default 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"{cpu_name()}, threads: {args.threads}, PyTorch {torch.__version__}\n")
    print("| net | batch | NCHW, ms | channels_last, ms | NCHW / channels_last, least | medians |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in args.nets or NETS:
        make, image, label, batches, steps = NETS[name]
        for batch in batches:
            turn = steps * batches[0] // batch
            with tempfile.TemporaryDirectory() as folder:
                path = write(Path(folder), make(), image, label, batch)
                solvers = [Solver(path, runner=partial(GraphRunner, channels_last=last)) for last in (False, True)]
                times: list[list[float]] = [[], []]
                for round_ in range(args.rounds + 1):
                    for solver, found in zip(solvers, times, strict=True):
                        start = time.perf_counter()
                        solver.step(turn)
                        if round_:
                            found.append(1e3 * (time.perf_counter() - start) / turn)
            least, middle = [min(t) for t in times], [statistics.median(t) for t in times]
            print(
                f"| {name} | {batch} | {least[0]:.1f} | {least[1]:.1f} | {least[0] / least[1]:.2f} "
                f"| {middle[0] / middle[1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
