"""The paper's nets at full size, as this package writes them, against what the authors' Caffe computed."""

import json
from pathlib import Path

import paper_nets
import pytest
import warm_start

from pycaffe_compat.proto import caffe_pb2
from pycaffe_compat.swwae.prototxt import format_readable

GOLDENS = Path(__file__).parents[1] / "goldens"
FINGERPRINTS = GOLDENS / "nets/paper_nets.json"


@pytest.mark.parametrize("name", json.loads(FINGERPRINTS.read_text()))
def test_every_blob_and_gradient_is_caffes(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    net = caffe_pb2.NetParameter.FromString(paper_nets.nets()[name].SerializeToString())
    for layer in net.layer:  # every weight is overwritten
        for options in (layer.convolution_param, layer.inner_product_param):
            options.ClearField("weight_filler")
    path.write_text(format_readable(net))
    options = ["--module", "pycaffe_compat", "--root", tmp_path, "--check", FINGERPRINTS]
    done = warm_start.run(GOLDENS / "netstat.py", *options)
    assert f"{name} ok" in done.stdout, done.stdout + done.stderr
