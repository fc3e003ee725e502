"""Flags in Caffe's forms, and what a command does with mistakes."""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import warm_start

from pycaffe_compat.commands.options import Parser, add_state, command
from pycaffe_compat.errors import CaffeError

ROOT = Path(__file__).parents[2]


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
        (["-number=3", "x", "-quick"], {"number": 3, "file": "x", "quick": True}),
        (["--", "-solver"], {"file": "-solver"}),
    ],
)
def test_flags_in_all_forms(arguments, found) -> None:
    nothing = {"file": None, "solver": None, "number": None, "gray": None, "quick": False}
    assert vars(parser().parse_args(arguments)) == nothing | found


@pytest.mark.parametrize("arguments", [["-sol", "x"], ["--nosolver"], ["-solvers=x"], ["--noquick"]])
def test_an_unknown_flag_is_an_error(arguments, capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(arguments)
    assert ended.value.code == 2
    assert "unrecognized arguments: " + arguments[0] in capsys.readouterr().err


def test_positional_arguments_may_stand_between_flags() -> None:
    made = Parser("a command")
    made.add_argument("input")
    made.add_argument("output", nargs="?")
    made.add_argument("--list", action="store_true")
    made.add_argument("--net")
    found = made.parse_args(["a", "-list", "-net", "n", "b"])
    assert vars(found) == {"input": "a", "output": "b", "list": True, "net": "n"}


def test_a_misspelt_flag_gets_suggestions(capsys) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["-slover", "x"])
    assert "unrecognized arguments: -slover (did you mean solver?)" in capsys.readouterr().err


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


def test_sigterm_unwinds_the_command(tmp_path) -> None:
    code = (
        "import sys, time; from pycaffe_compat.commands.options import command; from pycaffe_compat.files import atomic_path\n"
        "def run(argv):\n"
        "    with atomic_path(argv[0]) as temporary:\n"
        "        print(temporary, flush=True); time.sleep(60)\n"
        "sys.exit(command('it', run, 'nothing was written')())"
    )
    with warm_start.start("-c", code, tmp_path / "out") as process:
        assert os.path.exists(process.stdout.readline().strip())
        process.send_signal(signal.SIGTERM)
        error = process.stderr.read()
        assert (process.wait(), error) == (143, "it: terminated; nothing was written\n")
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_output_that_cannot_be_written_is_one_line() -> None:
    code = (
        "import os, sys; from pycaffe_compat.commands.options import command\n"
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
        "sys.exit(command('it', lambda argv: print('x'))())"
    )
    done = warm_start.run("-c", code)
    assert (done.returncode, done.stderr) == (1, "it: standard output: No space left on device\n")


def test_a_reader_that_goes_away_is_no_error() -> None:
    code = (
        "import sys; from pycaffe_compat.commands.options import command\n"
        "sys.exit(command('it', lambda argv: print('\\n' * 10**6))())"
    )
    with warm_start.start("-c", code) as process:
        process.stdout.read(1)
        process.stdout.close()
        error = process.stderr.read()
        assert (process.wait(), error) == (141, "")


def test_a_closed_output_is_no_error(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert command("name", lambda arguments: None)([]) == 0


def test_a_level_has_32_bits(capsys) -> None:
    made = Parser("a command")
    add_state(made)
    assert made.parse_args(["-level", "-3"]).level == -3
    with pytest.raises(SystemExit):
        made.parse_args(["-level", "99999999999"])
    assert "--level: 99999999999 is not a 32-bit integer" in capsys.readouterr().err


@pytest.mark.parametrize("program", [[str(ROOT / "tools" / "train_net.py")], ["-m", "pycaffe_compat"]])
def test_ctrl_c_during_the_imports_of_a_command_ends_it_quietly(program: list[str]) -> None:
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", *program, "--help"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.endswith("pycaffe_compat.interruption\n"))
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == -signal.SIGINT
