"""The installed commands: each is the main of a tool."""

import importlib
import runpy

import pytest
from console_scripts import ROOT, SCRIPTS

IN_THE_REPOSITORY = {"demo", "train_stages"}  # these work on its prototxt/


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
    tools = {path.stem for path in (ROOT / "tools").glob("*.py")} - IN_THE_REPOSITORY
    assert {f"caffe-{tool}".replace("_", "-") for tool in tools - {"caffe"}} | {"caffe-compat"} == set(SCRIPTS)


def test_the_documented_commands_are_these() -> None:
    text = (ROOT / "docs/commands.md").read_text()
    assert all(f"`{name}`" in text for name in SCRIPTS)
