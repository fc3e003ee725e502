"""Times Deconvolution at stride 1 on the CPU: transposed convolution against convolution with mirrored filters.

    python benchmarks/bench_deconvolution.py

Forward and backward, in turns, medians; memory is recycled. Writes ``deconvolution.md``, by which the layer chooses.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pycaffe_compat import memory
from pycaffe_compat.layers.convolution import MIRRORED_FROM, MIRRORED_OUTPUTS, mirrored

SHAPES = (
    (50, 64, 32, 8),
    (50, 32, 16, 16),
    (50, 16, 16, 32),
    (50, 16, 1, 32),
    (1, 512, 512, 14),
    (4, 512, 512, 14),
    (1, 256, 128, 56),
    (4, 128, 64, 112),
    (4, 64, 64, 224),
    (4, 64, 3, 224),
)
ROUNDS = 9
CASES = (
    (torch.float32, torch.contiguous_format, "float32, NCHW"),
    (torch.float32, torch.channels_last, "float32, channels_last"),
    (torch.bfloat16, torch.channels_last, "bfloat16, channels_last"),
)


def transposed(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.conv_transpose2d(x, w, b, 1, 1)


def as_convolution(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.conv2d(x, mirrored(w, 1), b, 1, 1)


def measure(function: Callable[..., Tensor], leaves: tuple[Tensor, ...], dy: Tensor) -> float:
    for leaf in leaves:
        leaf.grad = None
    start = time.perf_counter()
    function(*leaves).backward(dy)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    memory.recycle()
    lines = [
        "# Deconvolution of 3x3 at stride 1, as what it is and as a convolution\n",
        f"`python benchmarks/bench_deconvolution.py`: {torch.get_num_threads()} threads, PyTorch {torch.__version__}. "
        "Milliseconds forward and backward, medians.",
        f"The layer takes the convolution from {MIRRORED_OUTPUTS} outputs and {MIRRORED_FROM} numbers of the bottom a weight on; "
        "what it gains is in the gradient of the bias, which the transposed one sums up by itself.\n",
        "| batch × channels × outputs × side | bottom / weights | kind | transposed | convolution | ratio | taken |",
        "| --- | ---: | --- | ---: | ---: | ---: | --- |",
    ]
    for batch, channels, outputs, side in SHAPES:
        for dtype, layout, kind in CASES:
            x = torch.randn(batch, channels, side, side).to(dtype).contiguous(memory_format=layout).requires_grad_()
            w = torch.randn(channels, outputs, 3, 3).to(dtype).contiguous(memory_format=layout).requires_grad_()
            b = torch.zeros(outputs, dtype=dtype, requires_grad=True)
            dy = torch.randn(batch, outputs, side, side).to(dtype).contiguous(memory_format=layout)
            times: dict[str, list[float]] = {"transposed": [], "convolution": []}
            for _ in range(ROUNDS):
                times["transposed"].append(measure(transposed, (x, w, b), dy))
                times["convolution"].append(measure(as_convolution, (x, w, b), dy))
            before, after = (statistics.median(times[name]) for name in ("transposed", "convolution"))
            ratio = x.numel() / w.numel()
            taken = "convolution" if outputs >= MIRRORED_OUTPUTS and ratio >= MIRRORED_FROM else "transposed"
            figures = f"{before:.2f} | {after:.2f} | {before / after:.2f}"
            lines.append(f"| {batch}×{channels}×{outputs}×{side} | {ratio:.1f} | {kind} | {figures} | {taken} |")
    text = "\n".join(lines) + "\n"
    Path(__file__).with_name("deconvolution.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
