#!/usr/bin/env python
"""Times a Data layer against decoding (or copying) alone; writes benchmarks/data.md.

Usage: python benchmarks/bench_data.py IMAGES [WORK]

IMAGES is a folder or a zip of pictures; WORK (default: a temporary folder) keeps the LMDBs made from them. All figures of a
line come from the same run, take turns, and are the best of several rounds: compare them only with each other.
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
NOTES = """
## Prediction, before it was measured

One thread, from timing the parts alone (microseconds an image): JPEG decoding 540; splitting the crop into planes 15,
to float 12, mean 10, mirror 5 (10 in half of the images); finding, parsing and handing over a record about 15. So a
JPEG should take 597, which is **0.90** of the rate of decoding alone. A raw record has only 12 + 10 + 5 + 15 = 42, against
12 for turning the crop into float: **0.29** of that rate, and 14 times that of JPEGs.

## What was wrong with it

The parts had been timed on memory in the cache. A batch is 38 MB, and several wait at a time, so every image's 600 KB of
floats go to memory that no cache holds: that alone costs as much as all the arithmetic that was predicted. It is not to be
avoided while batches are float32 in CPU memory, so "floor" counts it: decoding (or converting) into a whole batch.

## One operator instead of numpy calls

Copying, subtracting and mirroring a plane with numpy and OpenCV took 124 µs for an image with interleaved pixels that was in
the cache, 25 to 33 for a planar one; the operator takes 20 to 25, and writes to memory about as fast as it can be filled. What
mattered more than the arithmetic: a mirrored row must not be read backwards. That made an image five times as slow as turning
the row around in the cache.

Before, on the same machine on the same day: 371 to 377 µs for a JPEG (0.85 to 0.87 of the floor), 41 to 47 for a raw record
(0.59 to 0.73).

## Past the cache, and records in one call

Predicted: with stores that do not read a line before they write it, and one tensor for all records of a call instead of one
for each, a raw record comes to 0.95 of the floor and a JPEG to 0.96.

Measured then: 0.92 for a JPEG and 0.82 to 1.03 for a raw record, on an AMD EPYC.

## Where the rest of a JPEG's time goes

The table above is of another processor, an Intel Xeon. There the parts were timed alone too (CPU µs an image, one thread, into
memory that no cache holds): decoding 480, transforming 87 to 94, finding the record 2, parsing its header 2, choosing the
window 2, beginning the batch 4. The floor's `fill` takes 66: it writes the same memory and reads no pixels. To split
interleaved pixels and convert them costs 25 more; raw records, which are planar, take 57.

Of the 79 that a JPEG took above the floor, 26 were therefore work that the floor does not count ("same"), and 10 to 20
Python. The other 43 were settled by a profile (`perf record -e cpu-clock`, symbol by symbol, the layer and "same" in turns
in one process). µs an image:

| where | layer | same | layer, batches at a line of the cache | same, in the same run |
| --- | ---: | ---: | ---: | ---: |
| the operator that transforms | 81.7 | 38.7 | 41.9 | 49.3 |
| Python | 52.7 | 28.9 | 56.1 | 32.1 |
| numpy | 7.2 | 2.8 | 7.5 | 3.6 |
| decoding | 502.7 | 498.8 | 514.2 | 504.2 |
| the system | 11.3 | 9.2 | 14.0 | 8.6 |

The operator wrote past the cache into numpy's memory, which begins 16 bytes after a line: every row of 224 floats then
ended within a line, and the next row of that plane wrote the rest. Batches begin at a line now. In turns, eleven rounds,
least and median CPU µs: 591 and 610 with numpy's memory, 581 and 605 at a line, beside a floor of 544 and 553 and a "same"
of 573 and 593: what the two lines cost depends on who else uses the memory. The layer is at 0.92 to 0.94 of the floor and
at 0.96 to 0.99 of "same".

What is left is Python, which takes 13 µs an image where it runs alone, and twice that between two decodings, which leave
nothing of it in the first caches. The rest of the suspects were innocent: no page faults (0.0 an image; the system takes
less than 1 µs), 0.09 hand-overs of a thread's turn an image, no copies of records. Tried, without gain: to transform one,
four or eight images at a time, to read the headers of all records of a job first, to part 16 rows of pixels before any is
written (45 to 48 µs before and after at 224 × 224, 55 to 58 at 227 × 227), to parse headers in the compiled library (less
than 1 %). 0.95 of this floor leaves 29 µs for splitting pixels, converting them and all of Python; the first two alone take
25.
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
    lines = []
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
                lines.append(
                    f"| {kind} | {threads} | {floor_rate:,.0f} | {rate:,.0f} | {rate / floor_rate:.2f} | {bytes_rate:,.0f} "
                    f"| {alone:.0f} | {floor_cost:.0f} | {same_cost:.0f} | {cost:.0f} "
                    f"| {floor_cost / cost:.2f} | {same_cost / cost:.2f} | {bytes_cost:.0f} |".replace("nan", "–")
                )
                print(lines[-1], flush=True)
    text = f"""# How fast a Data layer feeds

`python benchmarks/bench_data.py IMAGES`: {BATCH} images a batch, random crop {CROP}, mirror, mean values; records in LMDB,
in memory already. "floor": for JPEGs (shorter edge 256) `cv2.imdecode` and filling as much memory as the batch has; for raw
records (256 × 256) turning the crop into float, into such memory. "same": decoding and transforming as the layer does, and
nothing of records, draws and batches. "bytes": batches as `--device-transform` sends them.
All figures of a line come from one run, best of {ROUNDS} rounds in turn, on a machine that others use too: compare within
a line; CPU time is the steadier measure.
{platform.machine()}, {os.cpu_count()} processors, OpenCV {cv2.__version__}, numpy {np.__version__}.

| | | images/s | | | | CPU µs an image | | | | | | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| records | threads | floor | layer | layer/floor | bytes | decoding | floor | same | layer | floor/layer | same/layer | bytes |
{chr(10).join(lines)}
{NOTES}"""
    Path(__file__).with_name("data.md").write_text(text)


if __name__ == "__main__":
    main()
