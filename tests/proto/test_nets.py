"""Nets and solvers from files, and the layers that a state includes."""

import runpy
import sys
from pathlib import Path

import pytest
from fork_model import fork_model
from golden_files import ROOT

from pycaffe_compat.errors import CaffeError, MissingFileError, NetError, ParseError
from pycaffe_compat.proto import caffe_pb2, filter_net, parse_text, read_message, read_net, read_solver

NET = caffe_pb2.NetParameter
TOOLS = Path(__file__).parents[2] / "tools"


def golden(name):
    return parse_text((ROOT / "upgrade" / f"{name}.upgraded.prototxt").read_bytes(), NET)


def test_a_net_from_text_binary_string_or_message(tmp_path):
    old = ROOT / "upgrade" / "v0.prototxt"
    message = parse_text(old.read_bytes(), NET)
    before = message.SerializeToString()
    (tmp_path / "v0.binaryproto").write_bytes(before)
    for source in (old, str(old), old.read_text(), tmp_path / "v0.binaryproto", message):
        assert read_net(source) == golden("v0")
    assert message.SerializeToString() == before


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text('layers { layer { name: "x" type: "nope" } }')
    with pytest.raises(NetError, match=r'net\.prototxt: layer "x"'):
        read_net(path)
    path.write_text("layer { nmae: 3 }")
    with pytest.raises(ParseError, match=r"net\.prototxt:1:9: .*did you mean name"):
        read_net(path)
    path.write_bytes(b"\xa2\x06\x09\x0a\x01x")
    with pytest.raises(ParseError, match=r"net\.prototxt: not a valid binary NetParameter: .* at byte 0"):
        read_net(path)
    with pytest.raises(MissingFileError, match=r"did you mean net\.prototxt"):
        read_net(tmp_path / "net.protoxt")


