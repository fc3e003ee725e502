"""Run folders: the paper's steps for any net, files that run alone, going on after a kill, configurations that differ."""

import json
import os
import re
import shutil

import numpy as np
import pytest
import warm_start
from swwae.small_run import ROOT, run_tool

from pycaffe_compat.commands.train_stages import main
from pycaffe_compat.errors import CaffeError, NetError, SolverError, WeightsError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import read_net, read_solver, read_weights
from pycaffe_compat.swwae import vgg
from pycaffe_compat.swwae.curves import CurveFile, Point, read_points
from pycaffe_compat.swwae.encoder import read_encoder
from pycaffe_compat.swwae.loss_weights import Magnitude, is_vgg16, measure_blobs, rule_loss_weights
from pycaffe_compat.swwae.report import draw_curves
from pycaffe_compat.swwae.run_folder import Recipe, prepare_run, train_run

OPTIONS = ["--net", "net.prototxt", "--weights", "net.caffemodel", "--filler", "msra"]
SOLVERS = ["--solver", "finetune.prototxt", "--decoder-solver", "decode.prototxt"]


def stages(capsys, *arguments):
    """Run the command in this process; return its status and the last line on standard error."""
    try:
        status = main(list(arguments))
    except SystemExit as ended:
        status = ended.code
    return status, capsys.readouterr().err.strip().splitlines()[-1]


def recipe(*variants, **changed):
    fields = {"net": "net.prototxt", "solver": "finetune.prototxt", "decoder_solver": "decode.prototxt", **changed}
    return Recipe(variants, "net.caffemodel", filler={"type": "msra"}, **fields)


def same_weights(a, b, tolerance=0.0):
    first, second = read_weights(a), read_weights(b)
    assert list(first) == list(second)
    for name in first:
        for x, y in zip(first[name], second[name], strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=tolerance)


def test_all_steps_of_several_variants(small, capfd):
    finals = train_run(recipe("swwae_all", "swwae_first", "sae_layerwise", "baseline"), "run")
    assert set(finals) == {"swwae_all", "swwae_first", "sae_layerwise", "baseline"}
    steps = sorted(path.name for path in (small / "run").iterdir() if path.is_dir())
    assert steps == [
        *("step2_sae_layerwise", "step2_swwae_layerwise", "step3_swwae_all", "step3_swwae_first"),
        *("step4_baseline", "step4_sae_layerwise", "step4_swwae_all", "step4_swwae_first"),
    ]
    encoder, decoder = (
        read_weights("net.caffemodel"),
        read_weights("run/step2_swwae_layerwise/snapshot_iter_4.caffemodel"),
    )
    for step in ("step2_swwae_layerwise", "step3_swwae_all"):
        trained = read_weights(f"run/{step}/snapshot_iter_4.caffemodel")
        np.testing.assert_array_equal(trained["conv1_1"][0], encoder["conv1_1"][0])
    assert not np.array_equal(decoder["dec:conv1_1"][0], trained["dec:conv1_1"][0])
    whole = read_weights(finals["swwae_all"])
    assert not np.array_equal(whole["conv1_1"][0], encoder["conv1_1"][0])
    said = capfd.readouterr()
    step = "the whole net, from net.caffemodel,run/step3_swwae_all/snapshot_iter_4.caffemodel"
    assert f"step 4: swwae_all, {step}" in said.out
    assert said.out.count("step 2: the swwae_layerwise decoder, the encoder fixed, from") == 1
    weights = {
        each["name"]: each["loss_weight"] for each in json_layers("run/step4_swwae_all") if "dec:loss" in each["name"]
    }
    assert weights == {
        "dec:loss@conv1_1": pytest.approx(manifest()["loss_weights"]["conv1_1"]),
        "dec:loss@data/scaled": pytest.approx(manifest()["loss_weights"]["data"]),
    }


def manifest():
    return json.loads(open("run/run.json").read())


def json_layers(step):
    net = read_net(f"{step}/train_val.prototxt")
    return [{"name": each.name, "loss_weight": each.loss_weight[0] if each.loss_weight else None} for each in net.layer]


