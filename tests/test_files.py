import os
import stat
import subprocess
import sys

import pytest
import warm_start

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.files import (
    atomic_path,
    open_text,
    refuse_overwriting,
    remove_strays,
    require_writable,
    staged_path,
)


def write(path, text="new"):
    with atomic_path(path) as temporary, open(temporary, "w") as file:
        file.write(text)


def test_what_is_written_has_its_name_when_it_is_whole(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with atomic_path(tmp_path / "a.txt") as temporary:
        assert temporary.endswith(".txt") and os.path.dirname(temporary) == str(tmp_path)
        assert (tmp_path / "a.txt").read_text() == "old"
        (tmp_path / os.path.basename(temporary)).write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_breaks_off_leaves_what_was_there(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a"):
        raise KeyboardInterrupt
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_links_are_followed(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far/file").write_text("old")
    (tmp_path / "link").symlink_to("far/file")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "far/file").read_text() == "new"
    (tmp_path / "later").symlink_to("far/later")
    write(tmp_path / "later")
    assert (tmp_path / "far/later").read_text() == "new"


def test_long_names(tmp_path):
    write(tmp_path / ("x" * 250))
    assert (tmp_path / ("x" * 250)).read_text() == "new"


@pytest.mark.parametrize("check", [write, require_writable])
def test_what_cannot_be_written_is_found_before_the_work(tmp_path, check):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CaffeError, match="folder: it is a folder"):
        check(tmp_path / "folder")
    with pytest.raises(CaffeError, match=r"cannot write .*gone/a: No such file or directory \(folder .*gone\)"):
        check(tmp_path / "gone" / "a")
    with pytest.raises(CaffeError, match="cannot write"):
        check("")
    if os.geteuid():
        (tmp_path / "kept").touch(mode=0o444)
        with pytest.raises(CaffeError, match="kept: it is write-protected"):
            check(tmp_path / "kept")


def test_a_check_leaves_nothing(tmp_path):
    require_writable(tmp_path / "a")
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no /dev/stdout")
def test_pipes_and_devices_stay_what_they_are(tmp_path):
    code = (
        "from pycaffe_compat.files import atomic_path\n"
        "with atomic_path('/dev/stdout') as path, open(path, 'w') as file: file.write('through a pipe')"
    )
    assert warm_start.run("-c", code).stdout == "through a pipe"
    write(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


FULL_DISK = """
import resource
import numpy as np
from pycaffe_compat.convert import Model, write_model
from pycaffe_compat.errors import CaffeError
model = Model("memory", {str(i): [np.ones(1000, "f4")] for i in range(9)})
for suffix in (".caffemodel", ".h5", ".pt", ".safetensors", ".npz"):
    for room in (0, 1000, 4096, 20_000, 30_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            write_model("a" + suffix, model)
        except CaffeError as error:
            assert str(error).startswith(f"cannot write a{suffix}: ") and "File too large" in str(error), error
            assert len(str(error).splitlines()) == 1, error
        else:
            raise AssertionError((suffix, room))
"""


def test_a_full_disk_is_one_error_and_leaves_nothing(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", FULL_DISK]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")  # HDF5 by itself crashes when the process ends
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path, umask):
    before = os.umask(umask)
    try:
        write(tmp_path / "a")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~umask


SNAPSHOTS = r".*_iter_\d+\.(caffemodel|solverstate)(\.h5)?"
KILLED = """
import os, sys, time
from pycaffe_compat.files import atomic_path
with atomic_path(sys.argv[1]) as temporary, open(temporary, "wb") as file:
    file.write(b"half")
    file.flush()
    print(temporary, flush=True)
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
"""


def writer(path, end):
    """A process that writes ``path`` until there is a file ``end``, and the name that it writes under."""
    process = warm_start.start("-c", KILLED, path, end)
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize("name", ["a_iter_7.caffemodel", "a_iter_7.solverstate.h5", f"{'x' * 150}_iter_7.caffemodel"])
def test_only_what_dead_writers_left_is_removed(tmp_path, tmp_path_factory, name):
    end = tmp_path_factory.mktemp("end") / "end"
    dead, left = writer(tmp_path / name, end)
    alive, kept = writer(tmp_path / name, end)
    dead.kill()
    dead.wait()
    others = [
        ".notes",
        ".a.txt.abcdefgh.txt",
        ".a_iter_7.caffemodel",
        "a_iter_1.caffemodel",
        ".a_iter_7.png.abcdefgh.png",
    ]
    for other in others:
        (tmp_path / other).write_text("")
    assert remove_strays(tmp_path, SNAPSHOTS) == [left]
    assert sorted(os.listdir(tmp_path)) == sorted([*others, os.path.basename(kept)])
    end.touch()
    assert alive.wait() == 0 and (tmp_path / name).read_bytes() == b"half"
    assert remove_strays(tmp_path, SNAPSHOTS) == []


def test_staged_files_take_their_places_together(tmp_path):
    (tmp_path / "net.py").write_text("old")
    with staged_path(tmp_path / "net.py") as staged:
        assert os.path.basename(staged) == "net.py" and os.listdir(os.path.dirname(staged)) == []
        write(staged)
        write(os.path.join(os.path.dirname(staged), "net.weights"))
        assert (tmp_path / "net.py").read_text() == "old" and not (tmp_path / "net.weights").exists()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"net.py": "new", "net.weights": "new"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, CaffeError])
def test_staged_files_that_fail_leave_what_was_there(tmp_path, error):
    (tmp_path / "net").write_text("old")
    with pytest.raises(error) as raised, staged_path(tmp_path / "net") as staged:
        write(staged)
        raise error(f"{staged} is wrong")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"net": "old"}
    assert error is not CaffeError or str(raised.value) == f"{tmp_path}/net is wrong"


@pytest.mark.parametrize("path", ["/dev/null", "nowhere/net", "."])
def test_staging_needs_a_file_in_a_folder(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CaffeError, match="cannot write"), staged_path(path):
        pass
    assert os.listdir(tmp_path) == []


def test_what_is_read_is_not_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("a")
    os.symlink("a", "b")
    refuse_overwriting("c", "a", "")
    with pytest.raises(CaffeError, match="b is a, which is an input"):
        refuse_overwriting("b", "c", "a")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_of_windows_is_read(tmp_path, encoding):
    (tmp_path / "list.txt").write_text("é.jpg 1\r\nb.jpg 2\r\n", encoding=encoding, newline="")
    with open_text(tmp_path / "list.txt") as file:
        assert list(file) == ["é.jpg 1\n", "b.jpg 2\n"]


def test_names_in_no_encoding_stay_and_pipes_are_read_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = subprocess.Popen(["sh", "-c", f"printf 'a\\377 1' > {tmp_path / 'pipe'}"])
    with open_text(tmp_path / "pipe") as file:
        assert os.fsencode(file.read()) == b"a\xff 1"
    assert writer.wait(10) == 0
