"""The device code through NVIDIA's compilers, where they are installed: no GPU is needed to see what they make of it."""

import ctypes
import glob
import importlib.util
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from on_cpu import CSRC

from pycaffe_compat.ops import cupy_backend

ARCHITECTURES = ("90",)  # benchmarks/run_on_gpu.sh builds for the card at hand
REPORT = re.compile(
    r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads",
    re.DOTALL,
)


def nvcc():
    return shutil.which("nvcc") or shutil.which("nvcc", path=f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/bin")


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """What ptxas says of every kernel of launch.cu, for each architecture that this nvcc knows."""
    if nvcc() is None:
        pytest.skip("nvcc is not installed")
    known = subprocess.run([nvcc(), "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout.split()
    folder = tmp_path_factory.mktemp("cubin")

    def compiled(architecture):
        command = [nvcc(), "-std=c++17", "-O3", "-cubin", f"-arch=sm_{architecture}", "-Xptxas", "-v"]
        command += [str(CSRC / "cuda" / "launch.cu"), "-o", str(folder / f"{architecture}.cubin")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return architecture, [found.groupdict() for found in REPORT.finditer(done.stdout + done.stderr)]

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(compiled, [a for a in ARCHITECTURES if f"compute_{a}" in known]))


def test_no_kernel_spills(reports, library):
    for architecture, kernels in reports.items():
        assert len(kernels) == len(library.kernels())
        for kernel in kernels:
            assert int(kernel["stores"]) == int(kernel["loads"]) == 0, (architecture, kernel)


def test_no_fast_kernel_has_a_stack(reports):
    for architecture, kernels in reports.items():
        fast = [
            kernel for kernel in kernels if re.search(r"(pairs|pixels|tiles)_(max|sum|select|unpool)", kernel["name"])
        ]
        assert len(fast) == 3 * (8 + 4 + 6)  # types; pixels of two kernels, pairs, tiles of two kernels
        for kernel in fast:
            assert int(kernel["stack"]) == 0, (architecture, kernel)


def test_byte_images_need_no_stack(tmp_path):
    if nvcc() is None:
        pytest.skip("nvcc is not installed")
    command = [nvcc(), "-std=c++17", "-O3", "-cubin", "-arch=sm_80", "-Xptxas", "-v", str(CSRC / "cuda" / "images.cu")]
    done = subprocess.run([*command, "-o", str(tmp_path / "images.cubin")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (kernel,) = REPORT.finditer(done.stdout + done.stderr)
    assert int(kernel["stack"]) == int(kernel["stores"]) == int(kernel["loads"]) == 0


def nvrtc_library():
    """The path of an NVRTC that pip or a toolkit installed, or None."""
    folders = []
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations if spec else ():
        folders += [f"{root}/cu*/lib", f"{root}/cuda_nvrtc/lib", f"{root}/cu*/bin", f"{root}/cuda_nvrtc/bin"]
    folders.append(f"{os.environ.get('CUDA_HOME', '/usr/local/cuda')}/lib64")
    for folder in folders:
        for path in sorted(glob.glob(f"{folder}/*nvrtc*")):
            if re.search(r"nvrtc(\.so[.\d]*|64_\w+\.dll)$", path) and "alt" not in Path(path).name:
                return path
    return None


def test_the_cupy_source_compiles(library):
    path = nvrtc_library()
    if path is None:
        pytest.skip("no NVRTC is installed (pip install nvidia-cuda-nvrtc)")
    nvrtc = ctypes.CDLL(path)
    program = ctypes.c_void_p()
    source = cupy_backend.source().encode()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"switch_pool.cu", 0, None, None) == 0
    kernels = library.kernels()
    chosen = kernels[::3]
    for i in range(2):  # every template, every type
        found, wanted = ({re.split("[<,]", name)[i] for name in some} for some in (chosen, kernels))
        assert found == wanted
    for name in chosen:
        qualified = re.sub(r"(\w+)<(\w+)", r"switch_pool::device::\1<switch_pool::device::\2", name)
        assert nvrtc.nvrtcAddNameExpression(program, qualified.encode()) == 0
    # Ours, and those that CuPy adds.
    options = (ctypes.c_char_p * 4)(
        b"-std=c++17", b"-ftz=true", b"-arch=compute_80", b"--device-as-default-execution-space"
    )
    result = nvrtc.nvrtcCompileProgram(program, len(options), options)
    size = ctypes.c_size_t()
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    assert result == 0, log.value.decode()
    assert "warning" not in log.value.decode()