def test_the_report_shows_curves_and_ends(small):
    train_run(recipe("swwae_all", "baseline"), "run")
    page, text = (small / "run/report.html").read_text(), (small / "run/report.md").read_text()
    assert 'src="data:image/png;base64,' in page and 'src="curves' not in page
    assert "![" in text and "](curves.png)" in text
    assert "](filters.png)" in text and page.count('src="data:image/png;base64,') == 2
    points = read_points("run/step4_swwae_all/curve.csv")
    last = {each.output: each for each in points if each.phase == "TEST"}
    assert set(last) == {"accuracy", "loss", "dec:loss@conv1_1", "dec:loss@data/scaled"}
    assert f"{last['loss'].value:.4g}" in text and f"{last['loss'].value:.4g}" in page
    assert [each.iteration for each in points if each.output == "total loss"] == [0, 1, 2, 3]


def test_each_step_can_be_read_and_run_alone(small):
    train_run(recipe("swwae_all"), "run")
    solver = small / "run/step3_swwae_all/solver.prototxt"
    command = re.sub(r"\n# ", " ", solver.read_text().split("# caffe-train-net ")[1]).split(" Generated")[0]
    shutil.copytree(small / "run", small / "kept")
    shutil.rmtree(small / "run/step3_swwae_all")
    shutil.copytree(
        small / "kept/step3_swwae_all", small / "run/step3_swwae_all", ignore=shutil.ignore_patterns("snap*")
    )
    done = run_tool(small, "train_net", *command.split())
    assert done.returncode == 0, done.stderr
    made = "step3_swwae_all/snapshot_iter_4.caffemodel"
    same_weights(small / "run" / made, small / "kept" / made, 1e-5)  # with another number of threads


def test_a_finished_run_is_not_done_again(small, capfd):
    final = train_run(recipe("swwae_layerwise"), "run")["swwae_layerwise"]
    before = os.stat(final).st_mtime_ns
    capfd.readouterr()
    assert train_run(recipe("swwae_layerwise"), "./run/")["swwae_layerwise"] == final
    assert os.stat(final).st_mtime_ns == before
    assert capfd.readouterr().out.count("done before") == 2


def start(folder, out="run"):
    options = [*OPTIONS, *SOLVERS, "--variant", "swwae_first,baseline", "--out", out]
    return warm_start.start(ROOT / "tools/train_stages.py", *options, cwd=folder, merged=True)


def test_killed_anywhere_the_same_command_ends_as_if_it_had_not_been(small):
    for said in (
        "step 2",
        "Snapshotting solver state",
        "Iteration 3 ",
        "step 3",
        "Iteration 1 ",
        "step 4",
        "swwae_first, ",
    ):
        with start(small) as process:
            seen = next((line for line in process.stdout if said in line), "")
            process.kill()
        assert seen or (small / "run/report.md").exists(), said
    (small / "run/step3_swwae_first/train_val.prototxt").unlink()  # killed while the files were written
    with start(small) as process:
        rest = process.stdout.read()
    assert process.returncode == 0, rest
    assert not [name for _, _, names in os.walk(small / "run") for name in names if name.startswith(".")]
    with start(small, "whole") as process:
        process.stdout.read()
    for step in ("step3_swwae_first", "step4_swwae_first", "step4_baseline"):
        same_weights(f"run/{step}/snapshot_iter_4.caffemodel", f"whole/{step}/snapshot_iter_4.caffemodel")
        assert read_points(f"run/{step}/curve.csv") == read_points(f"whole/{step}/curve.csv")


@pytest.mark.parametrize(
    "change, words",
    [
        (["--variant", "sae_first"], "variants is swwae_first there and sae_first here"),
        (
            ["--variant", "swwae_first", "--seed", "5"],
            "solver random_seed is 1 there and 5 here; decoder_solver random_seed",
        ),
        (["--variant", "swwae_first", "--loss-weight", "data=0.5"], "loss_weights is by rule there and"),
        (["--variant", "swwae_first", "--strength", "2"], "strength is 0.5 there and 2.0 here"),
        (["--variant", "swwae_first", "--weights", "other.caffemodel"], "weights is sha256"),
        (["--variant", "swwae_first", "--net", "other.prototxt"], 'net layer "conv2_1" is '),
    ],
)
def test_a_run_of_another_configuration_is_refused(small, capsys, change, words):
    prepare_run(recipe("swwae_first"), "run")
    built = Net("net.prototxt", "TRAIN")
    built.save("other.caffemodel")
    built.close()
    (small / "other.prototxt").write_text(
        (small / "net.prototxt").read_text().replace("num_output: 6", "num_output: 6 group: 2", 1)
    )
    before = {path: path.read_bytes() for path in (small / "run").rglob("*") if path.is_file()}
    status, said = stages(capsys, *OPTIONS, *SOLVERS, "--out", "run", *change)
    assert status == 1
    assert f"train_stages: run/run.json has a different configuration: {words}" in said
    assert before == {path: path.read_bytes() for path in (small / "run").rglob("*") if path.is_file()}


