"""docs/imagenet.md: its commands, on a challenge of four classes."""

from __future__ import annotations

import importlib
import io
import re
import shlex
import subprocess
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from console_scripts import ROOT, SCRIPTS
from scipy.io import savemat

from pycaffe_compat import load
from pycaffe_compat.commands.make_imagenet_lists import main
from pycaffe_compat.proto import read_net

COMMANDS = "".join(re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/imagenet.md").read_text(), re.MULTILINE | re.DOTALL))
WNIDS = ("n03", "n01", "n04", "n02")  # by the kit's numbers, 1 to 4
TRUTH = (2, 1, 3, 4, 2, 2)


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), np.uint8)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def archive_of(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            put(archive, name, content)
    return made.getvalue()


def devkit(path: Path, truth: tuple[int, ...] = TRUTH) -> None:
    kind = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    rows = [(number, wnid, f"thing {wnid}, that", 0) for number, wnid in enumerate(WNIDS, 1)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array([*rows, (5, "n09", "things", 4)], kind)[:, None]})
    with tarfile.open(path, "w:gz") as archive:
        put(archive, "kit/data/meta.mat", meta.getvalue())
        put(archive, "kit/data/ILSVRC2012_validation_ground_truth.txt", "".join(f"{n}\n" for n in truth).encode())


@pytest.fixture
def challenge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the archives that the page starts from."""
    monkeypatch.chdir(tmp_path)
    classes = {
        f"{wnid}.tar": archive_of({f"{wnid}_{n}.JPEG": picture(10 * k + n) for n in range(2)})
        for k, wnid in enumerate(WNIDS)
    }
    Path("ILSVRC2012_img_train.tar").write_bytes(archive_of(classes))
    pictures = {f"ILSVRC2012_val_{n:08}.JPEG": picture(100 + n) for n in range(1, 7)}
    Path("ILSVRC2012_img_val.tar").write_bytes(archive_of(pictures))
    devkit(Path("ILSVRC2012_devkit_t12.tar.gz"))
    return tmp_path


def shell(line: str) -> None:
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{line}\n{done.stderr}"


def call(line: str) -> None:
    name, *arguments = shlex.split(line)
    module, function = SCRIPTS[name].split(":")
    assert getattr(importlib.import_module(module), function)(arguments) == 0, line


def small_nets() -> None:
    """Put nets of a few channels and 32x32 crops in the place of VGG-16's, and weights."""
    for kind in ("deploy", "train_val"):
        path = Path(f"prototxt/vgg16_{kind}.prototxt")
        text = path.read_text().replace('type: "gaussian" std: 0.01', 'type: "msra"')
        for pattern, small in (
            (r"crop_size: 224", "crop_size: 32"),
            (r"batch_size: \d+", "batch_size: 2"),
            (r"num_output: (64|128|256|512)\b", "num_output: 4"),
            (r"num_output: 4096", "num_output: 8"),
            (r"num_output: 1000", "num_output: 6"),
            (r"dim: 224", "dim: 32"),
        ):
            text = re.sub(pattern, small, text)
        path.write_text(text)
    Path("short.prototxt").write_text('base_lr: 1e-5 lr_policy: "fixed" max_iter: 1 solver_mode: CPU')
    torch.manual_seed(0)
    load("prototxt/vgg16_train_val.prototxt", phase="TRAIN").save("VGG_ILSVRC_16_layers.caffemodel")


def test_the_pages_commands_run(challenge: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = COMMANDS.splitlines()
    assert len(lines) == 13
    for line in lines:
        line = line.replace("--shorter_edge 256", "--shorter_edge 36")
        if line.startswith("caffe-train-stages"):
            variants = re.search(r"--variant (\S+)", line)
            assert variants is not None
            line = line.replace(variants[1], "swwae_first") + " --solver short.prototxt --decoder-solver short.prototxt"
        if line.startswith("for v in"):
            line = re.sub(r"for v in .*; do (.*); done", r"\1", line).replace("$v", "swwae_first")
            found = re.search(r'"\$\((.*)\)"', line)
            assert found is not None
            listed = subprocess.run(["bash", "-c", found[1]], capture_output=True, text=True, check=True)
            line = line.replace(found[0], listed.stdout.strip())
        if line.startswith("caffe-evaluate"):
            line += " --edge 36"
        (call if line.startswith("caffe-") else shell)(line)
        if line == "caffe-make-prototxt":
            small_nets()
    assert Path("ILSVRC2012/train.txt").read_text().splitlines()[::2] == [
        f"n0{k}/n0{k}_0.JPEG {k - 1}" for k in (1, 2, 3, 4)
    ]
    assert [line.split()[1] for line in Path("ILSVRC2012/val.txt").read_text().splitlines()] == list("023100")
    assert Path("ILSVRC2012/synset_words.txt").read_text().splitlines()[1] == "n02 thing n02, that"
    assert Path("runs/imagenet/report.html").exists()
    assert len(read_net("runs/imagenet/step4_swwae_first/train_val.prototxt").layer) > 40


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("mv ILSVRC2012/train/n02 n02", "ILSVRC2012/train: no folder for class n02 (thing n02, that)"),
        ("rm ILSVRC2012/train/n02/*", "ILSVRC2012/train/n02: no pictures"),
        ("mkdir ILSVRC2012/train/n07", "n07 is not a class of the development kit"),
        ("touch ILSVRC2012/train/n08.tar", "n08.tar is not unpacked"),
        ("rm ILSVRC2012/val/*1.JPEG", "ILSVRC2012/val holds 5 pictures, and"),
        ("rm -r ILSVRC2012/val", "ILSVRC2012/val: No such file or directory; unpack the challenge's archives there"),
        ("rm *.gz", "ILSVRC2012_devkit_t12.tar.gz"),
        ("head -c 100 ILSVRC2012_img_val.tar > ILSVRC2012_devkit_t12.tar.gz", "not ILSVRC 2012's development kit"),
        ("cp ILSVRC2012_img_val.tar ILSVRC2012_devkit_t12.tar.gz", "has no meta.mat"),
    ],
)
def test_what_is_not_right_is_named(
    fault: str, words: str, challenge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in COMMANDS.splitlines()[:4]:
        shell(line)
    shell(fault)
    assert main(["ILSVRC2012", "--devkit", "ILSVRC2012_devkit_t12.tar.gz"]) == 1
    assert words in capsys.readouterr().err
    assert not Path("ILSVRC2012/train.txt").exists()


def test_a_class_that_the_kit_does_not_number_is_named(challenge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    devkit(challenge / "ILSVRC2012_devkit_t12.tar.gz", (1, 2, 9))
    assert main(["ILSVRC2012", "--devkit", "ILSVRC2012_devkit_t12.tar.gz"]) == 1
    assert 'ground_truth.txt:3: "9" is not one of the 4 classes of meta.mat' in capsys.readouterr().err
