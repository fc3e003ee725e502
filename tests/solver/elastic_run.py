"""A training of two processes under torchrun's agent, which starts them again: ``elastic_run.py ARGUMENT …`` of train_net.

The agent is torchrun's own, but its processes are forks of this one, which has imported PyTorch already.
"""

from __future__ import annotations

import os
import sys

from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pycaffe_compat.commands import train_net


def train(arguments: list[str]) -> None:
    """What a process does; say first which it is."""
    sys.stderr.write(f"rank {os.environ['RANK']} is process {os.getpid()}\n")
    status = train_net.main(arguments)
    if status:
        sys.exit(status)


if __name__ == "__main__":
    standalone = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": str(os.getpid())}
    config = LaunchConfig(1, 1, 2, max_restarts=3, monitor_interval=0.1, start_method="fork", **standalone)
    elastic_launch(config, train)(sys.argv[1:])
