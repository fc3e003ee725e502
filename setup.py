"""Builds the compiled pooling kernels, ``pycaffe_compat._C``, beside the metadata in pyproject.toml.

CUDA kernels are built where PyTorch has CUDA and an nvcc of the same major version is at hand; CPU kernels where there is a
C++ compiler. Without one, or without PyTorch in the building environment (``pip install --no-build-isolation`` lets the
build see the installed one), the package installs without the extension and runs on PyTorch's own operators.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHARED_SOURCE = ("geometry.h", "cuda/switch_pool.cuh")  # what CuPy compiles at run time


def say(message: str) -> None:
    print(f"pycaffe_compat: {message}", file=sys.stderr)


class BuildPy(build_py):
    """Puts the device code into the package, for the CuPy backend."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "pycaffe_compat", "ops", "csrc")
            for name in SHARED_SOURCE:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / "csrc" / name, folder / name)


def ask_nvcc(cuda_home: str | None, *options: str) -> str:
    """What nvcc prints; nothing where there is none."""
    if cuda_home is None:
        return ""
    command = [os.path.join(cuda_home, "bin", "nvcc"), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout + done.stderr


def toolkit(cuda_home: str | None) -> str | None:
    """The folder of CUDA's headers and libraries. PyTorch takes the one above nvcc, which may be a script elsewhere."""
    if cuda_home is None or os.path.exists(os.path.join(cuda_home, "include", "cuda_runtime.h")):
        return cuda_home
    found = re.search(r"^#\$ TOP=(.+)$", ask_nvcc(cuda_home, "--dryrun", "-x", "cu", os.devnull), re.MULTILINE)
    return os.path.realpath(found[1]) if found else cuda_home


def nvcc_release(cuda_home: str | None) -> str | None:
    """The release of nvcc, such as "13.0"."""
    found = re.search(r"release (\d+\.\d+)", ask_nvcc(cuda_home, "--version"))
    return found[1] if found else None


def default_architectures(cuda_home: str) -> str:
    """Turing to Blackwell as far as this nvcc knows them, and PTX of the newest."""
    text = ask_nvcc(cuda_home, "--list-gpu-arch")
    known = [
        name
        for name in ("7.5", "8.0", "8.6", "8.9", "9.0", "10.0")
        if f"compute_{name.replace('.', '')}" in text.split()
    ]
    return ";".join(known) + "+PTX"


def extension() -> dict:
    """The arguments of ``setup`` that build the extension; none where it cannot be built, which one line says."""
    without = "installed without compiled kernels, PyTorch's own operators serve: "
    try:
        import torch
        from torch.utils import cpp_extension
    except ImportError as error:
        say(f"{without}{error} (pip install --no-build-isolation lets the build see the installed PyTorch)")
        return {}
    compiler = os.environ.get("CXX", "cl" if os.name == "nt" else "c++").split()[0]
    if shutil.which(compiler) is None:
        say(f"{without}no C++ compiler ({compiler})")
        return {}

    names = (
        "autograd",
        "operators",
        "images",
        "update",
        "cpu/dispatch",
        "cpu/images",
        "cpu/pages",
        "cpu/denormals",
        "cpu/update",
    )
    sources, defines = [f"csrc/{name}.cpp" for name in names], []
    flags = {"cxx": ["/O2"] if os.name == "nt" else ["-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]}
    link = []
    if sys.platform == "linux" and torch.backends.openmp.is_available():  # else at::parallel_for runs on one thread
        flags["cxx"].append("-fopenmp")
        link.append("-fopenmp")
    make = cpp_extension.CppExtension
    cpp_extension.CUDA_HOME = toolkit(cpp_extension.CUDA_HOME)
    wanted, release = torch.version.cuda, nvcc_release(cpp_extension.CUDA_HOME)
    if wanted is None:
        say("PyTorch has no CUDA: building the CPU kernels only")
    elif release is None or release.split(".")[0] != wanted.split(".")[0]:
        say(f"PyTorch has CUDA {wanted}, nvcc is {release or 'not found'}: building the CPU kernels only")
    else:
        make = cpp_extension.CUDAExtension
        sources += ["csrc/cuda/launch.cu", "csrc/cuda/images.cu", "csrc/cuda/update.cu"]
        defines.append(("WITH_CUDA", None))
        flags["nvcc"] = ["-O3", "--threads=2", "-Xfatbin=-compress-all"]
        if not os.environ.get("TORCH_CUDA_ARCH_LIST") and not torch.cuda.is_available():
            os.environ["TORCH_CUDA_ARCH_LIST"] = default_architectures(cpp_extension.CUDA_HOME)
    headers = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "csrc").rglob("*.*h"))]
    module = make(
        "pycaffe_compat._C",
        sources,
        depends=headers,
        define_macros=defines,
        extra_compile_args=flags,
        extra_link_args=link,
    )
    module.optional = True

    class BuildExt(cpp_extension.BuildExtension):
        """Where a compiler fails, an installation goes on without; ``build_ext --inplace`` ends there."""

        def run(self) -> None:
            self.strict = self.inplace and not self.editable_mode  # setuptools forgets the first while it builds
            super().run()

        def build_extensions(self) -> None:
            try:
                super().build_extensions()
            except RuntimeError as error:
                if self.strict:
                    raise
                say(f"{without}{error}")

    return {"ext_modules": [module], "cmdclass": {"build_ext": BuildExt}}


arguments = extension()
arguments.setdefault("cmdclass", {})["build_py"] = BuildPy
setup(**arguments)
