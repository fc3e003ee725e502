"""caffe-from-torch: what names a module, weights, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pycaffe_compat.commands import from_torch
from pycaffe_compat.net import Net

SOURCE = """
import torch
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.act = nn.GELU() if ACT else nn.ReLU()

    def forward(self, data):
        return self.act(self.conv(data))

ACT = False
made = Small()

def broken():
    raise KeyError("width")

def gelu():
    global ACT
    ACT = True
    return Small()
"""
FILES = ["net.prototxt", "net.caffemodel"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the source of a module."""
    monkeypatch.chdir(tmp_path)
    Path("small_module.py").write_text(SOURCE)
    return tmp_path


def convert(capfd: pytest.CaptureFixture[str], module: str, *arguments: str) -> str:
    """Run the command; return what it said, with the exit status before it."""
    status = from_torch.main([module, *FILES, *arguments])
    said = capfd.readouterr()
    return f"{status or 0}: {said.out}{said.err}"


def test_a_module_of_a_file_with_weights(capfd):
    torch.manual_seed(3)
    conv = nn.Conv2d(3, 4, 3)
    torch.save({f"conv.{name}": value for name, value in conv.state_dict().items()}, "weights.pt")
    said = convert(capfd, "small_module.py:Small", "--input", "1x3x7x6", "--weights", "weights.pt", "--name", "tiny")
    assert said.startswith("0: ") and "input data: 1×3×7×6" in said and "output conv: 1×4×5×4" in said
    assert [line.split()[1] for line in said.splitlines() if line.startswith("conv")] == ["1", "2"]
    net, x = Net(FILES[0], "TEST", weights=[FILES[1]]), torch.randn(2, 3, 7, 6)
    assert net.caffe_name == "tiny"
    with torch.no_grad():
        torch.testing.assert_close(net(data=x)["conv"], conv(x).relu())


def test_a_module_that_is_imported_and_a_program(capfd):
    assert convert(capfd, "small_module:made", "--input", "1,3,7,6", "--mean", "0.4,0.5,0.6").startswith("0: ")
    program = torch.export.export(nn.ReLU(), (torch.zeros(1, 4),))
    torch.export.save(program, "relu.pt2")
    said = convert(capfd, "relu.pt2")
    assert said.startswith("0: ") and "note: the module is valid only for the batch size of the example" in said


@pytest.mark.parametrize(
    ("module", "arguments", "why"),
    [
        ("small_module.py:gelu", [], "Small cannot be written as a Caffe net: act (GELU): no layer computes gelu"),
        ("small_module.py:broken", [], "small_module.py:broken() fails: KeyError: 'width'"),
        ("small_module.py:Smaller", [], "small_module.py has no Smaller"),
        ("small_module.py:torch", [], "must be a torch.nn.Module, or make one, but is of type module"),
        ("small_module.py", [], "must be net.pt2, package.module:NAME or file.py:NAME"),
        ("no_such_module:Net", [], "no_such_module cannot be imported: ModuleNotFoundError"),
        ("none.py:Net", [], "none.py"),
        ("small_module.py:Small", ["--weights", "none.pt"], "none.pt"),
        (
            "small_module.py:Small",
            ["--weights", "small_module.py"],
            "small_module.py is not a state_dict of this module",
        ),
        ("none.pt2", [], "none.pt2"),
    ],
)
def test_faults_are_one_line(module, arguments, why, capfd):
    given = [] if module.endswith(".pt2") else ["--input", "1,3,7,6"]
    said = convert(capfd, module, *given, *arguments)
    assert said.startswith("1: ") and why in said and len(said.splitlines()) == 1
    assert not any(Path(file).exists() for file in FILES)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["small_module.py:Small"], "--input is missing"),
        (["small_module.py:Small", "--input", "3,x"], '"3,x" is not a shape'),
        (["small_module.py:Small", "--input", "1,3,7,6", "--std", "1,1,1"], "--std without --mean"),
        (["small_module.py:Small", "--input", "1,3,7,6", "--mean", "1,1"], '"1,1" is not three numbers'),
        (["net.pt2", "--input", "1,3"], "net.pt2 has its own inputs and weights"),
    ],
)
def test_usage(arguments, why, capfd):
    module, *rest = arguments
    with pytest.raises(SystemExit, match="2"):
        convert(capfd, module, *rest)
    assert why in capfd.readouterr().err