def test_a_text_with_zeros_behind_it_is_no_binary_net(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(
        b'# made by hand\nname: "padded"\nlayer { name: "r" type: "ReLU" bottom: "x" top: "y" }\n' + bytes(99)
    )
    with pytest.raises(ParseError, match=r"net\.prototxt:4:1: byte 0x00 is not text; the file may be damaged"):
        read_net(path)


def test_solver_gets_its_snapshot_prefix_from_its_file(tmp_path):
    path = tmp_path / "lenet_solver.prototxt"
    path.write_text("base_lr: 0.1 solver_type: ADAM")
    solver = read_solver(path)
    assert (solver.type, solver.snapshot_prefix) == ("Adam", str(tmp_path / "lenet_solver"))
    path.write_text(f'snapshot_prefix: "{tmp_path}"')
    assert read_solver(path).snapshot_prefix == str(tmp_path / "lenet_solver")
    path.write_text('snapshot_prefix: "snapshots/x"')
    assert read_solver(path).snapshot_prefix == "snapshots/x"


RULES = """
layer { name: "always" }
layer { name: "train" include { phase: TRAIN } }
layer { name: "test" phase: TRAIN include { phase: TEST } }
layer { name: "level 2 to 4" include { min_level: 2 max_level: 4 } }
layer { name: "a and b" include { stage: "a" stage: "b" } }
layer { name: "a or b" include { stage: "a" } include { stage: "b" } }
layer { name: "a, not b" include { stage: "a" not_stage: "b" } }
layer { name: "not test" exclude { phase: TEST } }
layer { name: "neither test nor a" exclude { phase: TEST } exclude { stage: "a" } }
layer { name: "not low" exclude { max_level: 0 } }
layer { name: "empty include" include { } }
layer { name: "empty exclude" exclude { } }
"""


@pytest.mark.parametrize(
    "state, expected",
    [
        ({}, ["always", "test", "empty include"]),
        ({"phase": 0}, ["always", "train", "not test", "neither test nor a", "empty include"]),
        ({"level": 4}, ["always", "test", "level 2 to 4", "not low", "empty include"]),
        ({"level": 5, "phase": 1}, ["always", "test", "not low", "empty include"]),
        ({"stage": ["a"]}, ["always", "test", "a or b", "a, not b", "empty include"]),
        ({"stage": ["b", "a", "c"]}, ["always", "test", "a and b", "a or b", "empty include"]),
        ({"stage": ["a"], "phase": 0}, ["always", "train", "a or b", "a, not b", "not test", "empty include"]),
    ],
)
def test_filter(state, expected):
    net = parse_text(RULES + 'name: "n" force_backward: true', NET)
    state = caffe_pb2.NetState(**state)
    filtered = filter_net(net, state)
    assert [layer.name for layer in filtered.layer] == expected
    assert filtered.state == state and filtered.name == "n" and filtered.force_backward
    for layer in filtered.layer:
        assert layer.phase == (caffe_pb2.TRAIN if layer.name == "test" else state.phase)
    net.state.CopyFrom(state)
    assert filter_net(net) == filtered


def test_both_kinds_of_rules():
    with pytest.raises(NetError, match='"acc" has both include and exclude'):
        filter_net(golden("v1"), caffe_pb2.NetState())


def test_upgrade_tools(tmp_path, monkeypatch, capsys):
    def run(tool, source, target):
        monkeypatch.setattr(sys, "argv", [tool, str(source), str(target)])
        with pytest.raises(SystemExit) as done:
            runpy.run_path(str(TOOLS / tool), run_name="__main__")
        return done.value.code, *capsys.readouterr()

    code, out, err = run("upgrade_net_proto_text.py", ROOT / "upgrade" / "v0.prototxt", tmp_path / "new.prototxt")
    assert code == 0 and "V0" in out
    assert parse_text((tmp_path / "new.prototxt").read_bytes(), NET) == golden("v0")
    code, out, err = run("upgrade_net_proto_text.py", tmp_path / "new.prototxt", tmp_path / "newer.prototxt")
    assert code == 0 and "already" in out
    assert (tmp_path / "newer.prototxt").read_bytes() == (tmp_path / "new.prototxt").read_bytes()

    code, out, err = run("upgrade_net_proto_binary.py", ROOT / "upgrade" / "v1.caffemodel", tmp_path / "new.caffemodel")
    net = read_message(tmp_path / "new.caffemodel", NET)
    assert code == 0 and not net.layers
    assert [(layer.name, layer.type, len(layer.blobs)) for layer in net.layer] == [
        ("conv1", "Convolution", 2),
        ("fc", "InnerProduct", 2),
    ]

    code, out, err = run(
        "upgrade_solver_proto_text.py", ROOT / "upgrade" / "solver_v1.prototxt", tmp_path / "solver.prototxt"
    )
    want = parse_text((ROOT / "upgrade" / "solver_v1.upgraded.prototxt").read_bytes(), caffe_pb2.SolverParameter)
    assert code == 0
    assert parse_text((tmp_path / "solver.prototxt").read_bytes(), caffe_pb2.SolverParameter) == want

    code, out, err = run("upgrade_net_proto_text.py", tmp_path / "nope", tmp_path / "out")
    assert code == 1 and "not found" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("junk", [b"", b"\n", b"{", b"\x00", b"PK\x03\x04", b"\xff" * 40])
def test_junk(tmp_path, junk):
    (tmp_path / "net.prototxt").write_bytes(junk)
    try:
        assert read_net(tmp_path / "net.prototxt") == NET()
    except CaffeError as error:
        assert "net.prototxt" in str(error)


def test_an_input_that_is_read_needs_a_shape():
    relu = 'input: "data" layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'
    with pytest.raises(NetError, match=r'input "data" has no shape; give input_shape \{ dim: 1 dim: 3'):
        read_net(relu)
    made = read_net(relu + 'layer { name: "d" type: "DummyData" top: "data" }')
    assert [layer.name for layer in made.layer] == ["r", "d"]


def test_a_forks_caffemodel_is_not_a_net_but_has_weights(tmp_path):
    path = tmp_path / "fork.caffemodel"
    path.write_bytes(fork_model())
    with pytest.raises(ParseError) as caught:
        read_net(path)
    for part in (
        f"{path}: not readable as a net, as no fork of Caffe that is known here has all of its fields. The closest, ",
        'field 145 of layer "write"',
        "Its weights are readable all the same",
        f"caffe-convert-caffemodel {path} --list",
    ):
        assert part in str(caught.value)
    path.write_bytes(fork_model()[:-3])
    with pytest.raises(ParseError, match=r"field 100 declares \d+ bytes"):
        read_net(path)
