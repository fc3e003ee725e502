"""CaffeOnSpark's data layers without Spark."""

from __future__ import annotations

import logging

import pytest
import torch
from golden_files import ROOT as GOLDENS

from pycaffe_compat.errors import CaffeError
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

LMDB = f"file:{GOLDENS / 'data' / 'raw_lmdb'}/"
SPARK = """
layer {{ name: "data" type: "MemoryData" top: "data" top: "label" source_class: "com.yahoo.ml.caffe.{0}"
  memory_data_param {{ source: "{1}" batch_size: 5 channels: 3 height: 8 width: 8 share_in_parallel: false }}
  transform_param {{ scale: 0.5 crop_size: 8 }} }}
"""


def net_of(text: str) -> Net:
    return Net(parse_text(text, caffe_pb2.NetParameter), "TEST")


def test_an_lmdb_is_read_as_by_a_data_layer() -> None:
    plain = (
        'layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.5 crop_size: 8 } '
        f'data_param {{ source: "{LMDB[5:]}" batch_size: 5 backend: LMDB }} }}'
    )
    nets = [net_of(text) for text in (SPARK.format("LMDB", LMDB), plain)]
    for _ in range(3):
        have, want = (net.draw() for net in nets)
        assert all(torch.equal(have[name], want[name]) for name in ("data", "label"))
        assert have["data"].any()
    for net in nets:
        net.close()


@pytest.mark.parametrize(("cls", "place"), [("LMDB", "hdfs:///mnist_lmdb/"), ("ImageDataFrame", LMDB)])
def test_what_spark_alone_reads_is_given_by_the_program(cls: str, place: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        net = net_of(SPARK.format(cls, place))
    assert f'Spark reads "{place}" by com.yahoo.ml.caffe.{cls}' in caplog.text
    net.sources["data"].reset(torch.ones(5, 3, 8, 8), torch.arange(5.0))
    assert net.draw()["label"].tolist() == [0, 1, 2, 3, 4]


def test_data_frames_are_refused_by_name() -> None:
    with pytest.raises(CaffeError, match=r'"CoSData", which is a layer of CaffeOnSpark'):
        net_of('layer { name: "d" type: "CoSData" top: "x" cos_data_param { batch_size: 2 top { name: "x" } } }')
