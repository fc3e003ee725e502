#!/usr/bin/env python
"""Real photographs through SAE and SWWAE decoders, one trained for each pooling of an encoder, with a random encoder as control.

    python experiments/photographs/run.py --photographs imagenet1000_256.zip --cifar10 cifar10_jpeg.npz

What is finished is kept: the same command goes on after an interruption. --draw makes the chart and the section of
docs/results.md anew from results.csv. Files of the run go into --work.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2

from pycaffe_compat.data.imageset import ConvertOptions, convert_imageset
from pycaffe_compat.errors import CaffeError, DataError, require_file
from pycaffe_compat.files import atomic_path
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, read_net
from pycaffe_compat.swwae import vgg
from pycaffe_compat.swwae.blocks import lmdb_layers
from pycaffe_compat.swwae.decoder import strip_decoder, up_to
from pycaffe_compat.swwae.encoder import image_shape, read_encoder
from pycaffe_compat.swwae.figures import Line, depth_figure
from pycaffe_compat.swwae.prototxt import net_text

sys.path.insert(0, str(Path(__file__).parents[1]))
from results_page import write_section
from run_tools import run_tool

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

HELD_OUT = 10  # every tenth photograph, by name
STORED, CROP = 144, 128  # the shorter edge of the stored photographs; the size that is trained and shown
STAGES = ((2, 16), (2, 32), (2, 64), (2, 64))
MEAN, SCALE = (
    (113.9, 123.0, 125.3),
    1 / 64,
)  # BGR, of CIFAR-10's training pictures; their standard deviation is about 64
BATCH, RATE = 8, 3e-3
ROWS, WIDTH = 4, 1200  # of the grid: its photographs, and its pixels in the repository
ENCODERS = {"trained": "trained", "random": "random weights"}
SOLVER = """type: "Adam" base_lr: {rate} lr_policy: "poly" power: 1 max_iter: {iterations} momentum: 0.9 momentum2: 0.999
weight_decay: {decay} display: 20 average_loss: 20 snapshot: {snapshot} test_iter: {tested} test_interval: {iterations}
test_initialization: false random_seed: 1
"""


def main() -> int:
    """Run what is missing, then draw; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", metavar="ZIP", help="an archive of photographs")
    parser.add_argument(
        "--cifar10", metavar="NPZ", help="CIFAR-10 as JPEGs, to train the encoder (default: download it)"
    )
    parser.add_argument(
        "--encoder",
        nargs=2,
        metavar=("NET", "WEIGHTS"),
        help="a trained classification net instead of one trained here",
    )
    parser.add_argument("--work", type=Path, default=Path("work/photographs"), help="folder (default: %(default)s)")
    parser.add_argument(
        "--iterations", type=int, default=300, help="of each decoder's two steps (default: %(default)s)"
    )
    parser.add_argument("--encoder-iterations", type=int, default=4000, help="of the encoder (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="only the first photographs")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: %(default)s)")
    parser.add_argument(
        "--results", type=Path, default=HERE / "results.csv", help="the table (default: beside this script)"
    )
    parser.add_argument(
        "--docs", type=Path, default=ROOT / "docs", help="folder of results.md and figures/ (default: docs)"
    )
    parser.add_argument("--draw", action="store_true", help="only draw")
    args = parser.parse_args()
    if not args.draw:
        if not args.photographs:
            parser.error("--photographs ZIP is needed")
        measure(args)
    draw(args.results, args.docs)
    return 0


