"""The installed commands: each is the main of a tool."""

import importlib
import runpy

import pytest
from console_scripts import ROOT, SCRIPTS

from pycaffe_compat.commands import train_stages


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_command_and_its_tool_are_one(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module, function = SCRIPTS[name].split(":")
    main = getattr(importlib.import_module(module), function)
    tool = "caffe" if name == "caffe-compat" else name.removeprefix("caffe-").replace("-", "_")
    assert runpy.run_path(str(ROOT / "tools" / f"{tool}.py"), run_name="imported")["main"] is main
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "usage: " in capsys.readouterr().out


def test_every_tool_is_installed() -> None:
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")}
    assert {f"caffe-{tool}".replace("_", "-") for tool in tools - {"caffe"}} | {"caffe-compat"} == set(SCRIPTS)


def test_the_documented_commands_are_these() -> None:
    text = (ROOT / "docs/commands.md").read_text()
    assert all(f"`{name}`" in text for name in SCRIPTS)


def test_stages_without_their_files_name_the_command_that_writes_them(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert train_stages.main(["swwae_all", "--weights", "vgg.caffemodel"]) == 1
    assert (
        f"no folder prototxt/ in {tmp_path}: write the paper's nets with: caffe-make-prototxt"
        in capsys.readouterr().err
    )
