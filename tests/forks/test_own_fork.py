"""A fork of the user's own: its caffe.proto, its layers, a plug-in that brings both."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import warm_start

from pycaffe_compat import proto

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "forks.md").read_text("utf-8").partition("## Your own fork")[2]
CAFFE = Path(proto.__file__).with_name("caffe.proto").read_text("utf-8")
NET = """
input: "x" input_dim: [2, 3, 4, 4]
layer { name: "g" type: "Gain" bottom: "x" top: "y" gain_param { filler { value: 3 } } }
"""
# What the tests do runs in a process of its own: a fork of one's own is there for the whole process.
BEGIN = "import torch, pycaffe_compat\nfrom pycaffe_compat.errors import CaffeError\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of the page: BVLC's caffe.proto with the page's additions, and a net."""
    field, message = blocks("protobuf")[0].replace("  …\n", "").split("}\n", 1)
    changed = CAFFE.replace("message LayerParameter {", field, 1) + message
    (tmp_path / "my_caffe.proto").write_text(changed)
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path


def run(folder: Path, code: str, *begin: str) -> str:
    text = "\n".join([BEGIN, *begin, textwrap.dedent(code)])
    done = warm_start.run("-c", text, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_example_of_the_page_runs(folder: Path) -> None:
    code = blocks("python")[0]
    assert len(code.strip().splitlines()) <= 20
    print_it = "print(net(x=torch.ones(2, 3, 4, 4))['y'].unique().tolist(), net.param.fork)"
    assert run(folder, print_it, code) == "[3.0] my_caffe\n"


def test_binary_files_have_the_forks_own_numbers(folder: Path) -> None:
    code = """
    net.save("net.caffemodel")
    from pycaffe_compat.proto import read_net
    again = read_net("net.caffemodel")
    print(again.fork, again.layer[1].gain_param.filler.value)
    data = open("net.caffemodel", "rb").read()
    number = (300 << 3 | 2).to_bytes(2, "little")  # as a varint: 0xe2 0x12
    print(b"\\xe2\\x12" in data)
    """
    assert run(folder, code, blocks("python")[0]) == "my_caffe 3.0\nTrue\n"


def test_it_stands_beside_the_forks_that_are_known(folder: Path) -> None:
    code = """
    from pycaffe_compat.proto import caffe_pb2, parse_text, use_proto, read_solver
    old = parse_text('layer { type: "Permute" permute_param { order: 1 } }', caffe_pb2.NetParameter)
    print(use_proto("my_caffe.proto"), use_proto("my_caffe.proto"))
    new = parse_text('layer { type: "Permute" permute_param { order: 1 } gain_param {} }', caffe_pb2.NetParameter)
    print(pycaffe_compat.proto.read_net(old).layer[0].permute_param.order)
    net = pycaffe_compat.CaffeModule(parse_text(
        'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: [2, 3] } } }'
        'layer { name: "p" type: "Permute" bottom: "x" top: "y" permute_param { order: 1 } }', caffe_pb2.NetParameter), "TEST")
    print(net.blob_shapes["y"])
    """
    assert run(folder, code) == "my_caffe my_caffe\n[1]\n(3, 2)\n"


def test_a_name_of_another_kind_is_the_users(folder: Path) -> None:
    path = folder / "my_caffe.proto"
    path.write_text(
        path.read_text().replace("optional GainParameter gain_param = 300;", "optional string gain_param = 300;")
        + "message BNParameter { optional string frozen = 1; }"
    )
    code = """
    from pycaffe_compat.proto import caffe_pb2, use_proto
    use_proto("my_caffe.proto")
    print(caffe_pb2.BNParameter(frozen="hard").frozen, caffe_pb2.LayerParameter(gain_param="g").gain_param)
    """
    assert run(folder, code) == "hard g\n"


CLASHES = """
optional PriorBoxParameter prior_box_param = 203;
}
message PriorBoxParameter {
  optional float min_size = 1; optional float max_size = 2; repeated float aspect_ratio = 3;
  optional bool flip = 4 [default = true]; optional bool clip = 5 [default = true]; repeated float variance = 6;
  optional uint32 img_size = 7; optional uint32 img_h = 8; optional uint32 img_w = 9; optional float step = 10;
  optional float step_h = 11; optional float step_w = 12; optional float offset = 13 [default = 0.25];
}
message UpsampleParameter { optional string scale = 1;
"""


def test_its_own_defaults_numbers_and_kinds_hold_for_known_layers(folder: Path) -> None:
    """A fork that takes one min_size and clips, strides by 2, swaps two values of an enum, and has kinds of its own."""
    start, end = CAFFE.index("message PoolingParameter"), CAFFE.index("message PowerParameter")
    pooling = re.sub(r"(uint32 stride = 3 \[default = )1", r"\g<1>2", CAFFE[start:end])
    pooling = re.sub(r"MAX = 0;\s+AVE = 1;", "AVE = 0; MAX = 1;", pooling)
    solver = re.sub(r"(average_loss = 33 \[default = )1", r"\g<1>20", CAFFE[:start])
    solver = re.sub(r"(type = 40 \[default = \")SGD", r"\g<1>Adam", solver)
    changed = (
        solver
        + pooling
        + CAFFE[end:].replace("optional float negative_slope = 1 [default = 0]", "optional string negative_slope = 1")
    )
    start = changed.index("message LayerParameter {")
    end = changed.index("\n}\n", start)
    (folder / "my_caffe.proto").write_text(changed[:end] + CLASHES + changed[end:])
    code = """
    import logging
    logging.basicConfig(level=logging.WARNING, stream=__import__("sys").stdout, format="%(message)s")
    from pycaffe_compat.proto import caffe_pb2, parse_text, read_net, read_solver
    INPUT = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: [1, 2, 9, 9] } } }'
    def load(layer):
        text = f'{INPUT} layer {{ name: "l" bottom: "x" top: "y" {layer} }}'
        try:
            return pycaffe_compat.CaffeModule(parse_text(text, caffe_pb2.NetParameter), proto="my_caffe.proto")
        except CaffeError as error:
            print(error)
    load('type: "TanH"')
    priors = 'type: "PriorBox" bottom: "x" prior_box_param { min_size: 3 max_size: 5 '
    layer = load(priors + "}").layers["l"]
    print(layer.clip, layer.offset)
    load(priors + "min_size: 4 }")
    net = load('type: "Pooling" pooling_param { pool: MAX kernel_size: 3 }')
    print(net.blob_shapes["y"])
    net.save("net.caffemodel")
    print(b"\\x08\\x01" in open("net.caffemodel", "rb").read(), read_net("net.caffemodel").layer[1].pooling_param.pool)
    load('type: "Upsample" upsample_param { scale: "two" }')
    open("solver.prototxt", "w").write('momentum: 0.9 solver_mode: CPU')
    open("other.prototxt", "w").write('average_loss: 3 type: "SGD"')
    for file in ("solver.prototxt", "other.prototxt"):
        for fork in ("my_caffe", ""):
            param = read_solver(file, fork)
            print(param.type, param.average_loss, param.solver_mode, param.momentum2)
    """
    lines = run(folder, code).splitlines()
    assert "read as in BVLC's Caffe: ReLUParameter.negative_slope, which is float and not string" in lines[0]
    assert lines[1] == "True 0.25"
    assert (
        "prior_box_param.min_size is given 2 times, but my_caffe.proto (my_caffe) takes one; several work only in SSD"
        in lines[2]
    )
    assert lines[3:5] == ["(1, 2, 4, 4)", "True 0"]
    assert "upsample_param.scale has a different kind in my_caffe.proto (my_caffe) than in YOLO (yolo)" in lines[5]
    own, plain, given, same = (line.split() for line in lines[6:])
    assert own[:3] == ["Adam", "20", "0"]
    assert plain[:3] == ["SGD", "1", "0"]
    assert given == same
    assert given[:2] == ["SGD", "3"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("message {", "does not compile: [^;]*my_caffe.proto"),
        ("message A { optional B b = 1; }", 'does not compile: [^;]*my_caffe.proto:1:22: "B" is not defined'),
        (
            'syntax = "proto2"; message Other { optional int32 a = 1; }',
            "not a caffe.proto: it has no message NetParameter",
        ),
        (None, "caffe.proto not found"),
    ],
)
def test_a_file_that_is_no_caffe_proto_is_one_error(folder: Path, text: str | None, words: str) -> None:
    path = folder / "my_caffe.proto"
    path.unlink() if text is None else path.write_text(text)
    code = """
    try:
        pycaffe_compat.load("net.prototxt", proto="my_caffe.proto")
    except CaffeError as error:
        print(error)
    """
    assert re.search(words, run(folder, code))