def measure(args: argparse.Namespace) -> None:
    """Train encoder and decoders as far as they are missing, and write the CSV."""
    began, work = time.monotonic(), args.work
    work.mkdir(parents=True, exist_ok=True)
    trained_on, held_out = make_databases(args.photographs, work, args.limit)
    print(f"{trained_on} photographs to train on, {held_out} held out", flush=True)
    sources, about = make_encoders(args, work)
    (work / "decode.prototxt").write_text(
        SOLVER.format(rate=RATE, iterations=args.iterations, snapshot=args.iterations, tested=5, decay=0)
    )
    runs = {(encoder, source): work / f"runs/{encoder}_{source}" for encoder in ENCODERS for source in sources}
    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(lambda each: train_decoders(work, *each), runs.items()))
    rows = []
    for encoder in ENCODERS:
        look = work / f"look_{encoder}"
        folders = [word for (name, _), run in runs.items() if name == encoder for word in ("--run", run)]
        run_tool(
            *("reconstruct", work / "held_out", *folders, "--crop", CROP, "--rows", ROWS, "--out", look, "--overwrite"),
            log=work / "reconstruct.log",
        )
        with open(look / "quality.csv", newline="") as file:
            rows += [
                {"encoder": encoder, **row, "iterations": args.iterations, "photographs": trained_on, "about": about}
                for row in csv.DictReader(file)
            ]
        figures = args.docs / "figures"
        figures.mkdir(parents=True, exist_ok=True)
        write_smaller(look / "grid.png", figures / f"photographs_{encoder}.png")
    with atomic_path(args.results) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{args.results}: {len(rows)} rows; this sitting took {(time.monotonic() - began) / 60:.1f} minutes")


def write_smaller(picture: Path, target: Path) -> None:
    """Write a picture at most :data:`WIDTH` pixels wide, for the repository."""
    image = cv2.imread(str(picture))
    if image.shape[1] > WIDTH:
        size = (WIDTH, round(image.shape[0] * WIDTH / image.shape[1]))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    with atomic_path(target) as temporary:
        cv2.imwrite(temporary, image)


def make_databases(archive: str, work: Path, limit: int | None) -> tuple[int, int]:
    """Unpack the photographs into two folders and make LMDBs of both; return how many each holds."""
    require_file(archive, "archive of photographs")
    counts = []
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png")))[:limit]
        if len({os.path.basename(name) for name in names}) < len(names):
            raise DataError(f"{archive} holds several photographs of one name in different folders; names must differ")
        if len(names) < HELD_OUT:
            raise DataError(f"{archive} holds {len(names)} photographs; {HELD_OUT} are the fewest")
        for part in ("train", "held_out"):
            own = [name for number, name in enumerate(names) if (number % HELD_OUT == 0) == (part == "held_out")]
            counts.append(len(own))
            folder, database = work / part, work / f"{part}_lmdb"
            if database.exists():
                continue
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name in own:
                (folder / os.path.basename(name)).write_bytes(file.read(name))
            listing = work / f"{part}.txt"
            listing.write_text("".join(f"{os.path.basename(name)} 0\n" for name in own))
            convert_imageset(f"{folder}/", str(listing), str(database), ConvertOptions(shorter_edge=STORED))
    return counts[0], counts[1]


def make_encoders(args: argparse.Namespace, work: Path) -> tuple[list[str], str]:
    """Make ``encoder.prototxt``, ``trained.caffemodel`` and ``random.caffemodel``.

    Returns:
        The layers that are pooled, and what the encoder is, in words.
    """
    net, weights, about = (
        (*args.encoder, f"that of {os.path.basename(args.encoder[1])}") if args.encoder else train_encoder(args, work)
    )
    plain = strip_decoder(read_net(net))
    units = up_to(read_encoder(plain, shape=image_shape(plain)), "")
    transform = next((each.transform_param for each in plain.layer if each.HasField("transform_param")), None)
    shown = {"mean_value": list(transform.mean_value), "scale": transform.scale} if transform is not None else {}
    inputs = lmdb_layers(
        *(str(work / "train_lmdb"), str(work / "held_out_lmdb"), (BATCH, 20)), crop_size=CROP, mirror=True, **shown
    )
    kept = [each for number, each in enumerate(plain.layer) if each.bottom and number <= units[-1].last]
    encoder = caffe_pb2.NetParameter(name=plain.name, layer=[*inputs, *kept])
    (work / "encoder.prototxt").write_text(
        net_text(encoder, f"The convolutions of {net}, for photographs of {CROP}x{CROP}.")
    )
    if not (work / "trained.caffemodel").exists():
        shutil.copy(weights, work / "trained.caffemodel")
    if not (work / "random.caffemodel").exists():
        import torch

        torch.manual_seed(1)
        built = Net(encoder, "TRAIN")
        built.save(work / "random.caffemodel")
        built.close()
    return [unit.name for unit in units if unit.pool is not None], about


