"""The staged training: which solver files in which order, real runs of the trainer, going on after a stop."""

import os
import signal
from pathlib import Path

import paper_nets
import pytest
import warm_start

from pycaffe_compat.errors import MissingFileError, SolverError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, read_weights
from pycaffe_compat.swwae import Decoder
from pycaffe_compat.swwae.generate import VARIANTS
from pycaffe_compat.swwae.stages import stages, train_in_stages

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/train_stages.py"
NET = """
layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param {
  shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 } data_filler { type: "gaussian" std: 1 } data_filler { value: 1 } } }
layer { name: "%s" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
SOLVER = """
net: "%s" base_lr: 0.01 lr_policy: "fixed" max_iter: %d snapshot: 2 snapshot_prefix: "%s" display: 1 solver_mode: CPU
test_iter: 1 test_interval: 2 random_seed: 1
"""


def write_solver(folder, name, layer="ip", iterations=4):
    path = folder / f"{name}_solver.prototxt"
    path.parent.mkdir(parents=True, exist_ok=True)
    net = folder / f"{name}.prototxt"
    net.write_text(NET % layer)
    path.write_text(SOLVER % (net, iterations, folder / "snapshots" / name.replace("/", "_")))
    (folder / "snapshots").mkdir(exist_ok=True)
    return path


@pytest.mark.parametrize("decoder", VARIANTS, ids=lambda each: each.name)
def test_the_steps_are_the_papers(decoder):
    found = stages(decoder)
    assert [stage.step for stage in found] == ([2, 4] if decoder.objective == "layerwise" else [2, 3, 4])
    files = paper_nets.files()
    assert all(stage.solver in files for stage in found)
    assert found[0].solver == f"prototxt/decoder/{decoder.kind}_layerwise_solver.prototxt"
    assert found[-1].solver == f"prototxt/{decoder.name}_solver.prototxt"


def test_the_encoder_is_fixed_until_the_last_step():
    files = paper_nets.files()
    for stage in stages(Decoder("swwae", "all")):
        solver = parse_text(files[stage.solver], caffe_pb2.SolverParameter)
        net = parse_text(files[solver.net], caffe_pb2.NetParameter)
        rates = {each.param[0].lr_mult for each in net.layer if each.type == "Convolution"}
        assert rates == ({1} if stage.step == 4 else {0})
        weights = {each.loss_weight[0] for each in net.layer if each.type == "EuclideanLoss"}
        assert (weights == {1}) == (stage.step < 4)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_waits_for_the_trainers_snapshot(tmp_path, number):
    write_solver(tmp_path, "prototxt/decoder/swwae_layerwise", "dec", 10**9)
    write_solver(tmp_path, "prototxt/swwae_layerwise", "dec")
    (tmp_path / "vgg.prototxt").write_text(NET % "ip")
    Net(str(tmp_path / "vgg.prototxt")).save(tmp_path / "vgg.caffemodel")
    command = [TOOL, "swwae_layerwise", "--weights", "vgg.caffemodel"]
    with warm_start.start(*command, cwd=tmp_path, session=True) as process:
        for line in process.stderr:
            if "Iteration 10 " in line:
                break
        # Ctrl-C reaches all processes of a terminal, what ends a job often the first alone.
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        rest = process.communicate()[1]
    assert process.returncode == 128 + number, rest
    assert "Snapshotting solver state" in rest and "the same command resumes from the newest snapshot" in rest
    assert not [name for name in os.listdir(tmp_path / "snapshots") if name.startswith(".")]


def test_all_steps_run_and_a_stopped_one_goes_on(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_solver(tmp_path, "prototxt/decoder/swwae_layerwise", "dec")
    write_solver(tmp_path, "prototxt/swwae_layerwise", "dec")
    with pytest.raises(MissingFileError, match="the weights of the classification net"):
        train_in_stages(Decoder("swwae", "layerwise"), "vgg.caffemodel")
    (tmp_path / "vgg.prototxt").write_text(NET % "ip")
    Net("vgg.prototxt").save("vgg.caffemodel")
    decoder = Decoder("swwae", "layerwise")
    with pytest.raises(SolverError, match="step 2 did not finish"):
        train_in_stages(decoder, "vgg.caffemodel", iterations=2)
    final = train_in_stages(decoder, "vgg.caffemodel")
    assert final == stages(decoder)[-1].weights()
    assert os.path.exists(final)
    said = capfd.readouterr().out
    assert "from " + stages(decoder)[0].newest_state().replace("_iter_4", "_iter_2") in said
    assert "dec" in read_weights(final)
    assert train_in_stages(decoder, "vgg.caffemodel") == final
    assert capfd.readouterr().out.count("done before") == 2


def test_a_step_that_fails_says_why_and_is_taken_up_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_solver(tmp_path, "prototxt/decoder/swwae_layerwise", "dec")
    write_solver(tmp_path, "prototxt/swwae_layerwise", "dec")
    (tmp_path / "vgg.prototxt").write_text(NET % "ip")
    Net("vgg.prototxt").save("vgg.caffemodel")
    net = tmp_path / "prototxt/decoder/swwae_layerwise.prototxt"
    right = net.read_text()
    net.write_text(right.replace("InnerProduct", "InnerProdcut"))
    with pytest.raises(
        SolverError, match=r'step 2 did not finish: .*unknown layer type "InnerProdcut".*the same command'
    ):
        train_in_stages(Decoder("swwae", "layerwise"), "vgg.caffemodel")
    net.write_text(right)
    assert os.path.exists(train_in_stages(Decoder("swwae", "layerwise"), "vgg.caffemodel"))


def test_several_processes_go_through_the_steps_together(tmp_path):
    write_solver(tmp_path, "prototxt/decoder/swwae_layerwise", "dec")
    write_solver(tmp_path, "prototxt/swwae_layerwise", "dec")
    (tmp_path / "vgg.prototxt").write_text(NET % "ip")
    Net(str(tmp_path / "vgg.prototxt")).save(tmp_path / "vgg.caffemodel")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(TOOL)]
    options = ["swwae_layerwise", "--weights", "vgg.caffemodel", "--trainer-options", "--cpu --no-progress"]
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = warm_start.run(*torchrun, *options, cwd=tmp_path, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("step 2") == done.stdout.count("step 4") == 1
    assert done.stderr.count("Starting Optimization") == 2
    assert (tmp_path / "snapshots/prototxt_swwae_layerwise_iter_4.caffemodel").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [("--itertions 3", "did you mean iterations"), ("--iterations 3", "change max_iter in the solver files")],
)
def test_options_of_the_trainer_are_its_own(tmp_path, given, said):
    (tmp_path / "prototxt").mkdir()
    options = ["--weights", "a", "--trainer-options", given]
    done = warm_start.run(TOOL, "swwae_layerwise", *options, cwd=tmp_path)
    assert done.returncode == 2 and given.split()[0] in done.stderr and said in done.stderr


def test_killed_anywhere_the_same_command_goes_on(tmp_path):
    write_solver(tmp_path, "prototxt/decoder/swwae_layerwise", "dec", 60)
    write_solver(tmp_path, "prototxt/swwae_layerwise", "dec", 60)
    (tmp_path / "vgg.prototxt").write_text(NET % "ip")
    Net(str(tmp_path / "vgg.prototxt")).save(tmp_path / "vgg.caffemodel")
    command = [TOOL, "swwae_layerwise", "--weights", "vgg.caffemodel"]
    for line in ("Iteration 7 ", "Snapshotting solver state", "step 4"):
        with warm_start.start(*command, cwd=tmp_path, merged=True) as process:
            seen = next((said for said in process.stdout if line in said), "")
            process.kill()
        assert seen, line
    done = warm_start.run(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    left = os.listdir(tmp_path / "snapshots")
    assert "prototxt_swwae_layerwise_iter_60.caffemodel" in left and not [n for n in left if n.startswith(".")]
