"""Flags in Caffe's forms, and what a command does with mistakes."""

import argparse
import subprocess
import sys

import pytest

from pycaffe_compat.commands.options import Parser, command
from pycaffe_compat.errors import CaffeError


def parser() -> Parser:
    made = Parser("a command")
    made.add_argument("file", nargs="?")
    made.add_argument("--solver")
    made.add_argument("--number", type=int)
    made.add_argument("--gray", action=argparse.BooleanOptionalAction, default=None)
    made.add_argument("--quick", action="store_true")
    return made


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["-solver", "a b"], {"solver": "a b"}),
        (["--solver=a=b"], {"solver": "a=b"}),
        (["-solver="], {"solver": ""}),
        (["-number", "-3"], {"number": -3}),
        (["-gray"], {"gray": True}),
        (["--gray=1"], {"gray": True}),
        (["-gray=false"], {"gray": False}),
        (["--nogray"], {"gray": False}),
        (["--no-gray"], {"gray": False}),
        (["-quick=true", "x"], {"quick": True, "file": "x"}),
        (["--quick=no", "no-gray"], {"quick": False, "file": "no-gray"}),
        (["x", "-solver=s"], {"solver": "s", "file": "x"}),
        (["--", "-solver"], {"file": "-solver"}),
    ],
)
def test_flags_in_all_forms(arguments, found) -> None:
    nothing = {"file": None, "solver": None, "number": None, "gray": None, "quick": False}
    assert vars(parser().parse_args(arguments)) == nothing | found


@pytest.mark.parametrize("arguments", [["-sol", "x"], ["--nosolver"], ["-solvers=x"], ["--noquick"]])
def test_what_is_no_flag_is_an_error(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == 2
    assert "unrecognized arguments: " + arguments[0] in capsys.readouterr().err


def test_a_mistake_is_one_line_and_status_1(capsys) -> None:
    def run(argv):
        if argv == ["no"]:
            raise CaffeError("x.prototxt:3: wrong")
        if argv == ["stop"]:
            raise KeyboardInterrupt
        print(argv)
        return 5 if argv else None

    main = command("it", run, "nothing was written")
    assert [main(["no"]), main(["stop"]), main(["a"]), main([])] == [1, 130, 5, 0]
    said = capsys.readouterr()
    assert said.err == "it: x.prototxt:3: wrong\nit: interrupted; nothing was written\n"
    assert said.out == "['a']\n[]\n"


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import sys; from pycaffe_compat.commands.options import command\n"
        "sys.exit(command('it', lambda argv: print('\\n' * 10**6))())"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        error = process.stderr.read()
        assert (process.wait(), error) == (141, b"")
