"""Features in databases: what they hold, read with the lmdb package and protobuf as any program would."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from golden_files import ROOT as GOLDENS

from pycaffe_compat.commands.extract_features import extract_features
from pycaffe_compat.errors import CaffeError, DataError, LayerError, NetError, UnknownNameError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2

NET = f"""
name: "features"
layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ crop_size: 6 scale: 0.0078125 }}
  data_param {{ source: "{GOLDENS / "data" / "raw_lmdb"}" batch_size: 5 backend: LMDB }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 2 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param {{ num_output: 10 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }}
layer {{ name: "deep" type: "Reshape" bottom: "ip" top: "deep"
  reshape_param {{ shape {{ dim: 0 dim: 10 dim: 1 dim: 1 dim: 1 }} }} }}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    model, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    model.write_text(NET)
    torch.manual_seed(0)  # some weights make no feature negative
    net = Net(model, "TEST")
    net.save(weights)
    net.close()
    return str(weights), str(model)


def records(path: Path) -> list[tuple[bytes, bytes]]:
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(bytes(key), bytes(value)) for key, value in transaction.cursor()]


def test_records_are_those_of_caffe(files: tuple[str, str], tmp_path: Path) -> None:
    weights, model = files
    names = ["conv", "ip", "label", "loss"]
    assert extract_features(weights, model, names, [str(tmp_path / name) for name in names], 3) == 15
    net = Net(model, "TEST", weights=weights)
    batches = [net.run()[0] for _ in range(3)]
    net.close()
    for name, shape in (("conv", (2, 4, 4)), ("ip", (10, 1, 1)), ("label", (1, 1, 1)), ("loss", (1, 1, 1))):
        want = np.concatenate([batch[name].detach().numpy().reshape(-1, *shape) for batch in batches])
        found = records(tmp_path / name)
        assert [key for key, _ in found] == [b"%010d" % i for i in range(len(want))]
        for (_, value), item in zip(found, want, strict=True):
            datum = caffe_pb2.Datum.FromString(value)
            assert (datum.channels, datum.height, datum.width) == shape
            np.testing.assert_array_equal(np.array(datum.float_data, np.float32), item.ravel())
            assert sorted(field.name for field, _ in datum.ListFields()) == [
                "channels",
                "float_data",
                "height",
                "width",
            ]
    relu = np.array([caffe_pb2.Datum.FromString(value).float_data for _, value in records(tmp_path / "conv")])
    assert relu.min() == 0  # the newest value of a blob that a layer overwrites


@pytest.mark.parametrize(
    ("blobs", "options", "error", "words"),
    [
        (["conv", "ipp"], {}, UnknownNameError, r'no blob "ipp" \(did you mean ip\?\)'),
        (["conv", "deep"], {}, LayerError, r'"deep" has 5 axes'),
        ([], {}, DataError, r"no blob is named"),
        (["conv"], {}, DataError, r"1 blobs \(conv\) need as many databases"),
        (["conv", "ip"], {"batches": 0}, DataError, r"num_mini_batches: 0"),
        (["conv", "ip"], {"db_type": "leveldb"}, DataError, r'db_type "leveldb" is not supported'),
    ],
)
def test_mistakes_leave_nothing(files: tuple[str, str], tmp_path: Path, blobs, options, error, words) -> None:
    before = sorted(tmp_path.iterdir())
    arguments = {"batches": 2, **options}
    with pytest.raises(error, match=words):
        extract_features(*files, blobs, [str(tmp_path / "a"), str(tmp_path / "b")], **arguments)
    assert sorted(tmp_path.iterdir()) == before


def test_an_error_on_the_way_leaves_nothing(files: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(CaffeError, match=r"b exists already"):
        extract_features(*files, ["conv", "ip"], [str(tmp_path / "a"), str(tmp_path / "b")], 2)
    Path(files[1]).write_text('layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 } } }')
    with pytest.raises(NetError, match=r"Input layers"):
        extract_features(*files, ["data"], [str(tmp_path / "c")], 1)
    assert sorted(tmp_path.iterdir()) == before
