"""The choice of a backend: by device, by the environment, by hand."""

import pytest
import torch

from pycaffe_compat import ops
from pycaffe_compat.errors import CaffeError
from pycaffe_compat.ops import backends, torch_backend


def test_info_says_which_and_why():
    info = ops.backend_info()
    assert info["cpu"]["backend"] in ("extension", "torch")
    assert info["cpu"]["reason"]
    assert ("cuda" in info) == torch.cuda.is_available()


def test_environment_forces_one(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "torch")
    with pytest.raises(ops.OperatorError, match="outside its window"):
        ops.unpool_switch(torch.randn(1, 1, 1, 1), torch.full((1, 1, 1, 1), 7, dtype=torch.uint8), 2, 2)
    assert backends.implementation("pool_sum", torch.device("cpu")) is torch_backend.pool_sum
    assert ops.backend_info()["cpu"] == {"backend": "torch", "reason": "forced"}


def test_unknown_name(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "tourch")
    with pytest.raises(CaffeError, match=r'PYCAFFE_COMPAT_BACKEND is "tourch" \(did you mean torch\?\)'):
        ops.max_pool_switch(torch.randn(1, 1, 4, 4), 2, 2)
    with pytest.raises(CaffeError, match="valid: auto, extension, cupy, torch"), ops.use_backend("mps"):
        pass


def test_forced_but_unable(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cupy")
    with pytest.raises(CaffeError, match='"cupy" was requested but does not support cpu: serves CUDA devices only'):
        ops.max_pool_switch(torch.randn(1, 1, 4, 4), 2, 2)
    assert ops.backend_info()["cpu"]["backend"] == "none"


def test_use_backend_comes_first_and_ends(monkeypatch):
    monkeypatch.setenv(backends.VARIABLE, "cupy")
    with ops.use_backend("torch"):
        ops.max_pool_switch(torch.randn(1, 1, 4, 4), 2, 2)
        with ops.use_backend("auto"):
            assert ops.backend_info()["cpu"]["backend"] != "none"
    assert ops.backend_info()["cpu"]["backend"] == "none"
