"""The source distribution and the wheel: built from a copy of this checkout, installed where the checkout is not seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from commands.console_scripts import SCRIPTS

ROOT = Path(__file__).parents[1]
# Never part of the sources: what is built, cached, downloaded or trained in a checkout.
LEFT_OUT = (
    *(".git", ".venv", "build", "dist", "*.egg-info", "*.so", "__pycache__", ".*_cache", ".hypothesis"),
    *("/data", "/demo", "/snapshots"),
)
DEPLOY = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 6 dim: 6 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
"""


def _run(*command: str | Path, cwd: Path, **extra: str) -> str:
    """Run a program that knows nothing of the checkout; return what it said."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env={**environment, **extra}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _ignore(folder: str, names: list[str]) -> set[str]:
    at_root = {pattern[1:] for pattern in LEFT_OUT if pattern.startswith("/")} if Path(folder) == ROOT else set()
    return at_root | shutil.ignore_patterns(*LEFT_OUT)(folder, names)


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "checkout", ignore=_ignore, symlinks=True)
    build = "from setuptools import build_meta; build_meta.build_sdist('..')"
    _run(sys.executable, "-c", build, cwd=folder / "checkout", CXX="no-compiler")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else file.extractall(folder)
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> Path:
    """The wheel that pip builds from the source distribution on a machine without a compiler."""
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", "..", ".")
    _run(*pip, cwd=sdist, CXX="no-compiler")
    (path,) = sdist.parent.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a new environment in which the wheel is installed; its dependencies are this one's."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    variables = {"base": str(environment), "platbase": str(environment)}
    scripts = Path(sysconfig.get_path("scripts", "venv", variables))
    python = scripts / Path(sys.executable).name
    site = Path(_run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=environment).strip())
    _run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel), cwd=environment
    )
    # A line of a .pth file makes a folder importable, but not what that folder's own .pth files name: an editable
    # installation of the checkout stays out of sight.
    outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "outer.pth").write_text("".join(f"{path}\n" for path in sorted(outer)))
    return scripts


def python(installed: Path, code: str, folder: Path) -> str:
    return _run(installed / Path(sys.executable).name, "-c", code, cwd=folder)


def test_the_source_distribution_is_the_checkout(sdist: Path) -> None:
    def files(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    made = {name for name in files(sdist) if "egg-info" in name} | {"PKG-INFO", "setup.cfg"}
    missing = files(sdist.parent / "checkout") - files(sdist)
    assert {name for name in missing if "egg-info" not in name} == {".gitignore"}
    assert files(sdist) - files(sdist.parent / "checkout") <= made


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        metadata = file.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    package = {
        str(path.relative_to(ROOT))
        for pattern in ("*.py", "*.proto", "*.binpb", "py.typed")
        for path in (ROOT / "pycaffe_compat").rglob(pattern)
    }
    assert package <= names
    others = {name for name in names - package if ".dist-info/" not in name}
    assert {Path(name).name for name in others} == {"geometry.h", "switch_pool.cuh"}
    assert "License-Expression: MIT" in metadata
    assert any(name.endswith("/LICENSE") for name in names)


def test_the_package_works_without_the_checkout(installed: Path, tmp_path: Path) -> None:
    code = f"""
import sys, torch
import pycaffe_compat
from pycaffe_compat.commands import brew
from pycaffe_compat.layers import catalog
from pycaffe_compat.ops import cupy_backend
files = [str(getattr(module, "__file__", None)) for module in list(sys.modules.values())]
assert not [name for name in files if name.startswith({str(ROOT / "pycaffe_compat")!r})], "the checkout is seen"
assert "switch_pool" in cupy_backend.source()
assert catalog.schema()["PoolingParameter"]
with open("net.prototxt", "w") as file:
    file.write({DEPLOY!r})
net = pycaffe_compat.load("net.prototxt")
print(net(data=torch.zeros(2, 1, 6, 6))["pool"].shape)
assert "torch._dynamo" not in sys.modules, "the compiler takes a second and a half to import"
print(pycaffe_compat.__file__)
"""
    said = python(installed, code, tmp_path)
    assert "torch.Size([2, 1, 3, 3])" in said
    assert str(installed.parent) in said


def test_every_command_is_installed_and_found(installed: Path, tmp_path: Path) -> None:
    code = """
import importlib.metadata, sysconfig
found = next(iter(importlib.metadata.distributions(name="pycaffe_compat", path=[sysconfig.get_path("purelib")])))
for script in found.entry_points.select(group="console_scripts"):
    assert callable(script.load())
    print(script.name)
"""
    names = python(installed, code, tmp_path).split()
    assert set(names) == set(SCRIPTS)
    assert all((installed / name).exists() or (installed / f"{name}.exe").exists() for name in names)


def test_a_script_where_only_the_wheel_is(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(DEPLOY)
    (tmp_path / "script.py").write_text(
        "import caffe; print(caffe.Net('net.prototxt', caffe.TEST).blobs['pool'].shape)"
    )
    assert "(2, 1, 3, 3)" in _run(installed / "python", "-m", "pycaffe_compat", "script.py", cwd=tmp_path)


def test_the_nets_of_the_demo_where_only_the_wheel_is(installed: Path, tmp_path: Path) -> None:
    said = _run(installed / "caffe-make-prototxt", cwd=tmp_path)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.prototxt")}
    assert written == {str(path.relative_to(ROOT)) for path in (ROOT / "prototxt").rglob("*.prototxt")}
    assert f"{len(written)} files written" in said
    code = """
import numpy as np
from pycaffe_compat.swwae import demo
demo.TRAIN, demo.TEST = 60, 20
demo.make_databases(np.zeros((80, 28, 28), np.uint8), np.zeros(80, np.uint8))
from pycaffe_compat.commands import show_net
show_net.main(["prototxt/demo/swwae_all_deploy.prototxt"])
"""
    (tmp_path / "demo").mkdir()
    assert "dec:" in python(installed, code, tmp_path)
    solver = "prototxt/demo/vgg_solver.prototxt"
    said = _run(installed / "caffe-train-net", "--solver", solver, "--iterations", "1", "--cpu", cwd=tmp_path)
    assert "Optimization Done." in said
    assert (tmp_path / "demo/vgg_iter_1.caffemodel").exists()
