#!/usr/bin/env python
"""Times a Data layer against decoding (or copying) alone; writes benchmarks/data.md.

Usage: python benchmarks/bench_data.py IMAGES [WORK]

IMAGES is a folder or a zip of pictures; WORK (default: a temporary folder) keeps the LMDBs made from them. All figures of a
line come from the same run, take turns, and are the best of several rounds: compare them only with each other. Writes
``data.md``'s table to standard output.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from pycaffe_compat.data.batches import DatabaseReader, Shard
from pycaffe_compat.data.database import Database
from pycaffe_compat.data.datum import datum_to_array, parse_datum
from pycaffe_compat.data.imageset import ConvertOptions, convert_imageset
from pycaffe_compat.data.loader import Loader, default_threads
from pycaffe_compat.data.transformer import Transformer
from pycaffe_compat.proto import caffe_pb2, parse_text

BATCH, CROP, BATCHES, ROUNDS = 64, 224, 16, 5
LAYER = """
name: "data" type: "Data" top: "data" top: "label" phase: TRAIN
data_param {{ source: "{path}" batch_size: {batch} backend: LMDB }}
transform_param {{ crop_size: {crop} mirror: true mean_value: 103.939 mean_value: 116.779 mean_value: 123.68 }}
"""


def databases(images: Path, work: Path) -> dict[str, str]:
    """Make the LMDBs that are not there yet."""
    if images.suffix == ".zip":
        folder = work / "images"
        if not folder.exists():
            with zipfile.ZipFile(images) as archive:
                archive.extractall(folder)
        images = folder
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*") if path.is_file())
    (work / "list.txt").write_text("".join(f"{name} {i % 1000}\n" for i, name in enumerate(names)))
    made = {}
    for kind, options in {
        "jpeg": ConvertOptions(encoded=True),
        "raw": ConvertOptions(resize_height=256, resize_width=256),
    }.items():
        made[kind] = str(work / f"{kind}_lmdb")
        if not os.path.exists(made[kind]):
            convert_imageset(str(images), str(work / "list.txt"), made[kind], options)
    return made


def floor(kind: str, path: str, threads: int) -> Callable[[], None]:
    """Decode as many records and fill as much memory; for raw ones turn the crop into float. Nothing else."""
    records = [parse_datum(value) for _, value in Database(path)]
    outs = np.empty((4, BATCH, 3, CROP, CROP), np.float32)

    def work(thread: int) -> None:
        for i in range(thread, BATCH * BATCHES, threads):
            record, out = records[i % len(records)], outs[i // BATCH % 4, i % BATCH]
            if kind == "jpeg":
                cv2.imdecode(np.frombuffer(record.data, np.uint8), cv2.IMREAD_UNCHANGED)
                out.fill(1)
            else:
                np.copyto(out, datum_to_array(record)[:, 16 : 16 + CROP, 16 : 16 + CROP])

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))

    return run


def same_work(kind: str, path: str, threads: int) -> Callable[[], None]:
    """Decode as many records and transform each in the cache, into a whole batch: what a layer does with pixels, no more."""
    param = parse_text(LAYER.format(path=path, batch=BATCH, crop=CROP), caffe_pb2.LayerParameter)
    transformer = Transformer(param.transform_param, caffe_pb2.TRAIN)
    records = [parse_datum(value) for _, value in Database(path)]
    outs = torch.zeros(4, BATCH, 3, CROP, CROP)
    windows = np.array([[16, 16, mirror] for mirror in (0, 1)], np.int32)

    def work(thread: int) -> None:
        for i in range(2 * thread, BATCH * BATCHES, 2 * threads):
            pair = [datum_to_array(records[at % len(records)]) for at in (i, i + 1)]
            transformer.transform(pair, windows, outs[i // BATCH % 4, i % BATCH : i % BATCH + 2])

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))

    return run


def decoding(path: str, threads: int) -> Callable[[], None]:
    """Decode as many records, and nothing else."""
    records = [parse_datum(value).data for _, value in Database(path)]

    def work(thread: int) -> None:
        for i in range(thread, BATCH * BATCHES, threads):
            cv2.imdecode(np.frombuffer(records[i % len(records)], np.uint8), cv2.IMREAD_UNCHANGED)

    def run() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(threads)))

    return run


class Feed:
    """Batches of a layer, from when all that was made ahead is used up: floats, or bytes for a device to transform."""

    def __init__(self, path: str, threads: int, as_bytes: bool = False) -> None:
        param = parse_text(LAYER.format(path=path, batch=BATCH, crop=CROP), caffe_pb2.LayerParameter)
        reader = DatabaseReader(path, Transformer(param.transform_param, caffe_pb2.TRAIN), BATCH, None)
        reader.shapes()
        reader.as_bytes = as_bytes
        self.loader = Loader(partial(reader.begin, Shard(1)), BATCH, param.data_param.prefetch, threads)
        self.ahead = 1 + param.data_param.prefetch

    def warm(self) -> None:
        for _ in range(self.ahead):
            self.loader.next()

    def __call__(self) -> None:
        for _ in range(BATCHES):
            self.loader.next()

    def close(self) -> None:
        self.loader.close()


def measure(parts: dict[str, Callable[[], None]]) -> dict[str, tuple[float, float]]:
    """Run the parts in turn; return images a second and CPU microseconds an image, each the best of the rounds."""
    best = {name: (0.0, float("inf")) for name in parts}
    for _ in range(ROUNDS):
        for name, run in parts.items():
            if isinstance(run, Feed):
                run.warm()
            start, cpu = time.perf_counter(), time.process_time()
            run()
            rate = BATCH * BATCHES / (time.perf_counter() - start)
            cost = (time.process_time() - cpu) / (BATCH * BATCHES) * 1e6
            best[name] = (max(best[name][0], rate), min(best[name][1], cost))
            if isinstance(run, Feed):
                run.close()
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("work", type=Path, nargs="?")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} processors, OpenCV {cv2.__version__}, numpy {np.__version__}.\n")
    print("| | | images/s | | | | CPU µs an image | | | | | | |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    print(
        "| records | threads | floor | layer | layer/floor | bytes "
        "| decoding | floor | same | layer | floor/layer | same/layer | bytes |"
    )
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(exist_ok=True)
        for kind, path in databases(args.images, work).items():
            for threads in sorted({1, default_threads()}):
                parts: dict[str, Callable[[], None]] = {
                    "floor": floor(kind, path, threads),
                    "same": same_work(kind, path, threads),
                    "layer": Feed(path, threads),
                    "bytes": Feed(path, threads, as_bytes=True),
                }
                if kind == "jpeg":
                    parts["decoding"] = decoding(path, threads)
                best = measure(parts)
                (floor_rate, floor_cost), (rate, cost) = best["floor"], best["layer"]
                bytes_rate, bytes_cost = best["bytes"]
                same_cost = best["same"][1]
                alone = best.get("decoding", (0.0, float("nan")))[1]
                line = (
                    f"| {kind} | {threads} | {floor_rate:,.0f} | {rate:,.0f} | {rate / floor_rate:.2f} | {bytes_rate:,.0f} "
                    f"| {alone:.0f} | {floor_cost:.0f} | {same_cost:.0f} | {cost:.0f} "
                    f"| {floor_cost / cost:.2f} | {same_cost / cost:.2f} | {bytes_cost:.0f} |".replace("nan", "–")
                )
                print(line, flush=True)


if __name__ == "__main__":
    main()
