"""The number of threads that training uses."""

import pytest
import torch

from pycaffe_compat.errors import SolverError
from pycaffe_compat.memory import groups
from pycaffe_compat.solver.threads import container_cores, operator_threads


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """The folder of control groups; empty."""
    monkeypatch.setattr(groups, "ROOT", str(tmp_path))
    monkeypatch.setattr(groups, "OWN", str(tmp_path / "own"))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "cores"),
    (("max 100000\n", None), ("150000 100000\n", 2), ("50000 100000\n", 1), ("", None), ("x y\n", None)),
)
def test_the_quota_of_a_container(root, text, cores):
    assert container_cores() is None
    (root / "cpu.max").write_text(text)
    assert container_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), ((-1, None), (250000, 3)))
def test_the_quota_of_version_1(root, quota, cores):
    (root / "cpu").mkdir()
    (root / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
    (root / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert container_cores() == cores


def test_what_is_asked_for_holds_while_the_block_lasts():
    before = torch.get_num_threads()
    with operator_threads(1) as said:
        assert said == "1 (as asked)"
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
    with pytest.raises(SolverError, match="--threads: 0 must be at least 1"), operator_threads(0):
        pass
    with pytest.raises(SolverError, match="--threads: 99999999 must be at most"), operator_threads(99999999):
        pass


def test_not_more_than_the_quota(root, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    (root / "cpu.max").write_text("100000 100000\n")
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
