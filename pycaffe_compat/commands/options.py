"""What commands share: flags in Caffe's forms, one-line errors, a clean end, permission for Python layers."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import CaffeError, nearest
from ..layers import python_layer
from ..proto import assume_fork, use_proto
from ..pycaffe.alias import install_as_caffe
from ..solver.runner import AMP

FLAG = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
FALSE = ("false", "f", "no", "n", "0")
TERMINATED = 128 + signal.SIGTERM


class Parser(argparse.ArgumentParser):
    """An argument parser that also takes flags in Caffe's forms: ``-solver X``, ``--solver=X``, ``-gray=true``, ``--nogray``.

    Flags may stand anywhere among the other arguments.

    Args:
        description: what the command does.
        epilog: examples, printed verbatim.
        prog: the name of the command in the help; None for that of the running program.
    """

    def __init__(self, description: str | None, epilog: str = "", prog: str | None = None) -> None:
        self._flags: dict[str, argparse.Action] = {}
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument as in ``argparse``; its long name becomes a flag in all of Caffe's forms."""
        action = super().add_argument(*names, **options)
        self._flags.update({name[2:]: action for name in action.option_strings if name.startswith("--")})
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments after rewriting the flags in the form of argparse."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        plain = [each for each in map(self._plain, given[:end]) if each is not None]
        return super().parse_known_args(plain + given[end:], namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse arguments; the error for an unknown flag names flags with similar names."""
        given = list(sys.argv[1:] if args is None else args)
        # Nothing after "--" is a flag. argparse forgets that where flags may stand anywhere.
        parse = self.parse_known_args if "--" in given else self.parse_known_intermixed_args
        parsed, unknown = parse(given, namespace)
        if unknown:
            match = next(filter(None, map(FLAG.fullmatch, unknown)), None)
            hint = nearest(match[1], self._flags) if match else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return parsed

    def _plain(self, argument: str) -> str | None:
        """Return the argument in the form of argparse; None for turning off a switch that is off by default."""
        match = FLAG.fullmatch(argument)
        if match is None:
            return argument
        name, value = match.groups()
        action = self._flags.get(name)
        if action is None:
            off = f"no-{name[2:]}"
            return f"--{off}" if name.startswith("no") and off in self._flags else argument
        if value is None:
            return f"--{name}"
        if action.nargs != 0:
            return f"--{name}={value}"
        if value.lower() not in FALSE:
            return f"--{name}"
        return f"--no-{name}" if f"no-{name}" in self._flags else None


def command(name: str, run: Callable[[list[str]], int | None], left: str = "") -> Callable[..., int]:
    """Return the ``main`` of a command, which calls ``run`` with the arguments and returns the exit status.

    A :class:`CaffeError` becomes one line ``name: …`` on standard error and status 1. Ctrl-C gives status 130, SIGTERM 143;
    neither leaves half-written files.

    Args:
        name: the command.
        run: takes the arguments; returns the exit status, or None for 0.
        left: the message after an interruption: what the run leaves behind.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        """Run the command; return its exit status."""
        try:
            with _terminable():
                status = run(list(sys.argv[1:] if argv is None else argv)) or 0
            if sys.stdout is not None:  # closed by the shell: >&-
                sys.stdout.flush()
            return status
        except CaffeError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"{name}: interrupted{'; ' + left if left else ''}", file=sys.stderr)
            return 130
        except SystemExit as ended:
            if ended.code != TERMINATED:
                raise
            print(f"{name}: terminated{'; ' + left if left else ''}", file=sys.stderr)
            return TERMINATED
        except BrokenPipeError:  # the reader of the output, such as head, has closed the pipe
            _drop_output()
            return 141
        except OSError as error:
            print(f"{name}: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
            if error.filename is None:
                _drop_output()
            return 1

    return main


def _drop_output() -> None:
    """Send the rest of standard output to nowhere, so that Python's flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM unwind the process as Ctrl-C does, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def add_device(parser: Parser, several: bool = False) -> None:
    """Add ``--gpu`` and ``--cpu``."""
    what = "comma-separated GPU numbers, or all" if several else "GPU number"
    parser.add_argument(
        "--gpu",
        default="",
        metavar="IDS" if several else "ID",
        help=f"{what} (default: the first GPU, if there is one)",
    )
    parser.add_argument("--cpu", action="store_true", help="run on the CPU")


def add_state(parser: Parser) -> None:
    """Add ``--level`` and ``--stage``."""
    parser.add_argument("--level", type=_level, metavar="N", help="level of the net's state (default: the net's own)")
    parser.add_argument(
        "--stage", dest="stages", default=[], type=names, metavar="A,B", help="stages of the net's state"
    )


def _level(text: str) -> int:
    level = int(text)
    if not -(2**31) <= level < 2**31:
        raise argparse.ArgumentTypeError(f"{text} is not a 32-bit integer")
    return level


def add_amp(parser: Parser) -> None:
    """``--amp``: mixed precision."""
    parser.add_argument(
        "--amp",
        nargs="?",
        const="bfloat16",
        choices=sorted(AMP),
        help="compute in mixed precision: bfloat16 (default) or, on a GPU, float16 with a scaled loss",
    )


def names(text: str) -> list[str]:
    """Return the names in a list such as ``"a,b"``."""
    return [name for name in text.split(",") if name]


def add_reading(parser: Parser) -> None:
    """Add ``--allow-python-layers``, ``--fork`` and ``--proto``, on which :func:`reading` acts: for commands that read nets."""
    parser.add_argument(
        "--allow-python-layers",
        action="store_true",
        help=f"run the code of the net's Python layers (like {python_layer.VARIABLE}=1 in the environment)",
    )
    parser.add_argument(
        "--fork",
        default="",
        metavar="NAME",
        help="the fork of Caffe that the files were written for, such as ssd or segnet, if several are possible "
        "(docs/layers.md lists them; bvlc for none)",
    )
    parser.add_argument(
        "--proto",
        default="",
        metavar="FILE",
        help="also read files with this caffe.proto, of your own fork (needs pip install pycaffe_compat[proto])",
    )


def reading(args: dict[str, Any]) -> None:
    """Remove what :func:`add_reading` added from ``args``, and act on it for all that this process reads."""
    if args.pop("allow_python_layers") or python_layer.allowed():
        python_layer.allow()
        install_as_caffe()
    proto, fork = args.pop("proto"), args.pop("fork")
    name = use_proto(proto) if proto else ""
    assume_fork(fork or name)
