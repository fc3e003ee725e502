"""Show the GPUs of this machine, as `caffe device_query` does."""

from __future__ import annotations

import torch

from ..solver.log import init_log, log
from ..solver.run import ALL, parse_gpus
from .options import Parser, command

LINES = (
    ("Major revision number", "major"),
    ("Minor revision number", "minor"),
    ("Name", "name"),
    ("Total global memory", "total_memory"),
    ("Total shared memory per block", "shared_memory_per_block"),
    ("Warp size", "warp_size"),
    ("Clock rate", "clock_rate"),
    ("Number of multiprocessors", "multi_processor_count"),
)
QUERY, FIRST = "caffe.cpp:138", 154
EPILOG = """
examples:
  %(prog)s                 all GPUs
  %(prog)s --gpu 0,2
"""


def device_query(gpu: str = ALL) -> int:
    """Log the properties of GPUs; return their number.

    Args:
        gpu: comma-separated numbers, or ``"all"``.

    Raises:
        SolverError: this machine has no such GPU.
    """
    init_log()
    log(QUERY, "Querying GPUs %s", gpu)
    if gpu == ALL and not torch.cuda.device_count():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        log(
            QUERY,
            "No GPU: torch %s, built with %s, finds none on this machine; nets run on the CPU",
            torch.__version__,
            built,
        )
        return 0
    ids = parse_gpus(gpu)
    for number in ids:
        properties = torch.cuda.get_device_properties(number)
        values = [("Device id", number)]
        values += [(title, getattr(properties, field)) for title, field in LINES if hasattr(properties, field)]
        for at, (title, value) in enumerate(values):
            log(f"common.cpp:{FIRST + at}", "%-31s%s", f"{title}:", value)
    return len(ids)


def run(argv: list[str], prog: str | None = None) -> None:
    """Run the command with these arguments; ``prog`` is its name in the help."""
    parser = Parser(__doc__, EPILOG, prog)
    parser.add_argument("--gpu", default=ALL, metavar="IDS", help="comma-separated GPU numbers, or all (default: all)")
    device_query(parser.parse_args(argv).gpu or ALL)


main = command("device_query", run)
