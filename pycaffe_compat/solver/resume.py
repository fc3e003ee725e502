"""Which snapshot a run goes on from by itself: the newest sound one of the solver's prefix."""

from __future__ import annotations

import glob
import logging
import math
import os
import re
from typing import Any

from ..errors import CaffeError, OutOfMemoryError, SolverError
from ..memory import is_exhausted
from ..proto import caffe_pb2, read_weights
from . import log as lines
from .log import log
from .snapshot import PathLike, add_to_sum, file_sum, find_learned_net, is_hdf5, open_state


def newest_sound(param: Any) -> str:
    """Return the newest solver state of ``param.snapshot_prefix`` that is sound, or ``""``.

    Newer ones that are not sound are passed over; the log names each and says why. Whether the state is of the solver's
    net and type is not looked at: restoring it says so.

    Raises:
        SolverError: ``snapshot_prefix`` is not set.
        OutOfMemoryError: there is not enough memory to see whether one is sound; passing over it would lose it.
    """
    if not param.snapshot_prefix:
        raise SolverError(
            "resume: snapshot_prefix is not set, so there are no snapshots to look for; set it in the solver"
        )
    for path in states(param):
        if not (why := flaw(path)):
            return path
        log(lines.RESTORING, "Passing over %s: %s", path, why, level=logging.WARNING)
    return ""


def states(param: Any) -> list[str]:
    """The solver states of ``param.snapshot_prefix``, the newest first, sound or not.

    Of two of one iteration the one in the solver's own ``snapshot_format`` comes first.
    """
    hdf5 = param.snapshot_format == caffe_pb2.SolverParameter.HDF5
    found = [
        ((int(match[1]), is_hdf5(path) == hdf5), path)
        for path in glob.glob(f"{glob.escape(param.snapshot_prefix)}_iter_*.solverstate*")
        if (match := re.search(r"_iter_(\d+)\.solverstate(\.h5)?$", path))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def flaw(path: PathLike) -> str:
    """Say what is wrong with a snapshot, the state at ``path`` and its caffemodel; ``""`` where both are sound.

    Both files are read whole. Those of this package hold checksums, which also tell a caffemodel of another run.

    Raises:
        OutOfMemoryError: there is not enough memory to read them.
    """
    name = os.fspath(path)
    try:
        with open_state(name) as state:
            if not state.ends:
                return "it is cut off: its last field, current_step, is missing"
            if (claimed := 4 * sum(math.prod(stored.shape) for stored in state.history)) > _most_bytes(name):
                return f"it is damaged: its history blobs claim {claimed} bytes, more than the file can hold"
            crc = 0
            for stored in state.history:
                crc = add_to_sum(stored.read(), crc)
            if state.history_sum not in (None, crc):
                return "it is damaged: its history blobs are not those that were written (CRC-32)"
            if not state.learned_net:
                return "it names no caffemodel"
            model = find_learned_net(state, name)
        if "model" not in state.extra:
            return "" if _readable(model) else f"its caffemodel {model} holds no layers"
        wrote, have = state.extra["model"], file_sum(model)
        if wrote["bytes"] != have["bytes"]:
            return f"its caffemodel {model} has {have['bytes']} bytes; {wrote['bytes']} were written with the state"
        return "" if wrote == have else f"its caffemodel {model} is damaged, or of another run (CRC-32)"
    except (CaffeError, OSError, MemoryError, ValueError, TypeError, KeyError, RuntimeError) as error:
        if is_exhausted(error):
            raise OutOfMemoryError(f"there is not enough memory to read the snapshot {name}") from error
        if not isinstance(error, CaffeError):
            return f"it cannot be read: {error}"
        text = str(error).removeprefix(f"{name}: ")
        return f"it{text.removeprefix(name)}" if text.startswith(f"{name} ") else text


def _most_bytes(name: str) -> int:
    """What the history blobs of a state can hold: HDF5 may be compressed, deflate packs about 1:1032 at most."""
    return os.path.getsize(name) * 1100


def _readable(model: str) -> bool:
    """Read every blob of a caffemodel; return whether it holds layers."""
    weights = read_weights(model)
    return sum(len(weights[name]) for name in weights) > 0
