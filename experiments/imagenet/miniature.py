#!/usr/bin/env python
"""Every command of docs/imagenet.md, on a miniature of ILSVRC 2012: its 1,000 classes, one photograph each.

    python experiments/imagenet/miniature.py --photographs imagenet1000_256.zip

The photographs become archives like the challenge's: each stands in the training archive and, under another name and in another
order, in the validation archive. Then the page's commands are run in order, taken from the page itself. What is changed of them:
the training is a few iterations of small batches, the errors are those of a few pictures. The nets are VGG-16 and its six
augmented ones at full size; the weights are random, so their errors are those of chance.

Time, memory and disk of each command go into results.csv as it ends, and from there into the page. What has its row is not run
again: the same command goes on after an interruption. --draw only writes the page.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pycaffe_compat.errors import CaffeError, DataError, require_file
from pycaffe_compat.files import atomic_path
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, format_text, read_net, read_solver
from pycaffe_compat.swwae import vgg
from pycaffe_compat.swwae.generate import DECODING, FINETUNING
from pycaffe_compat.swwae.pictures import resize_shorter

sys.path.insert(0, str(Path(__file__).parents[1]))
from results_page import write_section
from results_table import Table, machine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EDGE = 375  # the shorter edge of most of ILSVRC's pictures
PICTURES = {"train": 1_281_167, "val": 50_000}  # ILSVRC 2012's
START = "caffe-convert-imageset --help"  # does nothing but start; what it takes is no work on pictures
PHOTOGRAPH = re.compile(r"(?:.*/)?(n\d{8})_([^/]+)\.(?:JPEG|jpe?g)")
TRAIN, VAL, DEVKIT = (f"ILSVRC2012_{name}" for name in ("img_train.tar", "img_val.tar", "devkit_t12.tar.gz"))
WEIGHTS = "VGG_ILSVRC_16_layers.caffemodel"
SHORT = {"max_iter": 2, "display": 1, "test_iter": [1], "test_interval": 2}
COLUMNS = {
    "number": int,
    "command": str,
    "run": str,
    "cut": str,
    "pictures": int,
    "seconds": float,
    "cpu_seconds": float,
    "peak_mb": float,
    "left_mb": float,
    "said": str,
    "threads": str,
    "machine": str,
}
SHOWN = (("seconds", 1), ("cpu_seconds", 1), ("peak_mb", 0), ("left_mb", 1))  # columns and digits
STAGE_COLUMNS = {"step": int, "stage": str, "snapshot_mb": float}


@dataclass(frozen=True)
class Taken:
    """What a command took: seconds by the clock and of the processors, the largest process's peak and the disk in bytes."""

    seconds: float
    cpu_seconds: float
    peak: int
    left: int
    said: str


# ---- the miniature


def make_challenge(photographs: str, work: Path) -> None:
    """Make the challenge's three files in ``work`` from a zip of photographs named ``n01440764_tench.JPEG``.

    Raises:
        MissingFileError: there is no zip. DataError: it is none, or a photograph's name is no class.
    """
    require_file(photographs, "archive of photographs")
    try:
        with zipfile.ZipFile(photographs) as archive:
            found: dict[str, tuple[str, bytes]] = {}
            for name in sorted(name for name in archive.namelist() if not name.endswith("/")):
                match = PHOTOGRAPH.fullmatch(name)
                if match is None or match[1] in found:
                    wanted = "the first photograph of its class" if match else "WNID_WORDS.JPEG"
                    raise DataError(f"{photographs}: {name} is not {wanted}; a class has one photograph here")
                found[match[1]] = match[2].replace("_", " "), _enlarged(archive.read(name), f"{photographs}: {name}")
    except zipfile.BadZipFile as error:
        raise DataError(f"{photographs}: not a zip of photographs: {error}") from error
    if not found:
        raise DataError(f"{photographs}: no photographs")
    order = random.Random(1)
    kit = order.sample(list(found), len(found))  # the kit numbers the classes in an order of its own
    val = order.sample(list(found), len(found))
    _write_archive(
        work / TRAIN, {f"{wnid}.tar": _archive({f"{wnid}_1.JPEG": found[wnid][1]}).getvalue() for wnid in kit}
    )
    _write_archive(
        work / VAL, {f"ILSVRC2012_val_{number:08}.JPEG": found[wnid][1] for number, wnid in enumerate(val, 1)}
    )
    meta = _meta([(number, wnid, found[wnid][0]) for number, wnid in enumerate(kit, 1)])
    truth = "".join(f"{kit.index(wnid) + 1}\n" for wnid in val).encode()
    folder = "ILSVRC2012_devkit_t12/data"
    _write_archive(
        work / DEVKIT,
        {f"{folder}/meta.mat": meta, f"{folder}/ILSVRC2012_validation_ground_truth.txt": truth},
        "w:gz",
    )
    with atomic_path(work / "val_classes.txt") as temporary:
        Path(temporary).write_text("".join(f"{wnid}\n" for wnid in val))


