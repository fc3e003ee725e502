"""Measure how long each layer of a net takes, forward and backward, as `caffe time` does."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..errors import SolverError
from ..net import Net
from ..pycaffe import Net as NumpyNet
from ..solver import SGD, GraphRunner
from ..solver.denormals import flushed
from ..solver.log import init_log, log
from ..solver.parts import Parts
from ..solver.run import parse_gpus
from .options import Parser, add_reading, add_state, command, reading

USE_CPU, USE_GPU = "caffe.cpp:352", "caffe.cpp:348"
FORWARD, INITIAL_LOSS, BACKWARD = "caffe.cpp:360", "caffe.cpp:365", "caffe.cpp:366"
BEGINS, TESTING, ITERATION = "caffe.cpp:374", "caffe.cpp:375", "caffe.cpp:403"
PER_LAYER, LAYER_FORWARD, LAYER_BACKWARD = "caffe.cpp:406", "caffe.cpp:409", "caffe.cpp:412"
MEAN_FORWARD, MEAN_BACKWARD, MEAN_BOTH, TOTAL, ENDS = (f"caffe.cpp:{n}" for n in (417, 419, 421, 423, 424))

EPILOG = """
examples:
  %(prog)s --model prototxt/vgg16_deploy.prototxt --iterations 10
  %(prog)s --model train_val.prototxt --gpu 0

