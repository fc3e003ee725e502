"""The CUDA kernel of the update, thread by thread on the CPU, against the solver's rules; and through nvcc."""

import ctypes
import subprocess

import numpy as np
import pytest
import torch
from on_cpu import CSRC, HERE, compiler
from test_compilers import ARCHITECTURES, REPORT, nvcc
from update_rules import HYPER

from pycaffe_compat import ops
from pycaffe_compat.solver import RULES

NAMES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")  # as in csrc/update.h
SIZES = (1, 3, 1000, 4096, 4097, 9000, *[5] * 80)


class Step(ctypes.Structure):
    _fields_ = (
        ("rule", ctypes.c_int),
        ("decay_kind", ctypes.c_int),
        ("subtract", ctypes.c_bool),
        ("keep", ctypes.c_bool),
        *((name, ctypes.c_double) for name in ("share", "decay", "keep1", "keep2", "delta", "rate", "scale")),
        ("rate_at", ctypes.c_void_p),
        ("scale_at", ctypes.c_void_p),
    )


class Parameter(ctypes.Structure):
    _fields_ = (*((name, ctypes.c_void_p) for name in ("p", "g", "h1", "h2")), ("n", ctypes.c_int64))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    path = tmp_path_factory.mktemp("update") / "update_on_cpu.so"
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-w", f"-I{CSRC}", f"-I{HERE}"]
    subprocess.run([compiler(), *flags, str(HERE / "update_on_cpu.cpp"), "-o", str(path)], check=True)
    return ctypes.CDLL(str(path))


def correct_roots(tensors):
    """IEEE's square roots, as a GPU takes them; MKL's are a bit off now and then."""
    return [torch.from_numpy(np.sqrt(t.numpy())) for t in tensors]


def correct_roots_(tensors):
    for t, root in zip(tensors, correct_roots(tensors), strict=True):
        t.copy_(root)


@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="ATen rounds twice on this processor")
@pytest.mark.parametrize("decay", ("none", "L2", "L1"))
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_computes_the_rule(kernel, monkeypatch, name, dtype, decay):
    monkeypatch.setattr(torch, "_foreach_sqrt", correct_roots)
    monkeypatch.setattr(torch, "_foreach_sqrt_", correct_roots_)
    generator = torch.Generator().manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(n, generator=generator, dtype=dtype)) for n in SIZES]
    options = {"weight_decay": 0.0 if decay == "none" else 0.1, "regularization_type": "L1" if decay == "L1" else "L2"}
    optimizer = RULES[name](params, 0.05, iter_size=3, **options, **HYPER[name])
    hyper = HYPER[name]
    # One unaligned copy of everything, to be updated by the kernel.
    copies = [[torch.zeros(n + 1, dtype=dtype)[n % 2 :][:n] for _ in range(4)] for n in SIZES]
    for p, (mine, *_) in zip(params, copies, strict=True):
        mine.copy_(p.detach())
    keep1 = hyper.get("rms_decay", hyper.get("momentum", 0.0))
    rate = torch.zeros(1, dtype=dtype)
    for t in range(1, 3):
        for p, (_, gradient, *_) in zip(params, copies, strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=dtype)
            gradient.copy_(p.grad)
        correction = (1 - 0.95**t) ** 0.5 / (1 - 0.8**t) if name == "Adam" else 1.0
        rate[0] = 0.05 * correction
        step = Step(NAMES.index(name), ("none", "L2", "L1").index(decay), True, True, 1 / 3, options["weight_decay"])
        step.keep1, step.keep2, step.delta = keep1, hyper.get("momentum2", 0.0), hyper.get("delta", 0.0)
        step.scale, step.rate_at = 1.0, rate.data_ptr()
        table = (Parameter * len(SIZES))(*(Parameter(*(x.data_ptr() for x in c), c[0].numel()) for c in copies))
        before = kernel.launch_count()
        assert kernel.run(ctypes.byref(step), int(dtype == torch.float64), table, len(SIZES)) == 0
        assert kernel.launch_count() == before + 2  # more tensors than one table holds
        with ops.use_backend("torch"):
            optimizer.step()
        history = [[optimizer.state[p][h] for h in optimizer.history_names] for p in params]
        for p, mine, h in zip(params, copies, history, strict=True):
            for found, wanted in zip(mine, (p.detach(), p.grad, *h), strict=False):
                assert torch.equal(found, wanted)


def test_no_kernel_spills(tmp_path):
    if nvcc() is None:
        pytest.skip("nvcc is not installed")
    known = subprocess.run([nvcc(), "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    wanted = [a for a in ARCHITECTURES if f"compute_{a}" in known]
    command = [nvcc(), "-std=c++17", "-O3", "-fatbin", "-Xptxas", "-v", "--threads=2"]
    command += [f"-gencode=arch=compute_{a},code=sm_{a}" for a in wanted]
    command += [str(CSRC / "cuda" / "update.cu"), "-o", str(tmp_path / "update.fatbin")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kernels = [found.groupdict() for found in REPORT.finditer(done.stdout + done.stderr)]
    assert len(kernels) == len(wanted) * len(NAMES) * 3 * 2  # decays, types
    for kernel in kernels:
        assert int(kernel["stores"]) == int(kernel["loads"]) == int(kernel["stack"]) == 0, kernel
