"""Reconstructions by trained nets: the right nets, the right layers, the right numbers, and what cannot be."""

import csv
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import paper_nets
import pytest
import torch
from swwae.small_run import SIZE, make_small_run

from pycaffe_compat.commands.reconstruct import main
from pycaffe_compat.data.database import DatabaseWriter
from pycaffe_compat.data.datum import array_to_datum
from pycaffe_compat.net import Net
from pycaffe_compat.proto import read_net
from pycaffe_compat.swwae import Decoder, augment, reconstruction_net, vgg
from pycaffe_compat.swwae.decoders import read_augmented
from pycaffe_compat.swwae.nets import deploy_inputs
from pycaffe_compat.swwae.prototxt import net_text
from pycaffe_compat.swwae.quality import psnr
from pycaffe_compat.swwae.run_folder import Recipe, train_run

VARIANTS = ("swwae_all", "sae_first", "swwae_layerwise", "baseline")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a small net and a run of some of its variants."""
    folder = tmp_path_factory.mktemp("trained")
    make_small_run(folder, iterations=2)
    here = os.getcwd()
    os.chdir(folder)
    try:
        solvers = {"solver": "finetune.prototxt", "decoder_solver": "decode.prototxt"}
        train_run(Recipe(VARIANTS, "net.caffemodel", net="net.prototxt", filler={"type": "msra"}, **solvers), "run")
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def here(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained)
    return tmp_path


def call(capsys, *arguments):
    """Run the command; return its status, its output and the last line on standard error."""
    try:
        status = main([str(each) for each in arguments])
    except SystemExit as ended:
        status = ended.code
    said = capsys.readouterr()
    return status, said.out, said.err.strip().splitlines()[-1] if said.err.strip() else ""


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def step(name):
    return f"run/{name}/train_val.prototxt", f"run/{name}/snapshot_iter_2.caffemodel"


def test_every_variant_of_a_run_decodes_from_its_layers(here, capsys):
    status, out, _ = call(capsys, "test_lmdb", "--run", "run", "--out", here / "look", "--rows", 3)
    assert status == 0 and "12 pictures; look at" in out
    found = rows(here / "look/quality.csv")
    assert [(each["title"], each["blob"]) for each in found] == [
        ("SWWAE-all", "conv1_1/pool"),
        ("SWWAE-all", "conv2_2/pool"),
        ("SAE-first", "conv2_2/pool"),
        ("SWWAE-layerwise", "conv1_1/pool"),
        ("SWWAE-layerwise", "conv2_2/pool"),
    ]
    each = [float(row["psnr"]) for row in rows(here / "look/pictures.csv") if row["title"] == "SAE-first"]
    assert len(each) == 12
    assert float(found[2]["psnr_mean"]) == pytest.approx(np.mean(each), abs=1e-3)
    page = (here / "look/report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 3 and 'src="grid' not in page
    assert "caffe-reconstruct test_lmdb --run run" in page and "step4_swwae_all/snapshot_iter_2.caffemodel" in page
    assert "minus 80, 80, 80, times 0.0078125" in page
    for name in ("grid", "quality", "curves"):
        assert cv2.imread(str(here / f"look/{name}.png")) is not None


def test_the_numbers_are_those_of_the_induced_net(here, capsys):
    """The same decoder, built by induction instead of from the layers of the file."""
    net, weights = step("step4_swwae_all")
    folder = "test/000.png"
    call(capsys, folder, "--net", net, weights, "--crop", SIZE, "--out", here / "look")
    found = {row["layer"]: float(row["psnr"]) for row in rows(here / "look/pictures.csv")}
    pixels = cv2.imread(folder).transpose(2, 0, 1)[None].astype(np.float32)
    for source, number in found.items():
        decoder = Decoder("swwae", "first", image_shape=(3, SIZE, SIZE), image_scale=128 / 255)
        induced = Net(reconstruction_net(read_net("net.prototxt"), decoder, source), "TEST", weights=weights)
        made = induced.run(data=torch.from_numpy((pixels - 80) / 128))[0]["dec:data"].detach().numpy()
        induced.close()
        wanted = psnr(pixels / 255, made + 80 / 255)[0]
        assert number == pytest.approx(wanted, abs=2e-3)


def test_stages_of_layerwise_are_stacked():
    augmented = read_augmented(paper_nets.nets()["vggnet/cls/SWWAE-layerwise/layer5_deploy.prototxt"])
    assert [each.label for each in augmented.sources] == ["pool5", "pool4", "pool3", "pool2", "pool1"]
    net = augmented.net_from(augmented.sources[0], (1, 3, 224, 224))
    unpooled = {each.name: each.bottom[0] for each in net.layer if each.type == "Depooling"}
    assert unpooled["dec:conv5_3/unpool"] == "conv5_3/pool"
    assert unpooled["dec:conv4_3/unpool"] == "dec:conv4_3[2]"
    net = augmented.net_from(augmented.sources[2], (1, 3, 224, 224))
    assert not any(each.name.startswith(("conv4", "dec:conv4")) for each in net.layer)


def test_the_authors_tree(here, capsys):
    """Their layers' names and files, with a small net: a decoder a layer, an extra one from a fully connected layer."""
    inputs = deploy_inputs((1, 3, SIZE, SIZE))
    plain = vgg(inputs=inputs, stages=((1, 4), (2, 6)), hidden=(8,), classes=3, filler={"type": "msra"})
    for kind in ("SAE", "SWWAE"):
        for number, source in enumerate(("conv1_1", "conv2_2", "fc3"), 1):
            folder = here / "tree/recon" / (f"{kind}-first" + (".extra" if source == "fc3" else ""))
            folder.mkdir(parents=True, exist_ok=True)
            decoder = Decoder(kind.lower(), "first", filler={"type": "msra"})
            net = reconstruction_net(plain, decoder, source)
            form = "depoly" if kind == "SAE" and source == "fc3" else "deploy"
            path = folder / f"layer{number}_{form}.prototxt"
            path.write_text(net_text(net, "As in the release."))
            Net(net, "TEST").save(str(folder / f"layer{number}.caffemodel"))
    (here / "tree/recon/SAE-first/layer2.caffemodel").unlink()
    status, _, err = call(capsys, "test", "--release", here / "tree", "--out", here / "look")
    assert (status, "no weights for" in err and "layer2_deploy" in err) == (0, True)
    found = [(each["title"], each["label"]) for each in rows(here / "look/quality.csv")]
    assert found == [
        ("SAE-first", "pool1"),
        ("SAE-first", "fc3"),
        ("SWWAE-first", "pool1"),
        ("SWWAE-first", "pool2"),
        ("SWWAE-first", "fc3"),
    ]


