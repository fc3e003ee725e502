"""Runs the project's tools for the experiments, each in a process of its own that needs not start Python and PyTorch anew."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = "pycaffe_compat.commands"
PRELOADED = ("train_net", "train_stages", "evaluate", "reconstruct")


def run_tool(name: str, *arguments: object, log: Path) -> str:
    """Run ``tools/NAME.py``, its output and its errors at the end of ``log``; return its output.

    The process is forked from one that has only imported what the tools need, and has computed nothing.

    Raises:
        SystemExit: it failed; the message ends with what it said.
    """
    os.environ["PYTHONPATH"] = str(ROOT)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", *(f"{COMMANDS}.{each}" for each in PRELOADED)])
    words = [str(each) for each in arguments]
    out, err = (log.with_name(f"{log.name}.{os.getpid()}.{which}") for which in ("out", "err"))
    process = context.Process(target=_run, args=(name, words, str(out), str(err)))
    process.start()
    process.join()
    said = [path.read_text() if path.exists() else "" for path in (out, err)]
    with open(log, "a") as file:
        file.write(f"tools/{name}.py {' '.join(words)}\n{said[1]}{said[0]}")
    for path in (out, err):
        path.unlink(missing_ok=True)
    if process.exitcode:
        last = (said[1].strip() or said[0].strip() or "nothing").splitlines()[-1]
        raise SystemExit(f"{name} ended with status {process.exitcode}; {log} ends with: {last}")
    return said[0]


def _run(name: str, words: list[str], out: str, err: str) -> None:
    """What the process does."""
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    sys.argv = [f"tools/{name}.py", *words]
    sys.exit(importlib.import_module(f"{COMMANDS}.{name}").main(words))
