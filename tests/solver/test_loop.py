"""The loop: which nets, what is logged and when, tests, accumulation, trouble."""

from __future__ import annotations

import logging
import os
import re
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_solver import RULES, make, net_text, solver_param, weights, write_files

from pycaffe_compat.errors import CaffeError, DivergedError, LayerError, MissingFileError, SolverError
from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.solver import GraphRunner, Hook, Solver, TensorBoard
from pycaffe_compat.solver.nets import test_net_params, train_net_param


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "pycaffe_compat")
    return caplog


# ---- which nets


def test_train_net_is_named_exactly_once(tmp_path: Path) -> None:
    param = solver_param(tmp_path)
    param.train_net = "other.prototxt"
    with pytest.raises(SolverError, match=r"exactly one of .*this one has 2: net_param, train_net"):
        Solver(param)
    param.ClearField("net_param")
    param.ClearField("train_net")
    with pytest.raises(SolverError, match="this one has none"):
        Solver(param)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("test_iter: 1", "test_interval: 0 must be positive"),
        ("test_net_param {} test_net_param {} test_iter: 1 test_interval: 1", "given 1 times, there are 2 test nets"),
        ("test_iter: 1 test_state {} test_state {} test_interval: 1", "test_state .* given 2 times, there are 1"),
        ("display: -1", "display: -1"),
        ("average_loss: 0", "average_loss: 0"),
        ("iter_size: 0", "iter_size: 0"),
        ("test_iter: -3 test_interval: 1", "test_iter: -3"),
        ('lr_policy: "no"', "unknown lr_policy"),
        ('type: "no"', "unknown solver type"),
    ],
)
def test_numbers_that_do_not_fit(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SolverError, match=words):
        make(tmp_path, text)


def test_without_a_generic_net_each_test_iter_needs_its_own(tmp_path: Path) -> None:
    param = solver_param(tmp_path, "test_iter: 1 test_iter: 2 test_interval: 1")
    param.train_net_param.CopyFrom(param.net_param)
    param.ClearField("net_param")
    with pytest.raises(SolverError, match="given 2 times, there are 0 test nets"):
        Solver(param)


def test_base_lr_must_be_said(tmp_path: Path) -> None:
    param = solver_param(tmp_path)
    param.ClearField("base_lr")
    with pytest.raises(SolverError, match="base_lr is not set"):
        Solver(param)


def test_order_and_states_of_test_nets(tmp_path: Path) -> None:
    (tmp_path / "file.prototxt").write_text('name: "from file" state { stage: "f" }')
    text = f"""
      net_param {{ name: "generic" state {{ level: 1 stage: "own" }} }} train_state {{ level: 2 stage: "t" }}
      test_net: "{tmp_path / "file.prototxt"}" test_net_param {{ name: "given" }}
      test_iter: 1 test_iter: 1 test_iter: 1 test_iter: 1 test_interval: 1
      test_state {{ stage: "a" }} test_state {{ stage: "b" }} test_state {{ stage: "c" }} test_state {{ level: 7 }}"""
    param = parse_text(text, caffe_pb2.SolverParameter)
    train = train_net_param(param, "").net
    assert (train.state.phase, train.state.level, list(train.state.stage)) == (caffe_pb2.TRAIN, 2, ["own", "t"])
    nets = [found.net for found in test_net_params(param, "")]
    assert [net.name for net in nets] == ["given", "from file", "generic", "generic"]
    assert [list(net.state.stage) for net in nets] == [["a"], ["f", "b"], ["own", "c"], ["own"]]
    assert [net.state.level for net in nets] == [0, 0, 1, 7]
    assert all(net.state.phase == caffe_pb2.TEST for net in nets)


def test_what_is_no_solver_is_an_error() -> None:
    with pytest.raises(SolverError, match=r"path of a prototxt or a SolverParameter, not None \(NoneType\)"):
        Solver(None)


def test_net_beside_the_solver_file_is_found(tmp_path: Path) -> None:
    path = write_files(tmp_path)
    path.write_text(path.read_text().replace(str(tmp_path / "net.prototxt"), "net.prototxt"))
    assert Solver(path).net.caffe_name == "small"