def test_pictures_of_any_size_and_kind(here, capsys):
    large = np.random.RandomState(0).randint(0, 255, (90, 61, 3)).astype(np.uint8)
    (here / "photos/more").mkdir(parents=True)
    cv2.imwrite(str(here / "photos/large.png"), large)
    cv2.imwrite(str(here / "photos/more/grey.jpg"), large[:, :, 0])
    (here / "photos/notes.txt").write_text("no picture")
    net, weights = step("step4_swwae_all")
    status = main([str(here / "photos"), "--net", net, weights, "--crop", "24x20", "--out", str(here / "look")])
    said = capsys.readouterr().err
    assert status == 0
    assert "notes.txt" in said and "1 pictures are grey and were converted" in said
    assert "2 pictures of 24x20 pixels" in (here / "look/report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["empty", "--run", "run"], "empty: no pictures: the folder has no files"),
        (["nowhere.jpg", "--run", "run"], "picture, folder or LMDB not found: nowhere.jpg"),
        (["net.prototxt", "--run", "run"], "net.prototxt: does not decode as an image"),
        (["small.png", "--run", "run"], f"small.png: an image of 8x9 is smaller than the crop of {SIZE}x{SIZE}; --crop"),
        (["grey_lmdb", "--run", "run"], "an image of raw pixels with 1 channel (grey), but the net takes 3 channels"),
        (["test", "--net", "net.prototxt", "net.caffemodel", "--crop", "16"], "it has no decoder at all"),
        (["test", "--net", "run/step4_swwae_all/train_val.prototxt", "net.caffemodel", "--crop", "16"], "no weights for dec:"),
        (["test", "--run", "test"], "test is not a run folder: it has no run.json"),
        (["test", "--release", "test"], "hold no net with weights"),
        (["test", "--run", "run", "--crop", "18"], "choose --crop so that height and width are multiples of 4"),
        (["test", "--run", "run", "--crop", "2,3"], '--crop: "2,3" is neither'),
        (["test", "--run", "run", "--limit", "0"], "limit: 0 must be at least 1"),
        (["test", "--run", "run", "--mean", "1,2"], "a mean of 2 numbers for pictures of 3 channels"),
        (["test", "--run", "run", "--mean", "x"], '--mean: "x" is neither numbers'),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_writes_nothing(here, trained, capsys, arguments, wanted):
    (trained / "empty").mkdir(exist_ok=True)
    cv2.imwrite("small.png", np.zeros((8, 9, 3), np.uint8))
    if not os.path.exists("grey_lmdb"):
        with DatabaseWriter("grey_lmdb") as writer:
            writer.put(b"0", array_to_datum(np.zeros((1, SIZE, SIZE), np.uint8)).SerializeToString())
    status, _, err = call(capsys, *arguments, "--out", here / "look")
    assert status == 1 and wanted in err
    assert not (here / "look").exists() or not os.listdir(here / "look")


def test_weights_of_another_shape(here, capsys):
    net, weights = step("step4_swwae_all")
    text = Path(net).read_text().replace("num_output: 4", "num_output: 5")
    (here / "wider.prototxt").write_text(text)
    status, _, err = call(capsys, "test", "--net", here / "wider.prototxt", weights, "--crop", 16, "--out", here / "o")
    assert status == 1 and "shape 5×3×3×3" in err.replace("x", "×") and weights in err


def test_a_net_that_does_not_say_the_size_of_its_pictures(here, capsys):
    net, weights = step("step4_swwae_all")
    text = "".join(line for line in Path(net).read_text().splitlines(True) if "crop_size" not in line)
    (here / "sizeless.prototxt").write_text(text)
    arguments = ("test", "--net", here / "sizeless.prototxt", weights)
    status, _, err = call(capsys, *arguments, "--out", here / "o")
    assert status == 1
    assert err.strip().endswith('no layer gives the size of the images in "data" (crop_size would): give --crop HxW')
    assert call(capsys, *arguments, "--crop", SIZE, "--out", here / "o")[0] == 0


def test_a_switch_unpooling_without_a_mask(here, capsys):
    net, weights = step("step4_swwae_all")
    param = read_net(net)
    unpool = next(each for each in param.layer if each.name == "dec:conv2_2/unpool")
    del unpool.bottom[1], unpool.propagate_down[1]
    (here / "maskless.prototxt").write_text(net_text(param, "Without a mask."))
    arguments = ["test", "--net", here / "maskless.prototxt", weights, "--crop", 16, "--out", here / "o"]
    status, _, err = call(capsys, *arguments)
    assert status == 1 and 'layer "dec:conv2_2/unpool"' in err


def test_an_unfinished_step_is_named(here, capsys):
    shutil.copytree("run", here / "run")
    (here / "run/step4_sae_first/snapshot_iter_2.caffemodel").unlink()
    status, _, err = call(capsys, "test", "--run", here / "run", "--out", here / "o")
    assert status == 1 and "step 4 of sae_first is not finished" in err


def test_files_of_another_call_are_not_replaced_silently(here, capsys):
    (here / "look").mkdir()
    (here / "look/mine.txt").write_text("mine")
    arguments = ["test", "--limit", 2, "--run", "run", "--out", here / "look"]
    status, _, err = call(capsys, *arguments)
    assert status == 1 and "holds files already: mine.txt" in err
    assert call(capsys, *arguments, "--overwrite")[0] == 0
    assert (here / "look/mine.txt").read_text() == "mine" and (here / "look/report.html").exists()


def test_grey_deploy_nets_need_a_mean(here, capsys):
    plain = read_net("net.prototxt")
    shape = (1, SIZE, SIZE)
    net = augment(plain, Decoder("sae", "all", image_shape=shape, filler={"type": "msra"}), 1.0)
    net.layer[0].Clear()
    net.layer[0].name, net.layer[0].type = "data", "Input"
    net.layer[0].top.append("data")
    net.layer[0].input_param.shape.add().dim.extend((1, *shape))
    del net.layer[1]
    (here / "grey.prototxt").write_text(net_text(net, "Grey."))
    augmented = read_augmented(net)
    Net(augmented.net_from(augmented.sources[0], (1, *shape)), "TEST").save(str(here / "grey.caffemodel"))
    arguments = ["test", "--net", here / "grey.prototxt", here / "grey.caffemodel", "--out", here / "look"]
    status, _, err = call(capsys, *arguments)
    assert status == 1 and "give --mean" in err
    assert call(capsys, *arguments, "--mean", 26, "--scale", 1 / 255)[0] == 0
