"""Fields of forks in nets and solvers: noted, refused, or the fork that the user names."""

import logging
from pathlib import Path

import pytest

import pycaffe_compat
from pycaffe_compat.errors import LayerError, SolverError, UnknownNameError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import assume_fork, caffe_pb2, parse_text, read_net, read_solver
from pycaffe_compat.solver import Solver

NET = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
layer { name: "r" type: "ReLU" bottom: "x" top: "y" }"""


@pytest.fixture
def solver_file(tmp_path: Path):
    (tmp_path / "net.prototxt").write_text(NET)

    def write(fields: str) -> str:
        (tmp_path / "solver.prototxt").write_text(f'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" {fields}')
        return str(tmp_path / "solver.prototxt")

    return write


def test_fields_that_steer_speed_are_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    fields = "default_forward_type: FLOAT16 default_backward_type: FLOAT16 reduce_buckets: 3"
    layer = 'layer { name: "s" type: "ReLU" bottom: "y" top: "z" forward_type: FLOAT debug: true }'
    with caplog.at_level(logging.INFO):
        Net(parse_text(f"{fields} {NET} {layer}", caffe_pb2.NetParameter), "TEST")
    text = "\n".join(record.getMessage() for record in caplog.records)
    assert text.count("default_forward_type of NVIDIA Caffe (nvidia) has no effect here: the number types") == 1
    assert "reduce_buckets of NVIDIA Caffe" in text and "debug of NVIDIA Caffe" in text


def test_a_field_that_says_what_holds_without_it_is_fine() -> None:
    layer = 'layer { name: "n" type: "Pooling" bottom: "x" top: "z" pooling_param { avg_include_pad: true kernel_size: 1 } }'
    with pytest.raises(LayerError, match="pools over 1 to 3 axes"):  # it was built
        Net(parse_text(f"{NET} {layer}", caffe_pb2.NetParameter), "TEST")


def test_options_that_a_layer_of_that_type_does_not_read_are_noted(caplog: pytest.LogCaptureFixture) -> None:
    layer = 'layer { name: "n" type: "TanH" bottom: "x" top: "z" softmax_param { normalize_type: "L2" } }'
    with caplog.at_level(logging.INFO):
        Net(parse_text(f"{NET} {layer}", caffe_pb2.NetParameter), "TEST")
    assert "softmax_param.normalize_type" in caplog.text and "a TanH layer does not read it" in caplog.text


def test_a_solver_refuses_what_would_change_training_all_at_once(solver_file) -> None:
    with pytest.raises(SolverError, match="not supported: ") as caught:
        Solver(solver_file("clip_weights: 2 clamp_weights_lower: 1"))
    message = str(caught.value)
    assert "clip_weights of Caffe for faces and Windows (happynear), which limits weights" in message
    assert "clamp_weights_lower of Caffe for faces" in message


def test_how_detections_are_scored_is_no_more_than_noted_without_them(solver_file, caplog) -> None:
    with caplog.at_level(logging.INFO):
        Solver(solver_file("eval_type: 'classification' ap_version: 'MaxIntegral'"))
    assert "ap_version of SSD (ssd)" in caplog.text and "how eval_type detection averages precision" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO):
        Solver(solver_file("eval_type: 'detection' ap_version: '11point'"))
    assert "ap_version of" not in caplog.text


def test_the_named_fork_goes_from_solver_to_nets(solver_file) -> None:
    path = solver_file("")
    assert Solver(path, fork="pspnet").net.param.fork == "pspnet"
    assert read_solver(path).fork == ""
    assert pycaffe_compat.SGDSolver(path, fork="segnet").net.module.param.fork == "segnet"


def test_a_fork_can_be_named_for_all_files(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    assume_fork("segnet")
    try:
        assert read_net(tmp_path / "net.prototxt").fork == "segnet"
        assert read_net(tmp_path / "net.prototxt", "ssd").fork == "ssd"
    finally:
        assume_fork("")
    assert read_net(tmp_path / "net.prototxt").fork == ""


def test_an_unknown_fork_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(NET)
    with pytest.raises(
        UnknownNameError, match=r'unknown fork of Caffe "segnett" \(did you mean segnet\?\); known: bvlc, '
    ):
        pycaffe_compat.load(tmp_path / "net.prototxt", fork="segnett")


def test_every_note_is_about_a_field_of_that_fork() -> None:
    from pycaffe_compat.forks import all_forks

    for fork in all_forks():
        for name in (*fork.speed, *fork.refused):
            message, _, field = name.partition(".")
            assert fork.name in caffe_pb2.ADDITIONS.fields.get((message, field), ()), f"{fork.name}: {name}"
