"""The number of threads that training uses."""

import pytest
import torch

from pycaffe_compat.errors import SolverError
from pycaffe_compat.solver import threads
from pycaffe_compat.solver.threads import container_cores, operator_threads


@pytest.mark.parametrize(
    ("text", "cores"),
    (("max 100000\n", None), ("150000 100000\n", 2), ("50000 100000\n", 1), ("", None), ("x y\n", None)),
)
def test_the_quota_of_a_container(tmp_path, text, cores):
    (tmp_path / "cpu.max").write_text(text)
    assert container_cores(str(tmp_path / "cpu.max")) == cores
    assert container_cores(str(tmp_path / "missing")) is None


def test_what_is_asked_for_holds_while_the_block_lasts():
    before = torch.get_num_threads()
    with operator_threads(1) as said:
        assert said == "1 (as asked)"
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(SolverError, match="--threads: 0 must be at least 1"), operator_threads(0):
        pass


def test_not_more_than_the_quota(tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    monkeypatch.setattr(threads, "_QUOTA", str(tmp_path / "cpu.max"))
    torch.set_num_threads(3)
    try:
        with operator_threads() as said:
            assert said == "1 (the container's quota of 1 core)"
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        with operator_threads() as said:
            assert said == "3 (OMP_NUM_THREADS)"
    finally:
        torch.set_num_threads(before)