def train_encoder(args: argparse.Namespace, work: Path) -> tuple[str, str, str]:
    """Train a small VGG on CIFAR-10, unless that is done; return its net, its weights, and what it is, in words."""
    weights = work / f"encoder_iter_{args.encoder_iterations}.caffemodel"
    net = work / "cifar10.prototxt"
    if not weights.exists():
        print("training the encoder on CIFAR-10", flush=True)
        data = work / "cifar10"
        run_tool(
            "get_cifar10", "--out", data, *(("--npz", args.cifar10) if args.cifar10 else ()), log=work / "cifar10.log"
        )
        inputs = lmdb_layers(
            *(f"{data}/train_lmdb", f"{data}/test_lmdb", (50, 100)),
            crop_size=32,
            mirror=True,
            mean_value=MEAN,
            scale=SCALE,
        )
        param = vgg(
            inputs=inputs, stages=STAGES, hidden=(128,), classes=10, filler={"type": "msra"}, name="VGG_CIFAR10"
        )
        net.write_text(net_text(param, "A small VGG for CIFAR-10."))
        solver = SOLVER.format(rate=2e-3, iterations=args.encoder_iterations, snapshot=500, tested=100, decay=5e-4)
        (work / "cifar10_solver.prototxt").write_text(f'net: "{net}"\nsnapshot_prefix: "{work}/encoder"\n{solver}')
        run_tool("train_net", "--solver", work / "cifar10_solver.prototxt", "--resume", log=work / "cifar10.log")
    right = re.findall(r"Test net output #\d+: accuracy = (\S+)", (work / "cifar10.log").read_text())[-1]
    widths = ", ".join(str(width) for _, width in STAGES)
    about = (
        f"a small VGG (convolutions of {widths} channels, two a stage), trained for {args.encoder_iterations} iterations to "
        f"classify CIFAR-10, whose pictures have 32×32 pixels ({float(right):.1%} of the test pictures are right)"
    )
    return str(net), str(weights), about


def train_decoders(work: Path, key: tuple[str, str], run: Path) -> None:
    """Train the two decoders of an encoder and a layer."""
    began = time.monotonic()
    options = ("--net", work / "encoder.prototxt", "--weights", work / f"{key[0]}.caffemodel", "--filler", "xavier")
    run.parent.mkdir(exist_ok=True)
    run_tool(
        *(
            "train_stages",
            "--variant",
            "sae_first,swwae_first",
            "--source",
            key[1],
            "--until",
            3,
            "--out",
            run,
            *options,
        ),
        *("--decoder-solver", work / "decode.prototxt"),
        log=work / f"{key[0]}_{key[1]}.log",
    )
    print(f"{key[0]} encoder, decoders from {key[1]}: {time.monotonic() - began:.0f} s", flush=True)


# ---- what is drawn


def draw(results: Path, docs: Path) -> None:
    """Draw the chart and write the section of results.md from the table."""
    with open(require_file(results, "results"), newline="") as file:
        rows = list(csv.DictReader(file))
    labels = list(dict.fromkeys(row["label"] for row in sorted(rows, key=lambda row: int(row["depth"]))))
    charts: dict[str, dict[str, Line]] = {}
    for measure, column in (("PSNR, dB", "psnr_mean"), ("SSIM", "ssim_mean")):
        for encoder in ENCODERS:
            for title in dict.fromkeys(row["title"] for row in rows):
                own = [row for row in rows if (row["encoder"], row["title"]) == (encoder, title)]
                line = Line([row["label"] for row in own], [float(row[column]) for row in own], title.startswith("SAE"))
                charts.setdefault(measure, {})[f"{title.partition('-')[0]}, {ENCODERS[encoder]}"] = line
    (docs / "figures").mkdir(parents=True, exist_ok=True)
    depth_figure(docs / "figures" / "photographs_quality.png", charts, labels, "decoded from")
    write_section(docs / "results.md", "photographs", section_of(rows, labels))


