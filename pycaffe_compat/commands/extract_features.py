"""Run a net over its own data and write blobs to LMDBs, one record per item, as Caffe's extract_features does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from ..data.database import LEVELDB, DatabaseWriter
from ..errors import DataError, LayerError, NetError, UnknownNameError, nearest
from ..net import Net
from ..proto import caffe_pb2
from ..solver.log import init_log, log, on_terminal
from ..solver.nets import warn_of_missing
from ..solver.run import parse_gpus
from .options import Parser, add_reading, command, names, reading

DEVICE, STARTS, COUNT, ENDS = (f"extract_features.cpp:{line}" for line in (64, 134, 171, 185))
EVERY = 1000  # records between two lines of the log, as in Caffe

EPILOG = """
example:
  %(prog)s bvlc_reference_caffenet.caffemodel imagenet_val.prototxt fc7,prob features/fc7,features/prob 10 lmdb GPU 0
                           two blobs of 10 batches in the TEST phase, into two databases

A record is a Datum with the floats of one item; its key is the number of the item, %%010d, from 0. An interrupted run makes no
database.
"""


def extract_features(
    weights: str,
    model: str,
    blobs: Sequence[str],
    databases: Sequence[str],
    batches: int,
    *,
    db_type: str = "lmdb",
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> int:
    """Write the items of blobs to databases; return the number of records in the first.

    Args:
        weights: the caffemodel.
        model: path of the net's prototxt; its TEST phase has data layers.
        blobs: names of blobs; axis 0 counts items.
        databases: the LMDB to make for each blob.
        batches: how many batches to run.
        db_type: ``"lmdb"``; any other is an error.
        device: the device that the net runs on.
        progress: show a progress bar.

    Raises:
        UnknownNameError: the net has no such blob.
        LayerError: a blob has more than four axes, which a Datum cannot describe.
        DataError: the numbers of blobs and databases differ, a database exists, or ``db_type`` is not known.
        NetError: the net has no data of its own.
    """
    if db_type != "lmdb":
        hint = f": {LEVELDB.format(path=', '.join(databases))}" if db_type == "leveldb" else ""
        raise DataError(f'db_type "{db_type}" is not supported; the one that is: lmdb{hint}')
    if not blobs:
        raise DataError("no blob is named; give the names of the blobs to extract")
    if len(blobs) != len(databases) or len(set(databases)) != len(databases):
        raise DataError(
            f"{len(blobs)} blobs ({', '.join(blobs)}) need as many databases, all different; given: {', '.join(databases)}"
        )
    if batches < 1:
        raise DataError(f"num_mini_batches: {batches} must be at least 1")
    net = Net(model, "TEST", weights=weights, device=device)
    with contextlib.closing(net), contextlib.ExitStack() as stack:
        _check(net, blobs)
        warn_of_missing(net.load_report)
        writers = [
            (name, stack.enter_context(DatabaseWriter(path))) for name, path in zip(blobs, databases, strict=True)
        ]
        log(STARTS, "Extracting Features")
        counts = _write(net, writers, tqdm(range(batches), unit="batches", disable=not progress, mininterval=0.5))
    log(ENDS, "Successfully extracted the features!")
    return counts[0]


def _write(net: Net, writers: Sequence[tuple[str, DatabaseWriter]], batches: Iterable[int]) -> list[int]:
    """Run the net once for each of ``batches``; write the items of each blob to its database, and return their numbers."""
    counts = [0] * len(writers)
    for _ in batches:
        with torch.no_grad():
            values, _ = net.run()
        for i, (name, writer) in enumerate(writers):
            for datum in _datums(values[name]):
                writer.put(b"%010d" % counts[i], datum.SerializeToString())
                counts[i] += 1
                if counts[i] % EVERY == 0:
                    log(COUNT, "Extracted features of %d query images for feature blob %s", counts[i], name)
    for (name, _), count in zip(writers, counts, strict=True):
        if count % EVERY:
            log(COUNT, "Extracted features of %d query images for feature blob %s", count, name)
    return counts


def _check(net: Net, blobs: Sequence[str]) -> None:
    if net.inputs:
        raise NetError(
            f"{net.file}: the net has Input layers ({', '.join(net.inputs)}), but features are extracted from data that the net "
            "reads: replace them with data layers for the TEST phase"
        )
    shapes = net.blob_shapes
    for name in blobs:
        if name not in shapes:
            raise UnknownNameError(f'{net.file}: the net has no blob "{name}"{nearest(name, shapes)}')
        if len(shapes[name]) > 4:
            raise LayerError(f'blob "{name}" has {len(shapes[name])} axes; a Datum describes at most 4')


def _datums(blob: Tensor) -> list[caffe_pb2.Datum]:
    """Return the items of a blob as Datums of floats, with the blob's channels, height and width (1 for a missing axis)."""
    channels, height, width = (*blob.shape[1:], 1, 1, 1)[:3]
    items = blob.float().cpu().reshape(blob.shape[0] if blob.dim() else 1, -1)
    return [caffe_pb2.Datum(channels=channels, height=height, width=width, float_data=item) for item in items.tolist()]


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    parser = Parser(__doc__, EPILOG)
    parser.add_argument("weights", metavar="PRETRAINED_NET_PARAM", help="the caffemodel")
    parser.add_argument("model", metavar="FEATURE_EXTRACTION_PROTO_FILE", help="the net's prototxt, with data layers")
    parser.add_argument("blobs", type=names, metavar="BLOB1[,BLOB2]", help="names of blobs")
    parser.add_argument("databases", type=names, metavar="DB1[,DB2]", help="the LMDB to make for each blob")
    parser.add_argument("batches", type=int, metavar="NUM_MINI_BATCHES", help="how many batches to run")
    parser.add_argument("db_type", metavar="DB_TYPE", help="the database to write; only lmdb")
    parser.add_argument("mode", nargs="?", default="CPU", choices=["CPU", "GPU"], help="default: CPU")
    parser.add_argument("device_id", nargs="?", default="0", metavar="DEVICE_ID", help="number of the GPU (default: 0)")
    add_reading(parser)
    args = vars(parser.parse_args(argv))
    reading(args)
    init_log()
    device = "cpu"
    if args.pop("mode") == "GPU":
        device = f"cuda:{parse_gpus(args['device_id'] or '0')[0]}"
    log(DEVICE, "Using %s", device.upper(), level=logging.INFO)
    del args["device_id"]
    extract_features(**args, device=device, progress=on_terminal())


main = command("extract_features", run, "no database was made")
