"""Weights into a net: which layers each file gives, and what the report says of the others."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import pycaffe_compat
from pycaffe_compat.errors import CaffeError, WeightsError
from pycaffe_compat.loading import FileReport, Reshaped, same_shape
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text, read_net, read_weights, write_message, write_weights

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
SHARED = 'param { name: "w" } param { name: "b" }'


def ip(name: str, more: str = "") -> str:
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}" {more}
                        inner_product_param {{ num_output: 3 }} }}"""


def net_of(text: str, **options: object) -> Net:
    return Net(parse_text(text, caffe_pb2.NetParameter), "TEST", **options)  # type: ignore[arg-type]


def stored(path: Path, *layers: tuple[str, float], shape: tuple[int, ...] = (3, 3)) -> Path:
    """A caffemodel with a layer for each name, all of whose numbers are the value beside it; None for no blobs."""
    net = caffe_pb2.NetParameter()
    for name, value in layers:
        layer = net.layer.add(name=name, type="InnerProduct")
        for dims in (shape, (3,)):
            blob = layer.blobs.add(data=[value] * int(np.prod(dims)))
            blob.shape.dim.extend(dims)
    write_message(path, net)
    return path


def test_each_file_has_its_own_report(tmp_path: Path) -> None:
    first = stored(tmp_path / "a.caffemodel", ("old", 1), ("p", 2), shape=(1, 1, 3, 3))
    second = stored(tmp_path / "b.caffemodel", ("q", 3), ("older", 4), ("p", 5))
    net = net_of(INPUT + ip("p") + ip("q") + ip("r"))
    report = net.load_weights([first, read_weights(second)])
    assert report is net.load_report
    assert report.files == [
        FileReport(str(first), ["p"], ["q", "r"], ["old"], [Reshaped("p", 0, (1, 1, 3, 3), (3, 3))], ["old"]),
        FileReport(str(second), ["q", "p"], ["r"], ["older"], [], ["older"]),
    ]
    assert report.loaded == ["p", "q"] and report.missing == ["r"]
    assert report.ignored == net.ignored_layers == ["old", "older"]
    assert [blob.layer for blob in report.reshaped] == ["p"]
    assert report.gaps() == (
        f"no weights for r in {first}, {second}: they keep what their fillers made; "
        "left over are those of old, older, which the net does not have"
    )
    assert net.layers["p"].blob(0).unique().tolist() == [5]


def test_a_net_is_built_with_the_same_report(tmp_path: Path) -> None:
    paths = [stored(tmp_path / f"{name}.caffemodel", (name, 1), ("none", 1)) for name in "pq"]
    net = net_of(INPUT + ip("p") + ip("q"), weights=paths)
    assert [report.ignored for report in net.load_report.files] == [["none"], ["none"]]
    assert net.ignored_layers == ["none"]
    assert net.load_report.missing == [] and net.load_report.gaps() == ""
    bare = net_of(INPUT + ip("p"))
    assert bare.load_report.files == [] and bare.load_report.missing == ["p"] and bare.load_report.gaps() == ""