def _enlarged(content: bytes, name: str) -> bytes:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{name} is no picture")
    enlarged = resize_shorter(image.transpose(2, 0, 1), EDGE, cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", enlarged.transpose(1, 2, 0))[1].tobytes()


def _archive(files: dict[str, bytes], mode: str = "w") -> io.BytesIO:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made


def _write_archive(path: Path, files: dict[str, bytes], mode: str = "w") -> None:
    with atomic_path(path) as temporary:
        Path(temporary).write_bytes(_archive(files, mode).getvalue())


def _meta(classes: Sequence[tuple[int, str, str]]) -> bytes:
    """The kit's ``meta.mat``, with one group of classes, which is none itself."""
    from scipy.io import savemat

    kind = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8")]
    rows = [(*each, 0) for each in classes]
    made = io.BytesIO()
    savemat(made, {"synsets": np.array([*rows, (len(rows) + 1, "n00001740", "entity", len(rows))], kind)[:, None]})
    return made.getvalue()


def make_weights(path: Path) -> None:
    """Write a caffemodel of VGG-16's form, with random weights whose activations are near 1 and neither vanish nor grow."""
    import torch

    param = vgg()
    for layer in param.layer:
        if layer.type == "Convolution":
            first = layer.name == "conv1_1"  # brings pixels, some 64 from their mean, near 1
            filler = {"type": "gaussian", "std": 0.004} if first else {"type": "msra"}
            layer.convolution_param.weight_filler.CopyFrom(caffe_pb2.FillerParameter(**filler))
    torch.manual_seed(1)
    net = Net(param, "TEST")
    net.save(path)
    net.close()


def shorten(work: Path, iterations: int, batch: int) -> str:
    """Write VGG-16 with small batches and its solvers with few iterations; return the options that name them."""
    folder = work / "miniature"
    folder.mkdir(exist_ok=True)
    net = read_net(str(work / "prototxt/vgg16_train_val.prototxt"))
    for layer in net.layer:
        if layer.type == "Data":
            layer.data_param.batch_size = batch
    (folder / "train_val.prototxt").write_text(format_text(net))
    for name, source in (("solver", "vgg16_solver"), ("decoder_solver", "decoder/sae_layerwise_solver")):
        param = read_solver(str(work / f"prototxt/{source}.prototxt"))
        short = caffe_pb2.SolverParameter(**{**SHORT, "max_iter": iterations, "test_interval": iterations})
        param.ClearField("test_iter")
        param.MergeFrom(short)
        param.solver_mode = caffe_pb2.SolverParameter.CPU
        (folder / f"{name}.prototxt").write_text(format_text(param))
    options = ("net", "train_val"), ("solver", "solver"), ("decoder-solver", "decoder_solver")
    return " ".join(f"--{option} miniature/{name}.prototxt" for option, name in options)


def check_lists(work: Path) -> int:
    """Hold the list of validation pictures beside what they are; return how many there are.

    Raises:
        DataError: a picture has another class's label.
    """
    classes = (work / "val_classes.txt").read_text().split()
    wanted = [sorted(classes).index(wnid) for wnid in classes]
    found = [int(line.split()[1]) for line in (work / "ILSVRC2012/val.txt").read_text().splitlines()]
    if found != wanted:
        raise DataError(f"{work}/ILSVRC2012/val.txt: the labels are not those of the pictures")
    return len(found)


# ---- the commands


def page_commands(page: Path) -> list[str]:
    """The commands of the page, a line each."""
    require_file(page, "page of commands")
    return "".join(re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)).splitlines()


def as_run(command: str, work: Path, args: argparse.Namespace) -> tuple[str, str]:
    """A command of the page as it is run here, and what of it is cut: the whole would take months."""
    if command.startswith("caffe-train-stages"):
        options = shorten(work, args.iterations, args.batch)
        return re.sub(
            r"--net \S+", options, command
        ), f"{counted(args.iterations, 'iteration')}, batches of {args.batch}"
    line = re.sub(r"(--mode \w+)", rf"\1 --limit {args.limit}", command)
    return line, counted(args.limit, "picture") if line != command else ""


