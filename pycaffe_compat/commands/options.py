"""What the commands share: flags in Caffe's forms, a mistake as one line, a clean end, leave for Python layers."""

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
from ..pycaffe.alias import install_as_caffe
from ..solver.runner import AMP

FLAG = re.compile(r"--?([A-Za-z][\w-]*)(?:=(.*))?", re.DOTALL)
FALSE = ("false", "f", "no", "n", "0")
TERMINATED = 128 + signal.SIGTERM


class Parser(argparse.ArgumentParser):
    """An argument parser that takes flags as Caffe does too: ``-solver X``, ``--solver=X``, ``-gray=true``, ``--nogray``.

    They may stand anywhere among the other arguments.

    Args:
        description: what the command does.
        epilog: examples, shown as they are.
        prog: the command as the help shows it; None: the name of the running program.
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
        """Add an argument as ``argparse`` does; its long name is a flag in all forms from now on."""
        action = super().add_argument(*names, **options)
        self._flags.update({name[2:]: action for name in action.option_strings if name.startswith("--")})
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse, after the flags are brought to argparse's own form."""
        given = list(sys.argv[1:] if args is None else args)
        end = given.index("--") if "--" in given else len(given)
        plain = [each for each in map(self._plain, given[:end]) if each is not None]
        return super().parse_known_args(plain + given[end:], namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse; a flag that there is not is an error with those spelt alike."""
        given = list(sys.argv[1:] if args is None else args)
        # What comes after "--" is no flag, which argparse forgets where flags may stand anywhere.
        parse = self.parse_known_args if "--" in given else self.parse_known_intermixed_args
        parsed, unknown = parse(given, namespace)
        if unknown:
            match = next(filter(None, map(FLAG.fullmatch, unknown)), None)
            hint = nearest(match[1], self._flags) if match else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return parsed

    def _plain(self, argument: str) -> str | None:
        """The argument as argparse writes it; None for a switch that is turned off and was never on."""
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
    """Return the ``main`` of a command: what ``run`` does with the arguments, and its exit status.

    A mistake of the user is one line ``name: …`` on standard error and status 1; Ctrl-C is status 130, SIGTERM 143, and
    neither leaves half-written files.

    Args:
        name: the command.
        run: takes the arguments; returns the exit status, None for 0.
        left: what an interrupted run leaves, in words.
    """

    def main(argv: Sequence[str] | None = None) -> int:
        """Run the command; return its exit status."""
        try:
            with _terminable():
                status = run(list(sys.argv[1:] if argv is None else argv)) or 0
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
        except BrokenPipeError:  # who read the output (head, say) has gone
            _drop_output()
            return 141
        except OSError as error:
            print(f"{name}: {error.filename or 'standard output'}: {error.strerror or error}", file=sys.stderr)
            if error.filename is None:
                _drop_output()
            return 1

    return main


def _drop_output() -> None:
    """Let Python's own flush of standard output, when the process ends, not fail as the one before it did."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, which ends a process on the spot, unwinds it like Ctrl-C, so that temporary files are removed."""
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
    what = "GPU numbers with commas, or all" if several else "GPU number"
    parser.add_argument("--gpu", default="", metavar="IDS" if several else "ID", help=f"{what} (default: one if any)")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")


def add_state(parser: Parser) -> None:
    """Add ``--level`` and ``--stage``."""
    parser.add_argument("--level", type=int, metavar="N", help="level of the net's state (default: the net's own)")
    parser.add_argument(
        "--stage", dest="stages", default=[], type=names, metavar="A,B", help="stages of the net's state"
    )


def add_amp(parser: Parser) -> None:
    """``--amp``: mixed precision."""
    parser.add_argument(
        "--amp",
        nargs="?",
        const="bfloat16",
        choices=sorted(AMP),
        help="compute in mixed precision (bfloat16 if no type is given)",
    )


def names(text: str) -> list[str]:
    """Return the names in ``"a,b"``."""
    return [name for name in text.split(",") if name]


def add_python_layers(parser: Parser) -> None:
    """Add ``--allow-python-layers``; :func:`python_layers` then does what it says."""
    parser.add_argument(
        "--allow-python-layers",
        action="store_true",
        help=f"run the Python layers that the net names: code that came with it (as {python_layer.VARIABLE}=1 does)",
    )


def python_layers(args: dict[str, Any]) -> None:
    """Take ``allow_python_layers`` out of ``args``; where they are allowed, their ``import caffe`` is this package."""
    if args.pop("allow_python_layers") or python_layer.allowed():
        python_layer.allow()
        install_as_caffe()