def test_files_that_were_changed_or_are_not_of_a_run_are_kept(small):
    prepare_run(recipe("swwae_first"), "run")
    solver = small / "run/step4_swwae_first/solver.prototxt"
    solver.write_text(solver.read_text().replace("max_iter: 4", "max_iter: 40"))
    with pytest.raises(SolverError, match=r"step4_swwae_first/solver.prototxt was changed since the run began"):
        prepare_run(recipe("swwae_first"), "run")
    assert "max_iter: 40" in solver.read_text()
    with pytest.raises(SolverError, match=r"train has files but no run.json"):
        prepare_run(recipe("swwae_first"), "train")
    (small / "run/run.json").write_text("{")
    with pytest.raises(SolverError, match=r"run/run.json: not the description of a run"):
        prepare_run(recipe("swwae_first"), "run")


FORK = """layer { name: "side" type: "InnerProduct" bottom: "conv1_1/pool" top: "side" inner_product_param { num_output: 2 } }
layer { name: "hush" type: "Silence" bottom: "side" }"""


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda net: net + FORK, 'the net branches at the blob "conv1_1/pool": "conv2_1", "side" read it'),
        (lambda net: net.replace("pool: MAX", "pool: AVE"), 'layer "conv1_1/pool" (Pooling) cannot be mirrored'),
        (lambda net: net.replace("mirror: true", "mirror: true crop_size: 15"), "a decoder needs sizes that windows"),
        (lambda net: net.replace('"Convolution"', '"Convolutoin"'), 'unknown layer type "Convolutoin"'),
    ],
)
def test_nets_without_a_mirror_image(small, capsys, edit, words):
    (small / "net.prototxt").write_text(edit((small / "net.prototxt").read_text()))
    status, said = stages(capsys, *OPTIONS, *SOLVERS, "--variant", "swwae_all", "--out", "run")
    assert status == 1 and words in said and "net.prototxt" in said
    assert not (small / "run").exists()


def test_a_pooling_gets_the_mask_that_swwae_needs(small):
    assert "mask" not in (small / "net.prototxt").read_text()
    prepare_run(recipe("swwae_all", "sae_all"), "run")
    for step in ("step2_swwae_layerwise", "step3_swwae_all", "step4_swwae_all"):
        assert "conv1_1/pool-mask" in (small / f"run/{step}/train_val.prototxt").read_text()
    assert "mask" not in (small / "run/step4_sae_all/train_val.prototxt").read_text()


def test_weights_that_do_not_fit(small):
    (small / "wide.prototxt").write_text((small / "net.prototxt").read_text().replace("num_output: 4", "num_output: 5"))
    with pytest.raises(WeightsError, match="conv1_1"):
        prepare_run(recipe("swwae_all", net="wide.prototxt"), "run")
    (small / "named.prototxt").write_text((small / "net.prototxt").read_text().replace("conv2_1", "other"))
    with pytest.raises(WeightsError, match=r"net.caffemodel has no weights for other of named.prototxt"):
        prepare_run(recipe("swwae_all", net="named.prototxt"), "run")
    with pytest.raises(NetError, match=r'net.prototxt: no blob "dat" \(did you mean data\?\)'):
        prepare_run(recipe("swwae_all", image="dat"), "run")
    with pytest.raises(NetError, match=r'no variant "swae_all" \(did you mean sae_all, swwae_all\?\)'):
        prepare_run(recipe("swae_all"), "run")
    assert not (small / "run").exists()


def test_loss_weights_make_a_reconstruction_of_zeros_cost_the_strength(small):
    net = Net("net.prototxt", "TRAIN", weights="net.caffemodel")
    units = read_encoder(read_net("net.prototxt"), shape=(3, 16, 16))[:3]
    measured = measure_blobs(net, units, image_scale=0.5, images=24)
    net.close()
    assert {name: each.size for name, each in measured.items()} == {"data": 768, "conv1_1": 256}
    net = Net("net.prototxt", "TRAIN", weights="net.caffemodel")
    images, pooled = [], []
    for _ in range(4):
        values, _ = net.run()
        images.append(values["data"].numpy() / 2)
        pooled.append(values["conv1_1/pool"].detach().numpy())
    net.close()
    for name, found in (("data", images), ("conv1_1", pooled)):
        assert measured[name].rms == pytest.approx(np.sqrt(np.mean(np.square(np.concatenate(found)))), rel=1e-5)
    weights = rule_loss_weights(measured, strength=3)
    losses = {
        name: weights[name] * np.sum(np.square(found)) / 2 / 24
        for name, found in (("data", images), ("conv1_1", pooled))
    }
    assert losses["data"] == pytest.approx(3, rel=0.05) and losses["conv1_1"] == pytest.approx(0.6, rel=0.05)


