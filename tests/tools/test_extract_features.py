"""tools/extract_features.py with Caffe's arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest
from golden_files import ROOT as GOLDENS

from pycaffe_compat.net import Net

Tool = Callable[..., tuple[int, str]]
NET = f"""
layer {{ name: "data" type: "Data" top: "data"
  data_param {{ source: "{GOLDENS / "data" / "gray_lmdb"}" batch_size: 4 backend: LMDB }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 3 }} }}
"""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    weights, model = tmp_path / "net.caffemodel", tmp_path / "net.prototxt"
    model.write_text(NET)
    net = Net(model, "TEST")
    net.save(weights)
    net.close()
    return [weights, model]


def test_two_blobs_to_two_databases(files: list[Path], tmp_path: Path, tool: Tool) -> None:
    code, log = tool("extract_features", *files, "ip,data", f"{tmp_path / 'a'},{tmp_path / 'b'}", 2, "lmdb", "CPU", 0)
    assert code == 0, log
    said = [line.split("] ", 1)[1] for line in log.splitlines()]
    assert "Extracted features of 8 query images for feature blob ip" in said
    assert said[-1] == "Successfully extracted the features!"
    for name in ("a", "b"):
        with lmdb.open(str(tmp_path / name), readonly=True, lock=False) as database:
            assert database.stat()["entries"] == 8


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ip", "{}/a", 2], 2, "DB_TYPE"),
        (["ip", "{}/a", "two", "lmdb"], 2, "invalid int value: 'two'"),
        (["ip", "{}/a", 2, "leveldb"], 1, "LevelDB is not supported"),
        (["dta", "{}/a", 2, "lmdb"], 1, "did you mean data"),
        (["ip", "{}/a", 2, "lmdb", "GPU", 99], 1, "there is no GPU 99"),
    ],
)
def test_mistakes(files: list[Path], tmp_path: Path, tool: Tool, arguments, code, words) -> None:
    ended, text = tool("extract_features", *files, *(str(each).format(tmp_path) for each in arguments))
    assert ended == code and words in text and "Traceback" not in text, text
    assert not (tmp_path / "a").exists()
