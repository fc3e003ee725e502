"""The processes of a training find each other, and none of an earlier start."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
import warm_start
from small_solver import write_files

from pycaffe_compat.errors import SolverError
from pycaffe_compat.solver.meeting import meet

ALONE = """
import sys
from pycaffe_compat.commands import train_net
from pycaffe_compat.solver import meeting
meeting.PATIENCE = 1.0
sys.exit(train_net.main(["--cpu", "--solver", sys.argv[1]]))
"""


def meet_all(store: Any, names: list[str], order: list[int]) -> list[tuple[Any, list[str]]]:
    with ThreadPoolExecutor(len(names)) as pool:
        asked = {rank: pool.submit(meet, store, rank, len(names), names[rank], 20.0) for rank in order}
        return [asked[rank].result() for rank in range(len(names))]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_starts_that_share_a_store_do_not_see_each_other(order: list[int]) -> None:
    store = dist.HashStore()
    first = meet_all(store, ["a", "b", "c"], order)
    first[0][0].set("address", "old")
    second = meet_all(store, ["d", "e", "f"], order)
    assert [said for _, said in first] == [["a", "b", "c"]] * 3
    assert [said for _, said in second] == [["d", "e", "f"]] * 3
    assert first[2][0].check(["address"]) and not any(part.check(["address"]) for part, _ in second)
    second[1][0].set("address", "new")
    assert second[2][0].get("address") == b"new" and first[1][0].get("address") == b"old"


def test_a_start_that_was_given_up_does_not_count() -> None:
    """Rank 1 alone had announced itself when it was killed."""
    store = dist.HashStore()
    with pytest.raises(SolverError, match=r"rank 1 has waited 0\.1 s for rank 0 of this training"):
        meet(store, 1, 2, "killed", 0.1)
    with pytest.raises(SolverError, match=r"rank 0 has waited 0\.1 s for rank 1 of this training"):
        meet(store, 0, 2, "in vain", 0.1)
    assert [said for _, said in meet_all(store, ["a", "b"], [0, 1])] == [["a", "b"]] * 2


def test_a_process_that_never_comes_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "alone.py").write_text(ALONE)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": "2"}
    command = [tmp_path / "alone.py", write_files(tmp_path)]
    for rank in ("0", "1"):
        done = warm_start.run(*command, env={**place, "RANK": rank, "LOCAL_RANK": rank}, timeout=60)
        errors = [line for line in done.stderr.splitlines() if line.startswith("train_net: ")]
        assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
        assert len(errors) == 1 and "cannot meet at localhost:" in errors[0] and "WORLD_SIZE" in errors[0], done.stderr
