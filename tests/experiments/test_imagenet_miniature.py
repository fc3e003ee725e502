"""The miniature ILSVRC of experiments/imagenet: its archives, its measuring, its section of docs/imagenet.md."""

import shutil
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from pycaffe_compat.data.ilsvrc import read_devkit, write_lists
from pycaffe_compat.errors import CaffeError, DataError

ROOT = Path(__file__).parents[2]
NAMES = ("n00000003_great_white_shark.JPEG", "n00000001_tench.JPEG", "n00000002_hen.JPEG", "n00000004_kite.JPEG")


@pytest.fixture
def miniature(monkeypatch):
    """The script, as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments/imagenet"))
    import miniature

    yield miniature
    for name in ("miniature", "results_page", "results_table"):
        sys.modules.pop(name, None)


def zip_of(path, names, content=None):
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            picture = np.full((20, 30, 3), 60 * number, np.uint8)
            archive.writestr(name, content or cv2.imencode(".jpg", picture)[1].tobytes())
    return str(path)


def test_from_photographs_to_the_page(miniature, tmp_path):
    page, results, work = tmp_path / "imagenet.md", tmp_path / "results.csv", tmp_path / "work"
    shutil.copy(ROOT / "docs/imagenet.md", page)
    photographs = zip_of(tmp_path / "photographs.zip", NAMES)
    where = ["--work", str(work), "--results", str(results), "--page", str(page)]
    assert miniature.main(["--photographs", photographs, *where, "--until", "4"]) == 0
    assert len(list((work / "ILSVRC2012/train").glob("*.tar"))) == 4
    first = results.read_text()

    assert miniature.main(["--photographs", photographs, *where, "--until", "5"]) == 0  # goes on, begins nothing again
    assert results.read_text().startswith(first)
    rows = miniature.Table(results, miniature.COLUMNS).rows()
    assert [row["number"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row["command"] for row in rows[1:]] == miniature.page_commands(page)[:4]
    assert rows[0]["peak_mb"] > 30 and rows[2]["peak_mb"] < 30
    text = page.read_text()
    assert text.count("## What it takes") == 1 and "Not finished: 9 commands left." in text
    assert "| `tar -xf ILSVRC2012_img_val.tar -C ILSVRC2012/val` | 0." in text

    write_lists(str(work / "ILSVRC2012"), read_devkit(str(work / miniature.DEVKIT)), str(work / "ILSVRC2012"))
    assert miniature.check_lists(work) == 4
    names = (work / "ILSVRC2012/synset_words.txt").read_text().splitlines()
    assert names[0] == "n00000001 tench" and names[2] == "n00000003 great white shark"
    for line in (work / "ILSVRC2012/val.txt").read_text().splitlines():  # each picture is of one grey, its number's
        name, label = line.split()
        grey = cv2.imread(str(work / "ILSVRC2012/val" / name))
        assert min(grey.shape[:2]) == 375
        assert NAMES[round(grey.mean() / 60)].startswith(f"n0000000{int(label) + 1}")
    labels = (work / "ILSVRC2012/val.txt").read_text()
    (work / "ILSVRC2012/val.txt").write_text(labels.replace(" 1", " 0"))
    with pytest.raises(DataError, match="the labels are not those of the pictures"):
        miniature.check_lists(work)

    page.write_text(text.replace("mkdir -p ILSVRC2012/train", "mkdir ILSVRC2012/train"))
    with pytest.raises(DataError, match=r"row 1 is of another command than .*imagenet\.md's"):
        miniature.main(where)
    page.write_text(text)
    shutil.rmtree(work)
    with pytest.raises(DataError, match=r"has rows, but .*work not what they made"):
        miniature.main(where)


@pytest.mark.parametrize(
    ("names", "content", "words"),
    [
        (["tench.JPEG"], None, r"tench.JPEG is not WNID_WORDS.JPEG"),
        (["n00000001_a.JPEG", "n00000001_b.JPEG"], None, "b.JPEG is not the first photograph of its class"),
        (["n00000001_a.JPEG"], b"text", "a.JPEG is no picture"),
        ([], None, "no photographs"),
    ],
)
def test_other_archives_are_refused(miniature, tmp_path, names, content, words):
    with pytest.raises(DataError, match=words):
        miniature.make_challenge(zip_of(tmp_path / "photographs.zip", names, content), tmp_path)


def test_what_is_no_zip_is_refused(miniature, tmp_path):
    with pytest.raises(CaffeError, match="archive of photographs"):
        miniature.make_challenge(str(tmp_path / "none.zip"), tmp_path)
    (tmp_path / "text.zip").write_text("text")
    with pytest.raises(DataError, match=r"text\.zip: not a zip of photographs"):
        miniature.make_challenge(str(tmp_path / "text.zip"), tmp_path)


def test_time_memory_and_disk_are_the_commands_own(miniature, tmp_path):
    taken = miniature.run(
        f"{sys.executable} -S -c 'x = bytes(bytearray(50_000_000))' && head -c 3000000 /dev/zero > made; echo done",
        tmp_path,
    )
    assert 100e6 < taken.peak < 150e6 and taken.said == "done"
    assert taken.left == pytest.approx(3e6, rel=0.01)
    assert taken.cpu_seconds > 0
    assert miniature.run("true", tmp_path).peak < 30e6  # not that of the process that starts it
    with pytest.raises(CaffeError, match=r"status 3: echo no; exit 3; .*log\.txt ends with: no"):
        miniature.run("echo no; exit 3", tmp_path)
    with pytest.raises(CaffeError, match="status 1: for v in 1 2"):  # a loop that fails on its way
        miniature.run('for v in 1 2; do test "$v" = 2; done', tmp_path)


def test_what_is_extrapolated(miniature):
    def row(number, command, cpu, left):
        return {"number": number, "command": command, "pictures": 1000, "cpu_seconds": cpu, "left_mb": left}

    convert = "caffe-convert-imageset a b data/ilsvrc12/"
    rows = {0: row(0, "--help", 3.0, 0.0), 6: row(6, f"{convert}train_lmdb", 5.0, 40.0)}
    rows[7] = row(7, f"{convert}val_lmdb", 5.0, 40.0)
    stages = [{"step": 2, "stage": "a", "snapshot_mb": 1000.0}, {"step": 4, "stage": "a", "snapshot_mb": 2000.0}]
    text = "\n".join(miniature.extrapolated(rows, stages))
    assert "`train_lmdb`, 1,281,167 pictures: 51.2 GB and 43 minutes" in text  # 2 s for 1,000
    assert "`val_lmdb`, 50,000 pictures: 2.0 GB and 2 minutes" in text
    assert "1.0 to 2.0 GB" in text and "2 trainings leave 52 GB" in text  # 12 snapshots of 1 GB, 20 of 2 GB
    assert not list(miniature.extrapolated({}, []))


def test_a_cell_of_the_table_is_one_cell(miniature):
    for command in miniature.page_commands(ROOT / "docs/imagenet.md"):
        cell = miniature.abbreviated(command)
        assert len(cell) <= 80 and "|" not in cell.replace(r"\|", "")
        assert cell.startswith(command.split(" ")[0]) and cell.endswith(command.split(" ")[-1])