def measure(args: argparse.Namespace) -> None:
    """Run the commands that have no row yet, and write one for each.

    Raises:
        CaffeError: a command failed, or the table is of other commands.
    """
    work, table, commands = args.work, Table(args.results, COLUMNS), [START, *page_commands(args.page)]
    done = {row["number"]: row["command"] for row in table.rows()}
    for number, command in done.items():
        if number >= len(commands) or commands[number] != command:
            raise DataError(
                f"{args.results}: row {number} is of another command than {args.page}'s; move the file away"
            )
    if done and not (work / TRAIN).exists():
        raise DataError(f"{args.results} has rows, but {work} not what they made: move the file away")
    work.mkdir(parents=True, exist_ok=True)
    _link_commands(work / "bin")
    if not (work / DEVKIT).exists():
        make_challenge(args.photographs, work)
    pictures = len((work / "val_classes.txt").read_text().split()) if (work / "val_classes.txt").exists() else 0
    for number, command in enumerate(commands[: args.until]):
        if number in done:
            continue
        if WEIGHTS in command and not (work / WEIGHTS).exists():
            make_weights(work / WEIGHTS)
        if command.startswith("caffe-train-stages"):
            shutil.rmtree(work / "runs", ignore_errors=True)  # half a training would have half its time
        line, cut = as_run(command, work, args)
        print(line, flush=True)
        taken = run(line, work)
        if command.startswith("caffe-make-imagenet-lists"):
            print(f"the labels of all {check_lists(work)} validation pictures are right")
        if command.startswith("caffe-train-stages"):
            write_stages(work / "runs/imagenet", args.results.with_name("stages.csv"))
        threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
        shown = [
            f"{taken.seconds:.1f}",
            f"{taken.cpu_seconds:.1f}",
            f"{taken.peak / 1e6:.0f}",
            f"{taken.left / 1e6:.1f}",
        ]
        table.append([(number, command, line, cut, pictures, *shown, taken.said, threads, machine())])
        print("  {} s, {} s of the processor, {} MB of memory, {} MB left on disk".format(*shown), flush=True)


def _link_commands(folder: Path) -> None:
    """Put this checkout's commands into a folder, under the names that they have when installed."""
    folder.mkdir(exist_ok=True)
    for tool in (ROOT / "tools").glob("*.py"):
        script = folder / f"caffe-{tool.stem.replace('_', '-')}"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{tool}" "$@"\n')
        script.chmod(0o755)


def run(line: str, work: Path) -> Taken:
    """Run a line in bash, in ``work``; its output goes to ``log.txt`` there.

    Raises:
        CaffeError: it failed; the message ends with what it said.
    """
    before, log, report = _disk(work), work / "log.txt", work / "taken.json"
    path = os.pathsep.join([str((work / "bin").absolute()), os.environ.get("PATH", os.defpath)])
    report.unlink(missing_ok=True)
    with open(log, "ab") as file:
        file.write(f"$ {line}\n".encode())
        file.flush()
        start = file.tell()
        subprocess.run(
            [sys.executable, "-S", HERE / "measured.py", report.absolute(), line],
            cwd=work,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=file,
            check=True,
        )
    taken = json.loads(report.read_text())
    said = (log.read_bytes()[start:].decode(errors="replace").strip().splitlines() or [""])[-1]
    if status := taken.pop("status"):
        raise CaffeError(f"a command failed with status {status}: {line}; {log} ends with: {said}")
    return Taken(**taken, left=_disk(work) - before, said=said)