def test_a_missing_net_names_the_solver_and_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_files(tmp_path)
    text = path.read_text().replace(str(tmp_path / "net.prototxt"), "nat.prototxt")
    monkeypatch.chdir(tmp_path)
    for field, more in (
        ("net", ""),
        ("train_net", ""),
        ("test_net", 'train_net: "net.prototxt" test_iter: 1 test_interval: 1'),
    ):
        path.write_text(text.replace("net: ", f"{field}: ") + more)
        with pytest.raises(
            MissingFileError, match=rf"^solver.prototxt: {field}: net not found: nat.prototxt \(did you mean net"
        ):
            Solver("solver.prototxt")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(MissingFileError, match=f"is empty; nor is it in the solver's folder {tmp_path}$"):
        Solver(path)


def test_test_nets_use_the_parameters_of_the_train_net(tmp_path: Path) -> None:
    solver = make(tmp_path, "test_iter: 1 test_iter: 1 test_interval: 100")
    solver.step(2)
    for net in solver.test_nets:
        for name, layer in net.layers.items():
            assert all(
                a is b for a, b in zip(layer.blobs, solver.net.layers[name].blobs if layer.blobs else [], strict=True)
            )


TEST_ONLY_OWNER = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 }
  data_filler { type: "constant" value: 1 } data_filler { type: "constant" value: 3 } } }
