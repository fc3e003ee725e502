#!/usr/bin/env python
"""The paper's comparison on CIFAR-10: six variants and a fair baseline, over seeds and two sizes of training set.

    python tools/get_cifar10.py && python experiments/cifar10/run.py

Stop it where you like; the same command goes on. Rows are appended to results/*.csv as they are done, and what has its rows
there is not run again. Started twice, two processes share the work: each takes the next seed that nobody works at.
--draw writes the section of docs/results.md from the tables alone, --status says what is done.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from config import FULL, KINDS, OBJECTIVES, SMOKE, VARIANTS, Config, Size
from report import draw
from results_table import machine
from run_tools import run_tool
from table import tables

from pycaffe_compat.data.cifar10 import Pictures, write_database
from pycaffe_compat.errors import CaffeError, DataError
from pycaffe_compat.files import atomic_path
from pycaffe_compat.swwae import vgg
from pycaffe_compat.swwae.blocks import lmdb_layers
from pycaffe_compat.swwae.evaluate import evaluate
from pycaffe_compat.swwae.pictures import read_images
from pycaffe_compat.swwae.prototxt import net_text, solver_text
from pycaffe_compat.swwae.run_folder import BASELINE

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MEAN, SCALE = (
    (113.9, 123.0, 125.3),
    1 / 64,
)  # BGR, of CIFAR-10's training pictures; their standard deviation is about 64
EDGE = 32
WAIT = 5  # seconds between looks at what another process does
PRETRAINED = "step1"
RUNS = {BASELINE: [BASELINE]} | {kind: [f"{kind}_{objective}" for objective in OBJECTIVES] for kind in KINDS}


@dataclass
class Experiment:
    """One configuration in its folders.

    Attributes:
        config: what is run.
        data: the folder with ``train_lmdb`` and ``test_lmdb``.
        work: databases, run folders, snapshots; may be thrown away.
        results: the tables.
    """

    config: Config
    data: Path
    work: Path
    results: Path

    def __post_init__(self) -> None:
        for folder in (self.work, self.results):
            folder.mkdir(parents=True, exist_ok=True)
        self.tables = tables(self.results)
        self._check_configuration()

    def _check_configuration(self) -> None:
        """Write the configuration beside the tables, or refuse tables of another one.

        Raises:
            DataError: they are of another one.
        """
        path, own = self.results / "config.json", json.loads(json.dumps(asdict(self.config)))
        if not path.exists():
            with atomic_path(path) as temporary:
                Path(temporary).write_text(json.dumps(own, indent=1) + "\n")
            return
        try:
            there = dict(json.loads(path.read_text()))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}: not the configuration of this experiment: {error}") from error
        differing = [name for name in dict.fromkeys([*own, *there]) if own.get(name) != there.get(name)]
        if differing:
            raise DataError(
                f"{self.results} holds results of another configuration: {', '.join(differing)} differ; "
                "choose another folder with --results"
            )

    # ---- what is done, and what is left

    def tried(self) -> dict[tuple[int, str, float, float], int]:
        """The errors on the validation pictures, by seed, variant, rate and strength."""
        return {
            (row["seed"], row["variant"], row["rate"], row["strength"]): row["wrong"]
            for row in self.tables.choice.rows()
        }

    def to_try(self, wrong: dict[tuple[int, str, float, float], int]) -> list[tuple[int, str, float, float]]:
        """What is left to be tried: every rate with the baseline, then every strength at the best rate."""
        config = self.config
        rates = [(seed, BASELINE, rate, 0.0) for seed in config.choice_seeds for rate in config.rates]
        if left := [each for each in rates if each not in wrong]:
            return left
        rate = self._best_rate(wrong)
        strengths = [
            (seed, name, rate, each)
            for seed in config.choice_seeds
            for name in config.chosen_with
            for each in config.strengths
        ]
        return [each for each in strengths if each not in wrong]

    def _best_rate(self, wrong: dict[tuple[int, str, float, float], int]) -> float:
        seeds = self.config.choice_seeds
        return min(self.config.rates, key=lambda rate: sum(wrong[seed, BASELINE, rate, 0.0] for seed in seeds))

    def chosen(self) -> tuple[float, float] | None:
        """The rate and the strength with the fewest errors on the validation pictures; None until all were tried."""
        config, wrong = self.config, self.tried()
        if self.to_try(wrong):
            return None
        rate = self._best_rate(wrong)

        def total(strength: float) -> int:
            return sum(wrong[seed, name, rate, strength] for seed in config.choice_seeds for name in config.chosen_with)

        return rate, min(config.strengths, key=total)

    def missing(self, name: str, seed: int) -> tuple[list[str], bool]:
        """The variants without errors at a size and seed, and whether reconstructions are left to be measured."""
        rows = self.tables.errors.rows()
        done = {row["variant"] for row in rows if (row["size"], row["seed"]) == (name, seed)}
        wanted = name == self.config.reconstructed_at and seed in self.config.reconstruction_seeds
        measured = any(row["seed"] == seed for row in self.tables.reconstruction.rows())
        return [each for each in (PRETRAINED, BASELINE, *VARIANTS) if each not in done], wanted and not measured

    def status(self) -> Iterator[str]:
        """Lines about what is done."""
        yield f"rate and strength: {self.chosen() or 'not chosen yet'}"
        for name, size in self.config.sizes.items():
            for seed in size.seeds:
                variants, reconstructing = self.missing(name, seed)
                left = [*variants, *(["reconstructions"] if reconstructing else [])]
                yield f"{name}, seed {seed}: {'left: ' + ', '.join(left) if left else 'done'}"
        yield f"so far {sum(float(row['seconds']) for row in self.tables.times.rows()) / 60:.0f} minutes of training and scoring"

    def run(self) -> None:
        """Do what is left to do."""
        while self.chosen() is None:
            if not self._try_next():
                time.sleep(WAIT)  # another process is at it
        for name, size in self.config.sizes.items():
            for seed in size.seeds:
                if any(self.missing(name, seed)):
                    with self._alone(f"{name}_{seed}") as free:
                        if free:
                            self._seed(name, size, seed)

    # ---- the parts

    def _try_next(self) -> bool:
        """Try the next rate or strength of a seed that nobody else is at; return whether there is one."""
        for seed in dict.fromkeys(each[0] for each in self.to_try(self.tried())):
            with self._alone(f"choice_{seed}") as free:
                left = [each for each in self.to_try(self.tried()) if each[0] == seed] if free else []
                if left:
                    self._try(*left[0])
                    return True
        return False

    def _try(self, seed: int, variant: str, rate: float, strength: float) -> None:
        """Count the errors on the validation pictures with a rate and a strength."""
        name = self.config.chosen_on
        size = self.config.sizes[name]
        base = self._base(f"choice_{name}_seed{seed}", size, seed, "validation_lmdb")
        with self._timed(f"choice, seed {seed}: {variant}, rate {rate:g}, strength {strength:g}"):
            weights = self._pretrained(base)
            run = base / f"{variant}_rate{rate:g}_strength{strength:g}"
            final = self._train(base, run, weights, [variant], rate, strength, seed, size)[variant]
            found = evaluate(str(base / "net.prototxt"), final, base / "validation_lmdb", edge=EDGE, progress=False)
        self.tables.choice.append([(seed, variant, rate, strength, found.images, found.wrong1)])

    def _seed(self, name: str, size: Size, seed: int) -> None:
        """Everything of one seed at one size."""
        variants, reconstructing = self.missing(name, seed)
        rate, strength = self.chosen() or (0.0, 0.0)
        base = self._base(f"{name}_seed{seed}", size, seed, "")
        with self._timed(f"{name} {seed}: step 1"):
            weights = self._pretrained(base)
        if PRETRAINED in variants:
            self._score(base, name, seed, PRETRAINED, weights)
        for kind, own in RUNS.items():
            if set(own) & set(variants):
                with self._timed(f"{name} {seed}: {kind}"):
                    finals = self._train(base, base / kind, weights, own, rate, strength, seed, size)
                for variant in own:
                    if variant in variants:
                        self._score(base, name, seed, variant, finals[variant])
        if reconstructing:
            with self._timed(f"{name} {seed}: reconstructions"):
                self._reconstruct(base, weights, rate, strength, seed, size)

    def _score(self, base: Path, name: str, seed: int, variant: str, weights: str) -> None:
        """Write the errors of a classifier on test and training pictures, all rows at once."""
        rows = []
        for data, mode in (("test", "crop"), ("test", "convolution"), ("train", "crop")):
            database = base / "train_lmdb" if data == "train" else self.data / "test_lmdb"
            found = evaluate(
                str(base / "net.prototxt"),
                weights,
                database,
                mode,
                edge=EDGE,
                limit=self.config.scored,
                progress=False,
            )
            rows.append((name, seed, variant, data, mode, found.images, found.wrong1))
        self.tables.errors.append(rows)

    def _reconstruct(self, base: Path, weights: str, rate: float, strength: float, seed: int, size: Size) -> None:
        """Train decoders from each pooling, the encoder of step 1 fixed, and measure what they make of test pictures."""
        runs = []
        for depth, (convolutions, _) in enumerate(self.config.stages, 1):
            run = base / f"decoders_{depth}"
            source = ("--source", f"conv{depth}_{convolutions}", "--until", "3")
            self._train(base, run, weights, ["sae_first", "swwae_first"], rate, strength, seed, size, source)
            runs += ["--run", run]
        options = ("--crop", self.config.crop, "--limit", self.config.reconstructed, "--overwrite")
        self._tool(base, "reconstruct", self.data / "test_lmdb", *runs, *options, "--out", base / "look")
        with open(base / "look/quality.csv", newline="") as file:
            found = [
                (
                    seed,
                    row["title"].partition("-")[0].lower(),
                    row["depth"],
                    row["pictures"],
                    row["psnr_mean"],
                    row["ssim_mean"],
                )
                for row in csv.DictReader(file)
            ]
        self.tables.reconstruction.append(found)
        grid = self.results / "grid.png"
        if not grid.exists():
            shutil.copy(base / "look/grid.png", grid)

    # ---- training

    def _base(self, name: str, size: Size, seed: int, validation: str) -> Path:
        """Make a folder with the databases, the net and the solvers of a seed; return it."""
        config, base = self.config, self.work / name
        base.mkdir(exist_ok=True)
        self._make_databases(base, size, seed, validation)
        tested = base / validation if validation else self.data / "test_lmdb"
        data = lmdb_layers(
            *(str(base / "train_lmdb"), str(tested), (config.batch, 50)),
            crop_size=config.crop,
            mirror=True,
            mean_value=list(MEAN),
            scale=SCALE,
        )
        net = vgg(
            inputs=data,
            stages=config.stages,
            hidden=config.hidden,
            classes=10,
            filler={"type": "msra"},
            name="VGG_CIFAR10",
        )
        about = f"A VGG for random crops of CIFAR-10: {len(config.stages)} poolings."
        (base / "net.prototxt").write_text(net_text(net, about, "experiments/cifar10/run.py"))
        self._write_solver(base, PRETRAINED, size.images * size.pretrain, config.pretrain_rate, seed, decay=True)
        self._write_solver(base, "decode", size.images * size.decode, config.decode_rate, seed, decay=False)
        return base

    def _make_databases(self, base: Path, size: Size, seed: int, validation: str) -> None:
        """Write the training set of a seed, and the validation pictures where they are wanted."""
        if (base / "databases").exists():
            return
        config = self.config
        pictures = read_all(self.data / "train_lmdb")
        order = np.random.RandomState(0).permutation(len(pictures.labels))
        if len(order) < config.validation + size.images:
            raise DataError(
                f"{self.data}/train_lmdb has {len(order)} pictures; {config.validation} to validate with and "
                f"{size.images} to train on are wanted"
            )
        drawn = np.random.RandomState(1000 + seed).permutation(order[config.validation :])[: size.images]
        wanted = {"train_lmdb": drawn} | ({validation: order[: config.validation]} if validation else {})
        for name, numbers in wanted.items():
            shutil.rmtree(base / name, ignore_errors=True)
            write_database(pictures, str(base / name), numbers)
        (base / "databases").touch()

    def _write_solver(self, base: Path, name: str, images: int, rate: float, seed: int, *, decay: bool) -> Path:
        iterations = max(1, images // self.config.batch)
        text = solver_text(
            f"{name}: {iterations} iterations.",
            str(base / "net.prototxt"),
            str(base / f"{name}/snapshot"),
            type="Adam",
            base_lr=rate,
            lr_policy="poly",
            power=1,
            max_iter=iterations,
            momentum=0.9,
            momentum2=0.999,
            weight_decay=self.config.weight_decay if decay else 0,
            display=max(1, iterations // 20),
            average_loss=20,
            snapshot=max(1, iterations // 2),
            random_seed=seed + 2,  # at least 1: seeds of the choice start at -1
            solver_mode="CPU",
        )
        path = base / f"{name}.prototxt"
        path.write_text(text)
        return path

    def _pretrained(self, base: Path) -> str:
        """Train step 1 as far as it is not trained; return its weights."""
        (base / PRETRAINED).mkdir(exist_ok=True)
        solver = base / f"{PRETRAINED}.prototxt"
        iterations = int(solver.read_text().partition("max_iter: ")[2].split()[0])
        weights = base / f"{PRETRAINED}/snapshot_iter_{iterations}.caffemodel"
        if not weights.exists():
            self._tool(base, "train_net", "--solver", solver, "--resume")
        return str(weights)

    def _train(
        self,
        base: Path,
        run: Path,
        weights: str,
        variants: Sequence[str],
        rate: float,
        strength: float,
        seed: int,
        size: Size,
        more: Sequence[str] = (),
    ) -> dict[str, str]:
        """Train variants through the paper's steps in a run folder; return the final weights of each."""
        name = f"finetune_{rate:g}"
        solver = self._write_solver(base, name, size.images * size.finetune, rate, seed, decay=True)
        options = ("--solver", solver, "--decoder-solver", base / "decode.prototxt", "--filler", "msra")
        said = self._tool(
            *(base, "train_stages", "--net", base / "net.prototxt", "--variant", ",".join(variants)),
            *("--weights", weights, "--out", run, "--strength", strength or 0.5, *options, *more),
        )
        lines = (line.removeprefix("trained ").partition(": ") for line in said.splitlines())
        return {variant: path for variant, _, path in lines if variant in variants}

    def _tool(self, base: Path, name: str, *arguments: object) -> str:
        """Run a tool of this project; return its standard output. Both outputs are in ``log`` in the folder."""
        return run_tool(name, *arguments, log=base / "log")

    # ---- several processes

    @contextlib.contextmanager
    def _timed(self, job: str) -> Iterator[None]:
        """Write how long a job took, unless it failed."""
        print(job, flush=True)
        began = time.monotonic()
        yield
        threads = os.environ.get("OMP_NUM_THREADS", os.cpu_count())
        self.tables.times.append([(job, f"{time.monotonic() - began:.0f}", threads, machine())])

    @contextlib.contextmanager
    def _alone(self, job: str) -> Iterator[bool]:
        """Whether nobody else works at a job, while the block lasts."""
        with open(self.work / f"{job}.lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True


def read_all(path: Path) -> Pictures:
    """Read every picture of an LMDB."""
    images, labels = zip(*read_images(path), strict=True)
    return Pictures(np.stack(images), np.array(labels))


def main() -> int:
    """Run what is missing, then draw; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=Path("data/cifar10"), help="what get_cifar10.py made (default: %(default)s)"
    )
    parser.add_argument("--work", type=Path, default=Path("work/cifar10"), help="folder (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="tables (default: beside this script)")
    parser.add_argument(
        "--docs", type=Path, default=ROOT / "docs", help="folder of results.md and figures/ (default: docs)"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a few pictures and iterations, to see that all of it runs"
    )
    parser.add_argument("--status", action="store_true", help="only say what is done")
    parser.add_argument("--draw", action="store_true", help="only draw")
    args = parser.parse_args()
    config: Any = SMOKE if args.smoke else FULL
    if args.smoke and args.results == HERE / "results":
        parser.error("--smoke needs --results and --docs of its own: its numbers mean nothing")
    for name in () if args.draw or args.status else ("train_lmdb", "test_lmdb"):
        if not (args.data / name).is_dir():
            raise DataError(f"no {args.data / name}: python tools/get_cifar10.py --out {args.data} makes it")
    experiment = Experiment(config, args.data, args.work, args.results)
    if args.status:
        print("\n".join(experiment.status()))
        return 0
    if not args.draw:
        experiment.run()
    draw(config, args.results, args.docs, experiment.chosen())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CaffeError as error:
        sys.exit(f"cifar10: {error}")
    except KeyboardInterrupt:
        sys.exit("cifar10: stopped; the same command goes on")