def _disk(folder: Path) -> int:
    """The bytes that the files below a folder occupy, but for this script's own."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*") if path.name not in ("log.txt", "taken.json"))


def write_stages(folder: Path, path: Path) -> None:
    """Write the size of one snapshot, weights and state, of each stage."""
    path.unlink(missing_ok=True)
    rows = []
    for stage in sorted(folder.glob("step*_*")):
        size = sum(each.stat().st_size for each in stage.glob("snapshot_iter_*"))
        rows.append((stage.name[4], stage.name[6:], f"{size / 1e6:.0f}"))
    Table(path, STAGE_COLUMNS).append(rows)


# ---- the page


def draw(results: Path, page: Path) -> None:
    """Write the section of the page from the tables."""
    rows = Table(results, COLUMNS).rows()
    stages = Table(results.with_name("stages.csv"), STAGE_COLUMNS).rows()
    if not rows:
        raise DataError(f"{results}: no rows yet")
    write_section(page, "miniature", section_of(rows, stages, len(page_commands(page))))


def section_of(rows: list[dict[str, Any]], stages: list[dict[str, Any]], commands: int) -> Iterator[str]:
    """The lines of the section."""
    by_number = {row["number"]: row for row in rows}
    last = rows[-1]
    yield "## What it takes"
    yield ""
    yield (
        f"We ran the commands above, in this order, on a miniature of the challenge: {last['pictures']:,} classes with one "
        "photograph each, in archives like the challenge's. The same photographs serve for training and validation. They are "
        f"enlarged to a shorter edge of {EDGE} pixels, as most of ILSVRC's have. The nets are those of `prototxt/` at full size, "
        "with random weights."
    )
    yield ""
    cuts = {name: row["cut"] for row in rows if row["cut"] and (name := re.search(r"caffe-[a-z-]+", row["command"])[0])}
    if cuts:
        yield (
            "Training and scoring were cut short: "
            + "; ".join(f"`{name}` to {cut}" for name, cut in cuts.items())
            + "."
        )
        yield ""
    yield (
        f"Machine: {last['machine'].strip()}, {last['threads']} {'thread' if last['threads'] == '1' else 'threads'}, shared with "
        "other work. Wall-clock times are therefore rough; processor times are less so. Memory is the peak of the largest "
        "process, including mapped files; 12 MB is the least that can be measured. Disk is what a command added, less what it "
        "removed."
    )
    yield ""
    yield "| command | time, s | processor, s | memory, MB | disk, MB |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for row in rows:
        if row["number"]:
            values = (f"{row[name]:,.{digits}f}" for name, digits in SHOWN)
            yield f"| `{abbreviated(row['command'])}` | {' | '.join(values)} |"
    if len(by_number) < commands + 1:
        yield ""
        yield f"Not finished: {counted(commands + 1 - len(by_number), 'command')} left."
    yield ""
    yield from extrapolated(by_number, stages)
    yield (
        "Made by `experiments/imagenet/miniature.py`. `experiments/imagenet/results.csv` has the commands as they were run, and "
        "the last line of their output."
    )


def counted(number: int, thing: str) -> str:
    """``1 picture``, ``2 pictures``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def abbreviated(command: str, width: int = 72) -> str:
    """A command in at most about ``width`` characters, its middle left out; for a cell of a table."""
    command = command.replace("|", "\\|")  # else it would end the cell
    if len(command) <= width:
        return command
    words = command.split(" ")
    head, tail = [words.pop(0)], [words.pop()]
    while words and len(" ".join([*head, "…", *tail])) + len(words[-1]) < width:
        tail.insert(0, words.pop())
        if words and len(" ".join([*head, "…", *tail])) + len(words[0]) < width // 2:
            head.append(words.pop(0))
    return " ".join([*head, "…", *tail])


def extrapolated(rows: dict[int, dict[str, Any]], stages: list[dict[str, Any]]) -> Iterator[str]:
    """What the numbers say of the whole ILSVRC, where a proportion says it."""
    start = rows.get(0)
    lines = []
    for row in rows.values():
        part = re.search(r"/(train|val)_lmdb$", row["command"])
        if start and part and row["command"].startswith("caffe-convert-imageset"):
            times = PICTURES[part[1]] / row["pictures"]
            lines.append(
                f"- `{part[1]}_lmdb`, {PICTURES[part[1]]:,} pictures: {row['left_mb'] * times / 1e3:.1f} GB and "
                f"{(row['cpu_seconds'] - start['cpu_seconds']) * times / 60:.0f} minutes of one processor "
                f"(without the {start['cpu_seconds']:.0f} s that the command takes to start)."
            )
    if stages:
        decoder, whole = (each["max_iter"] // each["snapshot"] for each in (DECODING, FINETUNING))
        sizes = [each["snapshot_mb"] / 1e3 for each in stages]
        total = sum(size * (whole if each["step"] == 4 else decoder) for each, size in zip(stages, sizes, strict=True))
        lines.append(
            f"- A snapshot, weights and state together, takes {min(sizes):.1f} to {max(sizes):.1f} GB. The solvers write one "
            f"every {FINETUNING['snapshot']:,} iterations and none is deleted: {len(stages)} trainings leave {total:,.0f} GB. "
            "You only need the newest snapshot of an unfinished training, and the last weights of a finished one."
        )
    if lines:
        yield "For the whole of ILSVRC 2012, extrapolated in proportion, not measured:"
        yield ""
        yield from lines
        yield ""
        yield (
            "The times of training and scoring are not extrapolated, because they belong on a GPU. Nor is their memory, which "
            "grows with the batch."
        )
        yield ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is missing, then write the section of the page; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", default="", metavar="ZIP", help="photographs, WNID_WORDS.JPEG, one a class")
    parser.add_argument("--work", type=Path, default=Path("work/imagenet"), help="folder (default: %(default)s)")
    parser.add_argument("--iterations", type=int, default=1, help="of each training (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1, help="pictures of a batch (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=2, help="pictures that are scored (default: %(default)s)")
    parser.add_argument("--until", type=int, metavar="N", help="only the first N commands")
    parser.add_argument(
        "--results", type=Path, default=HERE / "results.csv", help="table (default: beside this script)"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs/imagenet.md", help="(default: docs/imagenet.md)")
    parser.add_argument("--draw", action="store_true", help="only write the page")
    args = parser.parse_args(argv)
    if not args.draw:
        measure(args)
    draw(args.results, args.page)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CaffeError as error:
        sys.exit(f"miniature: {error}")
    except KeyboardInterrupt:
        sys.exit("miniature: stopped; the same command goes on")
