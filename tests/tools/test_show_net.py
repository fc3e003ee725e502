"""tools/show_net.py and tools/make_prototxt.py as commands."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(checked, monkeypatch):
    """The tools work on the repository's prototxt/."""
    monkeypatch.chdir(ROOT)
    return checked


def test_both_phases_are_shown_without_a_database(run):
    text = run("show_net", "prototxt/swwae_all_train_val.prototxt", "--phase", "both")
    assert "phase TRAIN" in text
    assert "phase TEST" in text
    assert "parameters   153,071,723" in text


def test_shapes_are_given_by_name(run):
    text = run("show_net", "prototxt/demo/vgg_train_val.prototxt", "--shape", "data=2,1,32,32", "--shape", "label=2")
    assert "2×64×4×4" in text


def test_errors_are_one_line(run):
    assert "show_net: " in run("show_net", "nowhere.prototxt", ok=False)
    assert "is not NAME=N,N" in run("show_net", "prototxt/vgg16_deploy.prototxt", "--shape", "data", ok=False)
    wrong = run("show_net", "prototxt/vgg16_deploy.prototxt", "--shape", "dta=1,3,8,8", ok=False)
    assert '"dta" is not an input of the net (did you mean data?)' in wrong


def test_a_missing_database_points_at_the_option(run, tmp_path):
    net = tmp_path / "net.prototxt"
    text = (
        'layer { name: "d" type: "Data" top: "data" top: "label" '
        'data_param { source: "nowhere" batch_size: 4 backend: LMDB } %s }'
        'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 2 kernel_size: 3 } }'
    )
    net.write_text(text % "")
    wrong = run("show_net", net, ok=False)
    assert f'{net}: layer "d" (Data): data_param.source: database not found: nowhere' in wrong
    assert "; --shape NAME=N,C,H,W gives the shape of a blob that a data layer makes" in wrong
    assert "4×2×6×6" in run("show_net", net, "--shape", "data=4,1,8,8", "--shape", "label=4")
    net.write_text(text % "transform_param { crop_size: 8 }")
    shown = run("show_net", net)
    assert "4×3×8×8" in shown


def test_the_generated_files_are_checked(run, tmp_path):
    assert "prototxt/ is up to date" in run("make_prototxt", "--check")
    run("make_prototxt", "--root", tmp_path)
    (tmp_path / "prototxt/vgg16_deploy.prototxt").write_text("")
    (tmp_path / "prototxt/sae_all_solver.prototxt").unlink()
    text = run("make_prototxt", "--root", tmp_path, "--check", ok=False)
    assert [line.split()[0] for line in text.splitlines()] == [
        "prototxt/vgg16_deploy.prototxt",
        "prototxt/sae_all_solver.prototxt",
    ]


def test_a_net_of_ones_own_gets_a_decoder(run, tmp_path):
    net = tmp_path / "own.prototxt"
    net.write_text(
        """
        input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
        layer { name: "c1" type: "Convolution" bottom: "data" top: "c1"
                convolution_param { num_output: 4 kernel_size: 3 pad: 1 } }
        layer { name: "c1/pool" type: "Pooling" bottom: "c1" top: "p" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
        """
    )
    out = tmp_path / "augmented.prototxt"
    run("make_prototxt", "--net", net, "--variant", "sae_first", "--out", out)
    assert "dec:data" in run("show_net", out)
    printed = run("make_prototxt", "--net", net, "--variant", "swwae_all", "--reconstruct")
    assert 'bottom: "p-mask"' in printed
    assert "lr_mult: 0" in printed
    assert "make_prototxt: " in run("make_prototxt", "--net", net, "--source", "c2", ok=False)
    net.write_text(net.read_text().replace('"data"', '"image"'))
    assert "they make image: name the blob" in run("make_prototxt", "--net", net, ok=False)
    assert 'top: "dec:image"' in run("make_prototxt", "--net", net, "--image", "image")


def test_options_of_a_net_need_one(run):
    for option in (["--out", "x"], ["--reconstruct"], ["--variant", "sae_all"], ["--image-shape", "1", "8", "8"]):
        assert f"{option[0]} goes with --net FILE" in run("make_prototxt", *option, ok=False)
