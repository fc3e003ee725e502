import os
import signal
import time
from pathlib import Path

import lmdb
import pytest
import warm_start

TOOL = Path(__file__).parents[2] / "tools" / "convert_imageset.py"
DATA = Path(__file__).parents[1] / "goldens" / "data"


def run(*arguments):
    return warm_start.run(TOOL, *arguments, cwd=DATA)


def content(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return list(transaction.cursor())


@pytest.mark.parametrize(
    ("golden", "flags"),
    [
        ("raw_lmdb", ["--resize_height=40", "--resize_width=48", "--check_size", "--nogray", "--backend=lmdb"]),
        ("raw_lmdb", ["-resize_height=40", "-resize_width=48", "-gray=0"]),
        ("gray_lmdb", ["-resize_height=40", "-resize_width=48", "-gray=1"]),
        (
            "gray_lmdb",
            ["-resize_height", "40", "-resize_width", "48", "-gray=true", "--shuffle=false", "--backend", "lmdb"],
        ),
    ],
)
def test_caffes_flags_make_caffes_database(tmp_path, golden, flags):
    result = run(*flags, "images/", "list.txt", tmp_path / "db")
    assert result.returncode == 0, result.stderr
    assert "A total of 12 images." in result.stderr and "Processed 12 files." in result.stderr
    assert content(tmp_path / "db") == content(DATA / golden)
    again = run("images/", "list.txt", tmp_path / "db")
    assert again.returncode == 1 and "exists already" in again.stderr and "Traceback" not in again.stderr


def test_help_teaches():
    result = run("--help")
    assert result.returncode == 0
    assert "--shorter_edge 256" in result.stdout and "ROOTFOLDER/ LISTFILE DB_NAME" in result.stdout


def test_an_interrupted_run_leaves_nothing(tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"im04.png {i}\n" for i in range(200_000)))
    command = [TOOL, "--resize_height=600", "--resize_width=600", "images", tmp_path / "list.txt", tmp_path / "db"]
    with warm_start.start(*command, cwd=DATA) as process:
        for line in process.stderr:
            if "Opened lmdb" in line:
                break
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert "interrupted" in process.stderr.read()
        assert process.wait(30) == 130
    assert os.listdir(tmp_path) == ["list.txt"]
