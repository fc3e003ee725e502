"""Train, test and time nets with Caffe's own command line: `caffe-compat train --solver=solver.prototxt`."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import time
from collections.abc import Iterable

from ..errors import CaffeError
from ..pycaffe import __version__
from ..solver.log import VARIABLE, GlogFormatter, init_log, log, logger
from . import device_query, test_net, time_net, train_net
from .options import FLAG, Parser, command

BREWS = {
    "train": (train_net, "train or fine-tune a net"),
    "test": (test_net, "score a net"),
    "time": (time_net, "measure the time of each layer, forward and backward"),
    "device_query": (device_query, "show the GPUs"),
}
# Caffe has one set of flags for all its commands, and scripts give one command what only another one uses
UNUSED = {
    "train": {"model", "phase"},
    "test": {"solver", "snapshot", "phase", "sigint_effect", "sighup_effect"},
    "time": {"solver", "snapshot", "weights", "sigint_effect", "sighup_effect"},
    "device_query": {
        *("solver", "model", "snapshot", "weights", "iterations", "phase", "level", "stage"),
        *("sigint_effect", "sighup_effect"),
    },
}
# of Caffe's logger: where the log goes anyway, and what there is nothing of here
LOG_SWITCHES = ("logtostderr", "alsologtostderr", "colorlogtostderr", "log_prefix")
LOG_VALUES = ("v", "vmodule", "stderrthreshold", "logbufsecs", "logbuflevel")

EPILOG = """
commands:
{commands}
`%(prog)s COMMAND --help` shows the flags of a command. They may be written as Caffe's: -solver X, --solver=X. Flags that
only other commands use are left out with a warning. -log_dir DIR writes the log to a file there too, as Caffe's does;
-minloglevel N (or GLOG_minloglevel=N in the environment) shows warnings (1) or errors (2) alone.

examples:
  %(prog)s train -solver solver.prototxt -weights bvlc_reference_caffenet.caffemodel -gpu 0
  %(prog)s test -model train_val.prototxt -weights net_iter_10000.caffemodel -iterations 100
  %(prog)s time -model deploy.prototxt -iterations 10
  %(prog)s device_query -gpu all
"""


def run(argv: list[str]) -> int | None:
    """Run the command that ``argv`` names, wherever it stands among the flags."""
    listed = "".join(f"  {name:14}{what}\n" for name, (_, what) in BREWS.items())
    parser = Parser(__doc__, EPILOG.format(commands=listed))
    parser.add_argument("--version", action="version", version=f"caffe version {__version__}", help="Caffe's, and end")
    parser.add_argument("command", choices=BREWS)
    if not argv:  # Caffe shows its usage then, and is content
        parser.print_help()
        return 0
    _, argv = _take(argv, LOG_SWITCHES, valued=False)
    _, argv = _take(argv, LOG_VALUES)
    folders, argv = _take(argv, ["log_dir"])
    levels, argv = _take(argv, ["minloglevel"])
    name = next(
        (word for before, word in zip(["", *argv], argv, strict=False) if word in BREWS and not _asks(before)), ""
    )
    if not name:
        parser.parse_args(argv[:1])
    argv.remove(name)
    if levels:
        _log_from(levels[-1][1])
    init_log()
    if folders:
        _log_to(folders[-1][1])
    unused, argv = _take(argv, UNUSED[name])
    for flag, _ in unused:
        log("caffe.cpp:402", "-%s is not for %s: left out", flag, name, level=logging.WARNING)
    return BREWS[name][0].run(argv, f"{parser.prog} {name}")


def _asks(word: str) -> bool:
    """Whether a flag's value is what comes after this word."""
    match = FLAG.fullmatch(word)
    return match is not None and match[2] is None


def _take(argv: list[str], flags: Iterable[str], valued: bool = True) -> tuple[list[tuple[str, str]], list[str]]:
    """Take flags (and their values) out of ``argv``: those that were there, and the rest."""
    found, rest, words = [], [], iter(argv)
    for word in words:
        match = FLAG.fullmatch(word)
        if match is None or match[1] not in flags:
            rest.append(word)
        elif match[2] is not None or not valued:
            found.append((match[1], match[2] or ""))
        else:
            found.append((match[1], next(words, "")))
    return found, rest


def _log_from(level: str) -> None:
    """Show lines of the log from this level on, in this process and those that it starts."""
    if level not in ("0", "1", "2", "3"):
        raise CaffeError(
            f'-minloglevel: "{level}" is no level; valid: 0 (all), 1 (warnings), 2 (errors), 3 (fatal errors)'
        )
    os.environ[VARIABLE] = level


def _log_to(folder: str) -> None:
    """Write the log to a file in ``folder`` too, named as Caffe's logger names it. The first of several processes does."""
    if os.environ.get("RANK", "0") != "0":
        return
    if not os.path.isdir(folder):
        raise CaffeError(f"-log_dir: there is no folder {folder}; make it with: mkdir -p {folder}")
    when = time.strftime("%Y%m%d-%H%M%S")
    name = f"caffe.{socket.gethostname()}.{getpass.getuser()}.log.INFO.{when}.{os.getpid()}"
    file = logging.FileHandler(os.path.join(folder, name), delay=True)
    file.setFormatter(GlogFormatter())
    logger.addHandler(file)


main = command("caffe", run)