def section_of(rows: list[dict[str, str]], labels: list[str]) -> Iterator[str]:
    """The lines of the section of docs/results.md."""
    first = rows[0]
    yield "## Photographs, reconstructed from each pooling"
    yield ""
    yield (
        f"These are {first['pictures']} photographs, {CROP}×{CROP} pixels, that no decoder was trained on. For each pooling, "
        f"kind and encoder, we trained a separate decoder on {first['photographs']} other photographs, with the encoder fixed. "
        "We trained first the layerwise decoder and then the whole one for the image only (steps 2 and 3 of the paper), for "
        f"{first['iterations']} iterations each with {BATCH} photographs. The encoder is {first['about']}. The control uses the "
        "same encoder with random weights."
    )
    yield ""
    yield (
        "Limits: the decoders were trained for a far shorter time than the paper's. Their learning rate and weight filler were "
        "chosen after looking at their results on these same photographs; none were set aside for that. There is one run of "
        "each, so differences between neighbours can be chance."
    )
    yield ""
    yield "![Photographs, and what SAE and SWWAE decoders reconstruct from each pooling](figures/photographs_trained.png)"
    yield ""
    yield "![PSNR and SSIM for each pooling](figures/photographs_quality.png)"
    yield ""
    yield f"| encoder | decoder | {' | '.join(f'{label}: PSNR | SSIM' for label in labels)} |"
    yield f"| --- | --- | {' | '.join('---: | ---:' for _ in labels)} |"
    for encoder, words in ENCODERS.items():
        for title in dict.fromkeys(row["title"] for row in rows):
            cells = [
                f"{float(row['psnr_mean']):.2f} | {float(row['ssim_mean']):.3f}"
                for label in labels
                for row in rows
                if (row["encoder"], row["title"], row["label"]) == (encoder, title, label)
            ]
            yield f"| {words} | {title.partition('-')[0]} | {' | '.join(cells)} |"
    yield ""
    yield from findings(rows, labels)
    yield ""
    yield "The control, with an encoder of random weights:"
    yield ""
    yield "![The same with an encoder of random weights](figures/photographs_random.png)"
    yield ""
    yield (
        "Made by `experiments/photographs/run.py`; the numbers are in `experiments/photographs/results.csv`. "
        "[swwae.md](swwae.md#reconstructions) defines PSNR and SSIM."
    )


def findings(rows: list[dict[str, str]], labels: list[str]) -> Iterator[str]:
    """What the numbers say of the paper's claim: with switches reconstructions stay good with depth, without they decay."""
    ssim = {(row["encoder"], row["title"].partition("-")[0], row["label"]): float(row["ssim_mean"]) for row in rows}
    for encoder, words in ENCODERS.items():
        top, deep = labels[0], labels[-1]
        sae, swwae = ([ssim[encoder, kind, label] for label in (top, deep)] for kind in ("SAE", "SWWAE"))
        ahead = sum(ssim[encoder, "SWWAE", label] > ssim[encoder, "SAE", label] for label in labels)
        yield (
            f"- Encoder {words}: from {top} to {deep}, SAE's SSIM goes from {sae[0]:.2f} to {sae[1]:.2f}, and SWWAE's from "
            f"{swwae[0]:.2f} to {swwae[1]:.2f}. SWWAE is better at {ahead} of {len(labels)} poolings."
        )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CaffeError as error:
        sys.exit(f"photographs: {error}")
