"""The prototxt files of the repository: readable, and what the generator writes."""

from pathlib import Path

import paper_nets
import pytest
from google.protobuf import text_format

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.proto import caffe_pb2
from pycaffe_compat.swwae.generate import write_all
from pycaffe_compat.swwae.prototxt import WIDTH, format_readable

ROOT = Path(__file__).parents[2]
NAMES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "prototxt").rglob("*.prototxt"))


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """What the generator writes, by path."""
    return paper_nets.files()


@pytest.mark.parametrize("name", NAMES)
def test_the_file_in_the_repository_is_what_is_generated(name, files):
    assert (ROOT / name).read_text() == files[name], "run: caffe-make-prototxt"


def test_nothing_else_lies_there(files):
    assert set(NAMES) == set(files)


def test_the_files_that_the_paper_needs_are_there(files):
    names = [
        "vgg16",
        *(f"{kind}_{objective}" for kind in ("sae", "swwae") for objective in ("first", "all", "layerwise")),
    ]
    for name in names:
        for form in ("train_val", "deploy", "solver"):
            assert f"prototxt/{name}_{form}.prototxt" in files


def test_nets_to_deploy_draw_no_random_numbers(files):
    for name, text in files.items():
        if name.endswith(("deploy.prototxt", "train_val.prototxt")):
            assert ("filler" in text) == name.endswith("train_val.prototxt"), name
            assert "param { }" not in text


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("solver.prototxt")])
def test_solver_files_name_nets_that_are_there(name, files):
    solver = text_format.Parse(files[name], caffe_pb2.SolverParameter())
    assert solver.net in files
    assert "our own choices" in " ".join(files[name].replace("#", "").split())


def test_train_val_nets_read_the_documented_databases(files):
    net = text_format.Parse(files["prototxt/swwae_all_train_val.prototxt"], caffe_pb2.NetParameter())
    train, test = (each for each in net.layer if each.type == "Data")
    assert (train.data_param.source, test.data_param.source) == ("data/ilsvrc12/train_lmdb", "data/ilsvrc12/val_lmdb")
    assert (train.transform_param.mirror, test.transform_param.mirror) == (True, False)
    for each in (train, test):
        assert each.transform_param.crop_size == 224
        assert list(each.transform_param.mean_value) == pytest.approx([103.939, 116.779, 123.68])


def test_writing_makes_the_same_files(tmp_path, files):
    assert sorted(write_all(str(tmp_path))) == sorted(str(tmp_path / name) for name in files)
    for name, text in files.items():
        assert (tmp_path / name).read_text() == text


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "prototxt").touch()
    with pytest.raises(CaffeError, match=r"cannot write .*prototxt"):
        write_all(str(tmp_path))


def test_lines_are_short(files):
    long = [line for text in files.values() for line in text.splitlines() if len(line) > WIDTH]
    assert not long


def test_whatever_is_formatted_reads_back():
    net = caffe_pb2.NetParameter(name='a "quoted"\nname', force_backward=True)
    net.layer.add(name="λ", type="X", top=["a/b:c[2]"], loss_weight=[1 / 3, 1e-10, 1e30], propagate_down=[True, False])
    net.layer.add(name="d").data_param.backend = caffe_pb2.DataParameter.LMDB
    shape = net.layer.add(name="long" * 40).input_param.shape.add()
    shape.dim.extend(range(10**9, 10**9 + 40))
    net.layer[1].blobs.add(double_data=[0.1], data=[float("inf")])
    text = format_readable(net, "A header\nof two lines", {"d": "Here it begins"})
    assert text.startswith("# A header\n# of two lines\n")
    assert "\n\n# Here it begins\nlayer" in text
    assert text_format.Parse(text, caffe_pb2.NetParameter()) == net


def test_order_of_fields():
    solver = caffe_pb2.SolverParameter(net="n", base_lr=0.01, max_iter=5)
    assert format_readable(solver, order=["net", "max_iter", "base_lr"]) == 'net: "n"\nmax_iter: 5\nbase_lr: 0.01\n'
