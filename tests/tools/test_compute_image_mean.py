from pathlib import Path

import warm_start

TOOL = Path(__file__).parents[2] / "tools" / "compute_image_mean.py"
DATA = Path(__file__).parents[1] / "goldens" / "data"


def run(*arguments):
    return warm_start.run(TOOL, *arguments, cwd=DATA)


def test_the_file_is_caffes_to_the_byte(tmp_path):
    result = run("-backend=lmdb", "raw_lmdb", tmp_path / "mean.binaryproto")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mean.binaryproto").read_bytes() == (DATA / "mean.binaryproto").read_bytes()
    for line in (
        "Starting iteration",
        "Processed 12 files.",
        "Number of channels: 3",
        "mean_value channel [2]: 134.302",
    ):
        assert line in result.stderr


def test_errors_are_one_line(tmp_path):
    result = run(tmp_path / "nothing")
    assert result.returncode == 1
    assert result.stderr.startswith("compute_image_mean: database not found: ") and "Traceback" not in result.stderr