def test_a_net_that_shares_reports_only_its_own_layers(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.caffemodel", ("p", 1), ("q", 2))
    train = net_of(INPUT + ip("p"), weights=path)
    test = net_of(INPUT + ip("p") + ip("q") + ip("r"), weights=path, share=train)
    assert test.layers["p"].blob(0) is train.layers["p"].blob(0)
    assert test.load_report.loaded == ["q"] and test.load_report.missing == ["r"] and test.ignored_layers == []


def test_what_another_net_shares_is_not_overwritten(tmp_path: Path) -> None:
    train = net_of(INPUT + ip("p"), weights=stored(tmp_path / "a.caffemodel", ("p", 1)))
    weights = stored(tmp_path / "b.caffemodel", ("p", 2), ("q", 3))
    test = net_of(INPUT + ip("p", 'param { name: "w" }') + ip("q", 'param { name: "w" }'), weights=weights, share=train)
    assert train.layers["p"].blob(0).unique().tolist() == [1]
    assert test.layers["q"].blob(0) is train.layers["p"].blob(0) and test.layers["q"].blob(1).unique().tolist() == [3]
    assert test.load_report.loaded == ["q"] and test.load_report.missing == []


def test_a_layer_that_shares_loaded_blobs_is_not_missing(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.caffemodel", ("p", 1))
    net = net_of(INPUT + ip("p", SHARED) + ip("q", SHARED) + ip("r", 'param { name: "w" }'), weights=path)
    assert net.load_report.missing == ["r"]  # its bias is its own
    assert net.layers["q"].blob(0).unique().tolist() == [1]
    reverse = net_of(INPUT + ip("q", SHARED) + ip("p", SHARED), weights=path)
    assert reverse.load_report.missing == [] and reverse.layers["q"].blob(1).unique().tolist() == [1]


def test_blobs_of_a_layer_may_come_from_several_files(tmp_path: Path) -> None:
    paths = [stored(tmp_path / f"{name}.caffemodel", (name, value)) for name, value in (("p", 1), ("q", 2))]
    text = INPUT + ip("p", 'param { name: "w" }') + ip("q", 'param {} param { name: "b" }')
    net = net_of(text + ip("r", SHARED), weights=paths)
    assert [report.missing for report in net.load_report.files] == [["q", "r"], ["p", "r"]]
    assert net.load_report.missing == []


def test_hdf5_weights_are_reported_alike(tmp_path: Path) -> None:
    net = net_of(INPUT + ip("p", SHARED) + ip("q", SHARED))
    net.save(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "a") as file:
        for index in list(file["data/q"]):
            del file["data/q"][index]
        file["data/gone/0"] = np.zeros(3, np.float32)
    report = net.load_weights(tmp_path / "w.h5")
    assert (report.files[0].missing, report.ignored) == ([], ["gone"])


def test_the_last_layer_of_a_name_counts_and_stands_where_it_stood(tmp_path: Path) -> None:
    path = stored(tmp_path / "a.caffemodel", ("p", 1), ("q", 2), ("p", 3))
    assert list(read_weights(path)) == ["q", "p"]
    net = net_of(INPUT + ip("p", SHARED) + ip("q", SHARED), weights=path)
    assert net.layers["q"].blob(0).unique().tolist() == [3]
    assert net.load_report.loaded == ["q", "p"]


def test_load_warns_of_layers_without_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(INPUT + ip("p") + ip("q"))
    weights = stored(tmp_path / "a.caffemodel", ("p", 1))
    with caplog.at_level(logging.WARNING):
        pycaffe_compat.load(path)
        assert not caplog.messages
        pycaffe_compat.load(path, weights)
    assert caplog.messages == [f"{path}: no weights for q in {weights}: they keep what their fillers made"]


@pytest.mark.parametrize(
    ("stored_shape", "shape", "same"),
    [
        ((1, 1, 4, 3), (4, 3), True),
        ((4, 3), (1, 1, 4, 3), True),
        ((1, 1, 1, 4), (4,), True),
        ((1, 1, 1, 1), (), True),
        ((1, 2, 3, 4, 5), (1, 2, 3, 4, 5), True),
        ((1, 2, 3, 4, 5), (2, 3, 4, 5), False),
        ((2, 3, 4, 5), (1, 2, 3, 4, 5), False),
        ((4, 3, 1, 1), (4, 3), False),
        ((3, 4), (4, 3), False),
    ],
)
def test_leading_ones_do_not_count_up_to_four_axes(
    stored_shape: tuple[int, ...], shape: tuple[int, ...], same: bool
) -> None:
    assert same_shape(stored_shape, shape) is same


def test_a_blob_of_five_axes_must_have_the_same_shape(tmp_path: Path) -> None:
    text = """layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 4 dim: 4 dim: 4 } } }
              layer { name: "c" type: "Convolution" bottom: "x" top: "c"
                      convolution_param { num_output: 1 kernel_size: 3 bias_term: false } }"""
    net = net_of(text)
    values = torch.arange(54, dtype=torch.float32).numpy()
    for shape, fits in (((1, 2, 3, 3, 3), True), ((2, 3, 3, 3), False), ((1, 1, 2, 3, 3, 3), False)):
        for name in ("w.caffemodel", "w.h5"):
            write_weights(tmp_path / name, net.param, {"c": [values.reshape(shape)]})
            if fits:
                net.load_weights(tmp_path / name)
                assert net.layers["c"].blob(0).flatten().tolist() == values.tolist()
            else:
                with pytest.raises(
                    WeightsError, match=r'layer "c", blob 0 \(weight\): shape 1×2×3×3×3 in the net, but \d×'
                ):
                    net.load_weights(tmp_path / name)


HELD = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 2 }} }} }}
layer {{ name: "a" type: "InnerProduct" bottom: "x" top: "a" param {{ name: "w" }} param {{ name: "b" }}
  inner_product_param {{ num_output: 2 }} {} }}
layer {{ name: "c" type: "InnerProduct" bottom: "x" top: "c" param {{ name: "w" }} param {{ name: "b" }}
  inner_product_param {{ num_output: 2 }} {} }}
"""
ONES = "blobs { shape { dim: 2 dim: 2 } data: [1, 1, 1, 1] } blobs { shape { dim: 2 } data: [1, 1] }"
TWOS = ONES.replace("1, 1", "2, 2")


def test_a_net_begins_with_the_blobs_that_its_layers_hold(tmp_path: Path) -> None:
    """As in Caffe, whose layers fill only what their ``LayerParameter`` has not; of a shared blob the owner's counts."""
    (tmp_path / "net.prototxt").write_text(HELD.format(ONES, TWOS))
    net = pycaffe_compat.load(tmp_path / "net.prototxt")
    assert net(x=torch.ones(1, 2))["c"].tolist() == [[3, 3]]
    assert not any(layer.blobs for layer in net.param.layer)  # they would be saved twice
    net.layers["a"].weight.data.fill_(5)
    net.save(tmp_path / "net.caffemodel")
    again = pycaffe_compat.load(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")  # weights come first
    assert again(x=torch.ones(1, 2))["a"].tolist() == [[11, 11]] and not again.load_report.missing
    alone = pycaffe_compat.load(tmp_path / "net.caffemodel")  # a net that is binary brings its weights too
    assert alone.layers["a"].weight.unique().tolist() == [5]


def test_a_binary_net_without_blobs_is_filled(tmp_path: Path) -> None:
    write_message(tmp_path / "net.protobin", read_net(HELD.format("", "")))
    net = pycaffe_compat.load(tmp_path / "net.protobin")
    assert net(x=torch.ones(1, 2))["c"].shape == (1, 2) and not net.load_report.files


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (ONES.split("} blobs")[0] + "}", r'layer "a" has 2 blobs in .*, but 1 in the blobs within .*net\.prototxt'),
        (ONES.replace("1, 1, 1, 1", "1"), r'net\.prototxt: layer "a", blob 0: shape \(2, 2\) has 4 elements, but 1'),
        (ONES.replace("dim: 2 dim: 2", "dim: 4"), "shape 2×2 in .*, but 4 in the blobs within"),
    ],
)
def test_blobs_of_a_net_that_do_not_fit_its_layers(tmp_path: Path, held: str, says: str) -> None:
    (tmp_path / "net.prototxt").write_text(HELD.format(held, ""))
    with pytest.raises(CaffeError, match=says):
        pycaffe_compat.load(tmp_path / "net.prototxt")