def test_the_rule_gives_two_digits_and_dead_blobs_none(small):
    assert rule_loss_weights({"data": Magnitude(1000, 0.123)}, strength=1) == {"data": 0.13}
    weights = read_weights("net.caffemodel")
    built = Net("net.prototxt", "TRAIN", weights=weights)
    built.layers["conv1_1"].blobs[0].data.zero_()
    built.save("dead.caffemodel")
    built.close()
    with pytest.raises(NetError, match=r'no loss weight for "conv1_1": the root mean square .* is 0.0'):
        prepare_run(Recipe(["sae_all"], "dead.caffemodel", net="net.prototxt", solver="finetune.prototxt"), "run")


def test_vgg16_has_the_papers_weights():
    assert is_vgg16(read_encoder(vgg()))
    assert not is_vgg16(read_encoder(vgg(19)))


def test_default_solvers_test_all_of_the_test_data(small):
    run = prepare_run(Recipe(["sae_all"], "net.caffemodel", net="net.prototxt"), "run")
    found = [read_solver(stage.solver) for stage in run.stages]
    assert [list(each.test_iter) for each in found] == [[2], [2], [2]]
    assert [each.type for each in found] == ["Adam", "Adam", "SGD"]


def test_command_lines_that_cannot_be(small, capsys):
    for arguments, words in (
        ([], "name the variant"),
        (["swwae_all", "--variant", "sae_all"], "name the variant, once"),
        (["swwae_all", "--net", "net.prototxt"], "--net needs --out RUN"),
        (["baseline"], "without --out there is one variant of"),
        (["swwae_all", "--out", "run", "--loss-weight", "data"], "is not NAME=NUMBER"),
    ):
        status, said = stages(capsys, "--weights", "net.caffemodel", *arguments)
        assert status == 2 and words in said


def test_charts_name_their_lines_where_the_first_has_no_training(tmp_path):
    points = [Point(0, "TEST", "accuracy", 0.9), Point(0, "TRAIN", "loss", 2.0), Point(5, "TRAIN", "loss", 1.0)]
    assert draw_curves(str(tmp_path / "curves.svg"), {"step4_swwae_all": points, "step4_baseline": points})
    words = (tmp_path / "curves.svg").read_text()
    assert "<!-- swwae_all -->" in words and "<!-- baseline -->" in words


def test_curves_go_on_where_the_snapshot_was(tmp_path):
    class Training:
        def __init__(self, iteration):
            self.iter, self.loss, self.displaying, self.outputs = iteration, 0.5 + iteration, True, {}

    path = str(tmp_path / "curve.csv")
    curve = CurveFile(path)
    curve.before_training(Training(0))
    for iteration in range(4):
        curve.after_backward(Training(iteration))
    curve.after_training(Training(4))
    with open(path, "a") as file:
        file.write("4,TRAIN,total lo")
    assert [each.iteration for each in read_points(path)] == [0, 1, 2, 3]
    again = CurveFile(path)
    again.before_training(Training(2))
    again.after_test(Training(2), 0, {"a": np.array([1.0, 2.0])})
    again.after_training(Training(2))
    found = [(each.iteration, each.phase, each.output, each.value) for each in read_points(path)]
    assert found[2:] == [(2, "TEST", "a[0]", 1.0), (2, "TEST", "a[1]", 2.0)] and len(found) == 4


def test_decoders_alone_from_any_layer(small):
    finals = train_run(recipe("swwae_first", source="conv2_1", until=3), "run")
    assert finals == {"swwae_first": "run/step3_swwae_first/snapshot_iter_4.caffemodel"}
    names = [each.name for each in read_net("run/step3_swwae_first/train_val.prototxt").layer]
    assert "dec:conv2_1" in names and "dec:conv2_2" not in names and "conv2_2" not in names
    with pytest.raises(NetError, match=r'net.prototxt: no layer "conv2_3" to decode from'):
        prepare_run(recipe("swwae_first", source="conv2_3"), "other")


def test_vgg16_is_the_default(small):
    with pytest.raises(CaffeError, match="data/ilsvrc12/train_lmdb"):
        prepare_run(Recipe(["swwae_all"], "net.caffemodel"), "run")
