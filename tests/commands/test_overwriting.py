"""A command whose output is named as one of its inputs refuses, and the input stays as it was."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pycaffe_compat.commands import classify, detect, get_image_size, make_prototxt

CASES = {
    "sizes": (get_image_size.main, ["", "given", "given"]),
    "sizes by ids": (get_image_size.main, ["", "list", "given", "--name_id_file", "given"]),
    "a mean": (
        classify.main,
        ["a.jpg", "given", "--model_def", "n", "--pretrained_model", "w", "--mean_file", "given.npy"],
    ),
    "a net": (make_prototxt.main, ["--net", "given", "--variant", "sae_all", "--out", "./given"]),
    "windows": (detect.main, ["given.csv", "given.csv", "--model_def", "n", "--pretrained_model", "w"]),
}


@pytest.mark.parametrize("name", CASES)
def test_an_input_is_not_written_over(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main: Callable[[list[str]], int]
    main, arguments = CASES[name]
    monkeypatch.chdir(tmp_path)
    for file in ("given", "given.npy", "given.csv", "list"):
        (tmp_path / file).write_text("")
    assert main(arguments) == 1
    assert "which is an input: name another output file" in capsys.readouterr().err
    assert not (tmp_path / "given").read_text() and len(list(tmp_path.iterdir())) == 4
