"""How far a run folder is and what the rest will take."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pycaffe_compat.commands.train_stages import main
from pycaffe_compat.errors import SolverError
from pycaffe_compat.swwae.pace import read_pace
from pycaffe_compat.swwae.progress import duration, progress_text, read_progress
from pycaffe_compat.swwae.run_folder import Recipe, prepare_run, step_folders, train_run

RECIPE = Recipe(
    ("swwae_first",),
    "net.caffemodel",
    net="net.prototxt",
    solver="finetune.prototxt",
    decoder_solver="decode.prototxt",
    filler={"type": "msra"},
)


@pytest.mark.parametrize("until", [2, 3, 4])
def test_the_steps_are_those_that_are_trained(small, until):
    variants = ("swwae_all", "sae_layerwise", "baseline", "swwae_first")
    run = prepare_run(replace(RECIPE, variants=variants, until=until), "run")
    folders = step_folders(variants, until)
    assert sorted(folders) == sorted(Path(stage.solver).parent.name for stage in run.stages)
    assert (
        folders == sorted(folders, key=lambda name: name[:5])
        and [each.name for each in read_progress("run")] == folders
    )
    assert progress_text("run").endswith("left: not known, because no step has noted its pace yet")


def test_a_run_that_was_stopped_says_what_is_left_and_adds_up(small, capsys):
    with pytest.raises(SolverError, match="step 2 did not finish"):
        train_run(RECIPE, "run", iterations=3)
    first, *others = read_progress("run")
    total = first.iterations
    assert (first.iteration, first.snapshot, first.left) == (3, 3, total - 3)
    assert first.pace > 0 and all(each.pace is None and each.iteration == 0 for each in others)
    before = read_pace("run/step2_swwae_layerwise/pace.json")
    train_run(RECIPE, "run")
    after = read_pace("run/step2_swwae_layerwise/pace.json")
    assert (before["ran"], after["ran"], after["iteration"]) == (3, total, total)
    assert after["seconds"] > before["seconds"] > 0
    assert main(["--out", "run", "--status"]) == 0
    said = capsys.readouterr().out
    assert "all steps are done" in said and f"{total:,} of {total:,}" in said and "?" not in said


def test_what_is_left_follows_from_the_pace_of_like_steps(small):
    prepare_run(replace(RECIPE, variants=("swwae_first", "swwae_all", "baseline")), "run")
    lengths = {each.name: each.iterations for each in read_progress("run")}
    decoding, tuning = lengths["step2_swwae_layerwise"], lengths["step4_baseline"]

    def note(name, iteration, ran, seconds):
        Path(f"run/{name}/pace.json").write_text(json.dumps({"iteration": iteration, "ran": ran, "seconds": seconds}))

    note("step2_swwae_layerwise", decoding, 10, 100.0)  # 10 s an iteration
    note("step3_swwae_first", 1, 2, 40.0)  # 20 s, one iteration run twice
    expected = (decoding - 1 + decoding) * 20 + 3 * tuning * 15
    assert f"left: about {duration(expected)}, " in progress_text("run")
    note("step4_baseline", 1, 1, 50.0)
    expected = (decoding - 1 + decoding) * 20 + (3 * tuning - 1) * 50
    text = progress_text("run")
    assert f"left: about {duration(expected)}, " in text
    assert "~50 s" in text and " 50 s" in text and "~20 s" in text and "10 s" in text and "done" in text


def test_what_is_no_run_is_one_error(small, capsys):
    assert main(["--out", "none", "--status"]) == 1
    assert "none/run.json" in capsys.readouterr().err
    prepare_run(RECIPE, "run")
    Path("run/step4_swwae_first/pace.json").write_text('{"iteration": "x"}')
    assert main(["--out", "run", "--status"]) == 1
    assert "run/step4_swwae_first/pace.json: not a file of training times; delete it" in capsys.readouterr().err
    for arguments, words in (
        (["--status"], "--status needs --out RUN"),
        (["--variant", "swwae_all"], "--weights FILE is needed"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 0 s"), (3725, "1 h 2 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
