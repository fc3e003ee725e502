"""Ctrl-C while a command imports this package, which takes seconds: a quiet end with status 130, no traceback of an import.

Only where the program is one of this package's commands. A notebook or a user's own script keeps its KeyboardInterrupt.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

_TOOLS = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "tools")


def _is_command() -> bool:
    program = sys.argv[0] if getattr(sys, "argv", None) else ""
    if program == "-m":
        return "pycaffe_compat" in sys.orig_argv
    folder, name = os.path.split(os.path.realpath(program))
    return folder == _TOOLS or name.startswith("caffe-")


def end_quietly() -> bool:
    """Let SIGINT end the process at once, until :func:`as_before`; return whether that is so now."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler or not _is_command():
        return False
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return True


def as_before() -> None:
    """Let SIGINT raise KeyboardInterrupt again where :func:`end_quietly` had changed that."""
    if _quiet:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_quiet = end_quietly()