def test_without_the_compiler_the_error_says_what_to_install(folder: Path) -> None:
    code = """
    try:
        pycaffe_compat.load("net.prototxt", proto="my_caffe.proto")
    except CaffeError as error:
        print(error)
    """
    hide = "import sys; sys.modules['grpc_tools'] = None"
    assert "pip install pycaffe_compat[proto]" in run(folder, code, hide)


def test_a_plug_in_brings_messages_and_layers(folder: Path) -> None:
    protoc = [sys.executable, "-m", "grpc_tools.protoc", "-I.", "--include_imports"]
    subprocess.run([*protoc, "--descriptor_set_out=my_caffe.binpb", "my_caffe.proto"], cwd=folder, check=True)
    classes = blocks("python")[0].split("\nnet = ")[0]
    (folder / "my_caffe_layers.py").write_text(blocks("python")[1] + classes)
    (folder / "my_caffe.proto").unlink()
    info = folder / "my_caffe_layers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_caffe_layers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(blocks("toml")[0].replace("[project.entry-points.", "[").replace('"', ""))
    code = """
    net = pycaffe_compat.load("net.prototxt")
    print(net(x=torch.ones(2, 3, 4, 4))["y"].unique().tolist())
    """
    assert run(folder, code) == "[3.0]\n"


def test_the_command_line_takes_it(folder: Path) -> None:
    (folder / "layers.py").write_text(blocks("python")[0].split("\nnet = ")[0])
    code = """
    import layers
    from pycaffe_compat.commands.show_net import main
    print(main(["net.prototxt", "--proto", "my_caffe.proto"]))
    """
    out = run(folder, code)
    assert "Gain" in out and out.endswith("0\n")