As in Caffe, the default is the TRAIN phase on the CPU. Layers are timed one by one; a net that trains or is called as a module
fuses some of them and is faster: the last line times such a training step by its parts, data, forward, backward and update.
Layers above every loss have no backward pass, so a deploy net is only timed forward.
Inputs are zero.
"""


@dataclass
class Timing:
    """Mean milliseconds of an iteration, by layer and in all.

    ``step`` is an iteration as a solver runs it, with fused layers: data, forward, backward and update. It is empty for a
    net that has nothing to train.
    """

    forward_by_layer: dict[str, float]
    backward_by_layer: dict[str, float]
    forward: float
    backward: float
    both: float
    step: dict[str, float]


class _Stopwatch:
    """Adds up the milliseconds between the callbacks before and after each layer."""

    def __init__(self, layers: int, device: torch.device) -> None:
        self.device = device
        self.sums = [0.0] * layers
        self.began = 0.0

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return 1000 * time.perf_counter()

    def start(self, _: int) -> None:
        self.began = self.now()

    def stop(self, index: int) -> None:
        self.sums[index] += self.now() - self.began


def time_net(
    model: str,
    *,
    iterations: int = 50,
    phase: str = "TRAIN",
    gpu: str = "",
    level: int | None = None,
    stages: Sequence[str] = (),
) -> Timing:
    """Time a net layer by layer; log what Caffe logs, and return the means.

    Args:
        model: path of the net's prototxt.
        iterations: how many passes forward and backward; one more goes before and is not counted.
        phase: ``"TRAIN"`` or ``"TEST"``.
        gpu: number of a GPU; ``""`` for the CPU.
        level, stages: added to the net's state.

    Raises:
        SolverError: ``iterations`` is not positive, or the GPU is not here.
    """
    init_log()
    if iterations < 1:
        raise SolverError(f"iterations: {iterations} must be at least 1")
    gpus = parse_gpus(gpu)
    device = torch.device("cuda", gpus[0]) if gpus else torch.device("cpu")
    if gpus:
        log(USE_GPU, "Use GPU with device ID %d", gpus[0])
    else:
        log(USE_CPU, "Use CPU.")
    module = Net(model, phase, level=level, stages=stages, device=device)
    try:
        return _measure(NumpyNet.of(module), device, iterations)
    finally:
        module.close()


@flushed()
def _measure(net: NumpyNet, device: torch.device, iterations: int) -> Timing:
    names = [layer.name for layer in net.layers]
    log(FORWARD, "Performing Forward")
    net.forward()
    loss = sum(w * float(net.blobs[name].data.sum()) for name, w in net.blob_loss_weights.items() if w)
    log(INITIAL_LOSS, "Initial loss: %g", loss)
    log(BACKWARD, "Performing Backward")
    net.backward()
    forwards, backwards = _Stopwatch(len(names), device), _Stopwatch(len(names), device)
    net.before_forward(forwards.start)
    net.after_forward(forwards.stop)
    net.before_backward(backwards.start)
    net.after_backward(backwards.stop)
    log(BEGINS, "*** Benchmark begins ***")
    log(TESTING, "Testing for %d iterations.", iterations)
    forward = backward = 0.0
    began = forwards.now()
    for index in range(iterations):
        start = forwards.now()
        net.forward()
        middle = forwards.now()
        net.backward()
        end = forwards.now()
        forward, backward = forward + middle - start, backward + end - middle
        log(ITERATION, "Iteration: %d forward-backward time: %g ms.", index + 1, end - start)
    total = forwards.now() - began
    timing = Timing(
        {name: each / iterations for name, each in zip(names, forwards.sums, strict=True)},
        {name: each / iterations for name, each in zip(names, backwards.sums, strict=True)},
        forward=forward / iterations,
        backward=backward / iterations,
        both=total / iterations,
        step=_step(net.module, iterations),
    )
    log(PER_LAYER, "Average time per layer: ")
    for name in names:
        log(LAYER_FORWARD, "%10s\tforward: %g ms.", name, timing.forward_by_layer[name])
        log(LAYER_BACKWARD, "%10s\tbackward: %g ms.", name, timing.backward_by_layer[name])
    log(MEAN_FORWARD, "Average Forward pass: %g ms.", timing.forward)
    log(MEAN_BACKWARD, "Average Backward pass: %g ms.", timing.backward)
    log(MEAN_BOTH, "Average Forward-Backward: %g ms.", timing.both)
    log(TOTAL, "Total Time: %g ms.", total)
    log(ENDS, "*** Benchmark ends ***")
    if timing.step:
        parts = ", ".join(f"{part} {each:g} ms" for part, each in timing.step.items())
        log(ENDS, "A training step, its layers fused, with SGD: %s.", parts)
    return timing


class _Zeros(GraphRunner):
    """Runs a net on zeros where it has inputs, and on what its data layers draw."""

    def batch(self) -> dict[str, torch.Tensor]:
        shapes = self.net.blob_shapes
        return {
            **{name: torch.zeros(shapes[name], device=self.net.device) for name in self.net.inputs},
            **self.net.draw(),
        }


def _step(net: Net, iterations: int) -> dict[str, float]:
    """Mean milliseconds of the parts of a training step. The rate is zero, so the parameters stay what they are."""
    trained = [p for p in net.parameters() if p.requires_grad]
    if not trained or not net.loss_weights:
        return {}
    runner = _Zeros(net)
    runner.parts = Parts(net.device, synchronize=True)
    optimizer = SGD(trained, lr=0.0, momentum=0.9, weight_decay=5e-4)
    optimizer.keep_update = False
    for index in range(iterations + 1):
        if index == 1:  # the first one is not counted
            runner.parts.reset()
        runner.clear_gradients()
        runner.forward_backward()
        runner.parts.begin()
        runner.update(optimizer)
        runner.parts.end("update")
    return {part: 1000 * seconds / iterations for part, seconds in runner.parts.seconds.items()}


def run(argv: list[str], prog: str | None = None) -> None:
    """Run the command with these arguments; ``prog`` is its name in the help."""
    parser = Parser(__doc__, EPILOG, prog)
    parser.add_argument("--model", required=True, metavar="FILE", help="the net's prototxt")
    parser.add_argument("--iterations", type=int, default=50, metavar="N", help="passes (default: 50)")
    parser.add_argument("--phase", default="TRAIN", type=str.upper, choices=["TRAIN", "TEST"], help="default: TRAIN")
    parser.add_argument("--gpu", default="", metavar="ID", help="GPU number (default: the CPU)")
    add_state(parser)
    add_reading(parser)
    args = vars(parser.parse_args(argv))
    reading(args)
    time_net(args.pop("model"), **args)


main = command("time_net", run)