layer { name: "p" type: "InnerProduct" bottom: "data" top: "p" param { name: "w" } param { name: "b" }
  include { phase: TEST } inner_product_param { num_output: 1 weight_filler { type: "constant" value: 0.1 } } }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" param { name: "w" } param { name: "b" }
  inner_product_param { num_output: 1 weight_filler { type: "constant" value: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "a" bottom: "label" top: "loss" }
"""


def test_a_test_only_owner_of_a_parameter_name_does_not_hide_trained_weights(tmp_path: Path, log: Any) -> None:
    param = solver_param(tmp_path, "test_iter: 1 test_interval: 100")
    param.net_param.CopyFrom(parse_text(TEST_ONLY_OWNER, caffe_pb2.NetParameter))
    solver = Solver(param)
    assert any("#0" in line and line.endswith("p: not in the training net, and so not trained") for line in lines(log))
    solver.step(3)
    w, b = (blob.double() for blob in solver.net.weights()["a"])
    scores = solver.test()
    assert scores["loss"] == pytest.approx((w.sum() + b - 3).item() ** 2 / 2, rel=1e-5)
    np.testing.assert_allclose(scores["p"], 0.3, rtol=1e-6)


def test_layers_that_differ_cannot_be_shared(tmp_path: Path) -> None:
    param = solver_param(tmp_path, "test_iter: 1 test_interval: 1")
    param.test_net_param.add().CopyFrom(
        parse_text(net_text().replace("num_output: 10", "num_output: 7"), caffe_pb2.NetParameter)
    )
    with pytest.raises(LayerError, match=r'"ip".*\(7, .*\(10, '):
        Solver(param)


def test_fine_tuning_takes_the_layers_of_every_file(tmp_path: Path, log: Any) -> None:
    first, second = make(tmp_path, "random_seed: 5"), make(tmp_path, "random_seed: 6")
    path = str(tmp_path / "a.caffemodel")
    other = str(tmp_path / "b.caffemodel")
    first.net.save(path)
    param = solver_param(tmp_path)
    for layer in param.net_param.layer:
        layer.name = layer.name.replace("ip", "ip_new").replace("conv", "conv")
    renamed = Solver(param)
    renamed.net.save(other)
    tuned = Solver(solver_param(tmp_path), weights=f"{path}, {other}")
    conv = renamed.net.layers["conv"].blobs[0]
    assert tuned.net.layers["conv"].blobs[0].equal(conv)
    assert tuned.net.layers["ip"].blobs[0].equal(first.net.layers["ip"].blobs[0])
    assert "Ignoring source layer ip_new" in lines(log)
    param = solver_param(tmp_path)
    param.weights.append(path)
    assert weights(Solver(param)) == weights(first) != weights(second)


# ---- what is logged and when


def test_log_is_caffes(tmp_path: Path, log: Any) -> None:
    solver = make(
        tmp_path,
        "display: 2 test_interval: 3 test_iter: 2 max_iter: 6 test_compute_loss: true snapshot: 4 average_loss: 2 "
        'lr_policy: "multistep" gamma: 0.5 stepvalue: 3',
    )
    solver.solve()
    text = [re.sub(r"(?<= = )[\d.e-]+|(?<=loss: )[\d.e-]+|[\d.e-]+(?= iter/s|s/)", "*", line) for line in lines(log)]
    test = ["Test loss: *", "    Test net output #0: accuracy = *", "    Test net output #1: loss = * (* 2 = * loss)"]
    train = "    Train net output #0: loss = * (* 2 = * loss)"
    model, state = f"{tmp_path}/small_iter_4.caffemodel", f"{tmp_path}/small_iter_4.solverstate"
    wanted = [
        "Solving small",
        "Learning Rate Policy: multistep",
        "Iteration 0, Testing net (#0)",
        *test,
        "Iteration 0 (* iter/s, *s/2 iters), loss = *",
        train,
        "Iteration 0, lr = *",
        "Iteration 2 (* iter/s, *s/2 iters), loss = *",
        train,
        "Iteration 2, lr = *",
        "Iteration 3, Testing net (#0)",
        *test,
        "MultiStep Status: Iteration 3, step = *",
        f"Snapshotting to binary proto file {model}",
        f"Snapshotting solver state to binary proto file {state}",
        "Iteration 4 (* iter/s, *s/2 iters), loss = *",
        train,
        "Iteration 4, lr = *",
        f"Snapshotting to binary proto file {model.replace('_4', '_6')}",
        f"Snapshotting solver state to binary proto file {state.replace('_4', '_6')}",
        "Iteration 6, loss = *",
        "Iteration 6, Testing net (#0)",
        *test,
        "Optimization Done.",
    ]
    assert text[text.index("Solving small") :] == wanted
    assert "Iteration 4, lr = 0.025" in lines(log)


def test_a_policy_without_gamma_trains_as_in_caffe_and_says_so_once(tmp_path: Path, log: Any) -> None:
    solver = make(tmp_path, 'lr_policy: "multistep" stepvalue: 2 display: 1', dropout=0)
    solver.step(2)
    trained = weights(solver)
    solver.step(2)
    assert trained == weights(solver) != weights(make(tmp_path))
    assert [line for line in lines(log) if ", lr = " in line] == [
        f"Iteration {i}, lr = {rate}" for i, rate in enumerate(("0.05", "0.05", "0", "0"))
    ]
    assert len([line for line in lines(log) if "gamma is not set" in line]) == 1


def test_the_rate_is_that_of_the_iterations_since_the_last_line(tmp_path: Path, log: Any) -> None:
    began = time.perf_counter()
    make(tmp_path, "display: 3 max_iter: 16 snapshot_after_train: false").solve()
    took = time.perf_counter() - began
    found = [re.search(r"\(([\d.e+-]+) iter/s, ([\d.e+-]+)s/3 iters\), loss", line) for line in lines(log)]
    shown = [(float(match[1]), float(match[2])) for match in found if match]
    assert [round(rate * lapse) for rate, lapse in shown] == [0, 3, 3, 3, 3, 3]
    assert sum(lapse for _, lapse in shown) <= took


def test_loss_is_the_mean_of_the_window(tmp_path: Path) -> None:
    single, averaged = make(tmp_path, dropout=0), make(tmp_path, "average_loss: 3", dropout=0)
    losses = []
    for i in range(5):
        single.step(1)
        averaged.step(1)
        losses.append(single.loss)
        assert averaged.loss == pytest.approx(np.mean(losses[max(0, i - 2) : i + 1]))


def test_scores_are_means_over_the_test_set(tmp_path: Path) -> None:
    solver = make(tmp_path, "test_interval: 100 test_iter: 4")
    scores = solver.test(0)
    net = solver.test_nets[0]
    net.sources["data"].seek({**net.sources["data"].state(), "position": 0})
    with torch.no_grad():
        runs = [net() for _ in range(4)]
    assert list(scores) == ["accuracy", "loss"]
    for name, value in scores.items():
        assert value == pytest.approx(np.mean([run[name].numpy() for run in runs]))


def test_no_test_at_the_beginning_if_not_wanted(tmp_path: Path, log: Any) -> None:
    make(tmp_path, "test_interval: 2 test_iter: 1 test_initialization: false").step(3)
    assert [line for line in lines(log) if "Testing" in line] == ["Iteration 2, Testing net (#0)"]


def test_debug_info_shows_every_blob(tmp_path: Path, log: Any) -> None:
    make(tmp_path, "display: 2 debug_info: true").step(2)
    text = "\n".join(lines(log))
    for layer in ("conv", "relu", "drop", "ip", "loss"):
        assert len(re.findall(rf"\[Forward\] Layer {layer}, top blob \w+ data: [\d.e-]+$", text, re.M)) == 1
    assert re.search(r"\[Backward\] Layer ip, bottom blob conv diff: [\d.e-]+$", text, re.M)
    assert "bottom blob label" not in text and "bottom blob data" not in text  # they need no gradient
    (norms,) = [record for record in log.records if "All net params" in record.getMessage()]
    assert norms.levelno == logging.ERROR
    assert re.search(r"\[Backward\] Layer conv, param blob 1 diff: [\d.e-]+$", text, re.M)
    assert re.search(r"\[Backward\] All net params \(data, diff\): L1 norm = \(.*\); L2 norm = \(.*\)$", text, re.M)
    assert re.search(r"\[Update\] Layer ip, param 0 data: [\d.e-]+; diff: [\d.e-]+$", text, re.M)


def test_the_update_is_kept_for_those_who_read_it(tmp_path: Path) -> None:
    class Look(Hook):
        def __init__(self, reads: bool) -> None:
            self.reads_update = reads
            self.kept: list[bool] = []
            self.before: list[Any] = []

        def after_backward(self, solver: Solver) -> None:
            self.before = [learnable.tensor.detach().clone() for learnable in solver.net.learnable]

        def after_update(self, solver: Solver) -> None:
            pairs = zip(self.before, solver.net.learnable, strict=True)
            changes = [(before - each.tensor.detach(), each.tensor.grad) for before, each in pairs]
            self.kept.append(all(torch.allclose(change, grad, atol=1e-6) for change, grad in changes))

    def trained(reads: bool, run: Callable[[Solver], Any]) -> tuple[list[bool], list[Any]]:
        torch.manual_seed(0)
        solver = make(tmp_path, "max_iter: 3 momentum: 0.9 random_seed: 1")
        look = Look(reads)
        solver.hooks.append(look)
        run(solver)
        return look.kept, [learnable.tensor.detach().clone() for learnable in solver.net.learnable]

    kept, read = trained(True, Solver.solve)
    assert kept == [True] * 3
    kept, unread = trained(False, Solver.solve)
    assert kept == [False, False, True]  # what the end of training leaves may be looked at
    assert all(map(torch.equal, read, unread))
    kept, _ = trained(False, lambda solver: solver.step(2))
    assert kept == [True] * 2


def test_hooks_and_callbacks_come_in_order(tmp_path: Path) -> None:
    seen: list[str] = []

    class Note(Hook):
        def before_training(self, solver: Solver) -> None:
            seen.append("begin")

        def before_iteration(self, solver: Solver) -> None:
            seen.append(f"before {solver.iter}")

        def after_backward(self, solver: Solver) -> None:
            assert solver.net.learnable[0].tensor.grad is not None and np.isfinite(solver.loss)
            seen.append("backward")

        def after_update(self, solver: Solver) -> None:
            seen.append(f"after {solver.iter}")

        def after_training(self, solver: Solver) -> None:
            seen.append("end")

    solver = make(tmp_path, "max_iter: 1", hooks=[Note()])
    solver.add_callback(lambda: seen.append("start"), lambda: seen.append("ready"))
    solver.solve()
    assert seen == ["begin", "before 0", "start", "backward", "ready", "after 1", "end"]


# ---- accumulation


@pytest.mark.parametrize("rule", RULES)
def test_two_halves_of_a_batch_are_the_batch(rule: str, tmp_path: Path) -> None:
    whole = make(tmp_path, RULES[rule], batch=6, dropout=0)
    halves = make(tmp_path, f"{RULES[rule]} iter_size: 2", batch=3, dropout=0)
    whole.step(3)
    halves.step(3)
    assert halves.loss == pytest.approx(whole.loss, rel=1e-5)
    for mine, other in zip(halves.net.learnable, whole.net.learnable, strict=True):
        torch.testing.assert_close(mine.tensor, other.tensor, rtol=1e-3, atol=1e-5)


def test_clipping_looks_at_the_sum(tmp_path: Path, log: Any) -> None:
    solver = make(tmp_path, "iter_size: 2 clip_gradients: 0.1 display: 1")
    before = [learnable.tensor.detach().clone() for learnable in solver.net.learnable]
    solver.step(1)
    steps = [
        (b - each.tensor.detach()) / (0.05 * each.lr_mult) for b, each in zip(before, solver.net.learnable, strict=True)
    ]
    assert sum(float((s * s).sum()) for s in steps) ** 0.5 == pytest.approx(0.05, rel=1e-3)
    assert any("scaling down gradients (L2 norm" in line and "> 0.1)" in line for line in lines(log))


# ---- BatchNorm


def test_statistics_are_left_to_their_layer(tmp_path: Path) -> None:
    param = solver_param(tmp_path, RULES["Adam"])
    text = 'name: "bn" type: "BatchNorm" bottom: "conv" top: "conv"'
    param.net_param.layer.insert(3, parse_text(text, caffe_pb2.LayerParameter))
    solver = Solver(param)
    names = [learnable.layer.name for learnable in solver.net.learnable]
    assert names == ["conv", "conv", "bn", "bn", "bn", "ip", "ip"]
    solver.step(1)
    after = [blob.clone() for blob in solver.net.layers["bn"].blobs]
    assert float(after[2]) == 1.0
    solver.apply_update()
    assert all(a.equal(b) for a, b in zip(after, solver.net.layers["bn"].blobs, strict=True))
    solver.snapshot()
    state = caffe_pb2.SolverState.FromString((tmp_path / "small_iter_1.solverstate").read_bytes())
    assert [len(blob.data) for blob in state.history] == [each.tensor.numel() for each in solver.net.learnable] * 2


# ---- trouble


def test_missing_folder_is_made(tmp_path: Path) -> None:
    solver = make(tmp_path / "not" / "there")
    solver.solve()
    assert (tmp_path / "not" / "there" / "small_iter_10.caffemodel").exists()


@pytest.mark.parametrize("options", ["", "snapshot_after_train: false snapshot: 5"])
def test_unwritable_folder_is_found_before_training(options: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    solver = make(tmp_path / "file" / "folder", options)
    with pytest.raises(SolverError, match=f"cannot write to the folder {tmp_path}/file/folder: Not a directory"):
        solver.solve()
    assert solver.iter == 0


def test_steps_without_snapshots_need_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    solver = make(tmp_path / "file", "snapshot: 5")
    solver.step(4)
    with pytest.raises(SolverError, match="cannot write to the folder"):
        solver.step(1)
    assert solver.iter == 4


def test_no_prefix(tmp_path: Path) -> None:
    solver = make(tmp_path)
    solver.param.ClearField("snapshot_prefix")
    with pytest.raises(SolverError, match="snapshot_prefix is not set"):
        solver.solve()
    solver.param.snapshot_after_train = False
    solver.solve()
    assert solver.iter == 10


def test_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    solver = make(tmp_path, "type: 'Adam'")
    solver.step(1)
    model, state = solver.snapshot()
    before = [Path(model).read_bytes(), Path(state).read_bytes()]
    solver.step(1)
    solver.iter = 1  # the same file names again
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
    try:
        with pytest.raises(CaffeError, match="cannot write"):
            solver.snapshot()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [Path(model).read_bytes(), Path(state).read_bytes()] == before
    assert sorted(os.listdir(tmp_path)) == ["small_iter_1.caffemodel", "small_iter_1.solverstate"]


def test_divergence_names_the_layer_and_saves_what_is_sound(tmp_path: Path) -> None:
    solver = make(tmp_path, "snapshot: 2 max_iter: 8")

    class Poison(Hook):
        def before_iteration(self, solver: Solver) -> None:
            if solver.iter == 3:
                layer = solver.net.layers["relu"]
                layer.register_forward_hook(lambda layer, bottoms, top: top * float("nan"))

    solver.hooks.append(Poison())
    with pytest.raises(
        DivergedError, match=r'iteration 3: the loss is nan.*layer "relu" \(ReLU\), top "conv"'
    ) as caught:
        solver.solve()
    assert f"{tmp_path}/small_iter_3.solverstate" in str(caught.value)
    resumed = make(tmp_path, "max_iter: 8")
    resumed.restore(tmp_path / "small_iter_3.solverstate")
    assert weights(resumed) == weights(solver)
    resumed.step(1)


@pytest.mark.parametrize(
    ("interval", "words"), [(1, "no snapshot, as layer"), (2, "the loss is nan.*spoilt too .layer")]
)
def test_spoilt_parameters_are_not_saved(interval: int, words: str, tmp_path: Path) -> None:
    solver = make(tmp_path, f"snapshot: {interval}")

    class Poison(Hook):
        def after_backward(self, solver: Solver) -> None:
            if solver.iter == 2:
                solver.net.layers["ip"].blobs[1].grad[0] = float("nan")

    solver.hooks.insert(0, Poison())
    with pytest.raises(DivergedError, match=f'iteration 3: .*{words}.*"ip", parameter 1') as caught:
        solver.solve()
    assert "earlier snapshot" in str(caught.value)
    assert not (tmp_path / "small_iter_3.caffemodel").exists()
    assert (tmp_path / "small_iter_2.solverstate").exists()


# ---- other ways to run


@pytest.mark.parametrize("options", [{"amp": "bfloat16"}, {"channels_last": True}])
def test_other_ways_to_compute_are_close(options: dict[str, Any], tmp_path: Path) -> None:
    plain = Solver(solver_param(tmp_path, dropout=0))
    other = Solver(solver_param(tmp_path, dropout=0), runner=partial(GraphRunner, **options))
    plain.step(3)
    other.step(3)
    assert other.loss == pytest.approx(plain.loss, rel=0.02)
    model, state = other.snapshot()
    again = Solver(solver_param(tmp_path), weights=model)
    assert weights(again) == weights(other)
    again.restore(state)


def test_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(SolverError, match='"float8" is not known; valid: bfloat16'):
        Solver(solver_param(tmp_path), runner=partial(GraphRunner, amp="float8"))


def test_net_without_parameters(tmp_path: Path) -> None:
    param = solver_param(tmp_path)
    text = """
      layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param { shape { dim: 2 dim: 3 } } }
      layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "t" top: "loss" }"""
    param.net_param.CopyFrom(parse_text(text, caffe_pb2.NetParameter))
    solver = Solver(param)
    solver.solve()
    assert (solver.iter, solver.loss) == (10, 0.0)


def test_events_for_tensorboard(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    make(tmp_path, "test_interval: 2 test_iter: 1 max_iter: 3", hooks=[TensorBoard(folder, every=1)]).solve()
    written = b"".join(path.read_bytes() for path in folder.iterdir())
    assert written.count(b"train/loss") == 3 and written.count(b"test0/accuracy") == 2


def test_a_full_disk_ends_the_events_and_not_the_training(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    events = TensorBoard(tmp_path / "events", every=1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    solver = make(tmp_path, "test_interval: 10 test_iter: 1 max_iter: 200 snapshot_after_train: false", hooks=[events])
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        solver.solve()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert solver.iter == 200
    told = [line for line in lines(log) if "TensorBoard" in line]
    assert told == [
        f"Cannot write TensorBoard events to {tmp_path}/events: File too large; the training goes on without them"
    ]


@pytest.mark.parametrize(
    ("iterations", "said"),
    [(12, ""), (2, "is 10 of its 12 records: the next test"), (3, "is 15 of its 12 records: some count once more")],
)
def test_a_test_that_is_no_whole_pass_over_the_data_is_told(iterations, said, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    Solver(solver_param(tmp_path, f"test_iter: {iterations} test_interval: 10")).close()
    told = [each.getMessage() for each in caplog.records if "records: " in each.getMessage()]
    assert len(told) == bool(said) and all(said in message for message in told)
