"""A net as Faster R-CNN's, whose proposals come from a Python layer of the user's own folder."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pycaffe_compat
from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import python_layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

DEPLOY = """
name: "tiny Faster R-CNN"
input: "data" input_shape { dim: 1 dim: 3 dim: 32 dim: 48 }
input: "im_info" input_shape { dim: 1 dim: 3 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 4 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "score" type: "Convolution" bottom: "conv" top: "score"
  convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "proposal" type: "Python" bottom: "score" bottom: "im_info" top: "rois" propagate_down: false
  propagate_down: false
  python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "'feat_stride': 4" } }
layer { name: "pool" type: "ROIPooling" bottom: "conv" bottom: "rois" top: "pool"
  roi_pooling_param { pooled_w: 3 pooled_h: 3 spatial_scale: 0.25 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "cls"
  inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
"""

PROPOSALS = """
import numpy as np
import pycaffe_compat


class ProposalLayer(pycaffe_compat.Layer):
    # the cells with a higher second score: one region each, of an unknown number

    def setup(self, bottom, top):
        self.stride = int(self.param_str.split(":")[1])
        top[0].reshape(1, 5)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        height, width = bottom[1].data[0, :2]
        y, x = np.nonzero(bottom[0].data[0, 1] > bottom[0].data[0, 0])
        corners = np.stack((x, y, x + 2, y + 2), 1) * self.stride
        corners = np.minimum(corners, (width - 1, height - 1, width - 1, height - 1))
        top[0].reshape(len(x), 5)
        top[0].data[...] = np.insert(corners, 0, 0, axis=1)

    def backward(self, top, propagate_down, bottom):
        pass
"""


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder with ``rpn/proposal_layer.py`` and the net; Python layers are allowed."""
    (tmp_path / "rpn").mkdir()
    (tmp_path / "rpn" / "__init__.py").touch()
    (tmp_path / "rpn" / "proposal_layer.py").write_text(PROPOSALS)
    (tmp_path / "deploy.prototxt").write_text(DEPLOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(python_layer, "_allowed", True)
    yield tmp_path
    for name in ("rpn", "rpn.proposal_layer"):
        sys.modules.pop(name, None)


def test_the_module_and_the_numpy_face_follow_the_number_of_proposals(own_folder: Path) -> None:
    net = pycaffe_compat.load(own_folder / "deploy.prototxt", phase="TEST")
    face = pycaffe_compat.Net(str(own_folder / "deploy.prototxt"), pycaffe_compat.TEST)
    for layer, blobs in face.params.items():
        for index, blob in enumerate(blobs):
            blob.data[...] = net.layers[layer].blob(index).detach().numpy()
    numbers = set()
    for size in ((32, 48), (40, 24)):
        data = torch.randn(1, 3, *size)
        info = torch.tensor([[*size, 1.0]])
        blobs, _ = net.run({"data": data, "im_info": info})
        n = len(blobs["rois"])
        numbers.add(n)
        assert n > 1 and blobs["pool"].shape == (n, 8, 3, 3) and blobs["cls"].shape == (n, 4)
        face.blobs["data"].reshape(1, 3, *size)
        out = face.forward(data=data.numpy(), im_info=info.numpy())
        np.testing.assert_allclose(out["cls"], blobs["cls"].detach().numpy(), rtol=1e-4, atol=1e-5)
        assert face.blobs["rois"].data.shape == (n, 5)
    assert len(numbers) == 2


def test_the_gradient_reaches_the_convolution_through_the_regions(own_folder: Path) -> None:
    net = pycaffe_compat.load(own_folder / "deploy.prototxt", phase="TRAIN")
    net(data=torch.randn(1, 3, 32, 48), im_info=torch.tensor([[32.0, 48, 1]]))["cls"].sum().backward()
    assert net.layers["conv"].weight.grad.abs().sum() > 0
    assert net.layers["score"].weight.grad is None or not net.layers["score"].weight.grad.any()


def test_without_its_folder_the_error_names_the_module_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_layer, "_allowed", True)
    message = r'tiny.prototxt: layer "proposal" \(Python\): .*rpn.proposal_layer: no module named rpn; .* PYTHONPATH'
    with pytest.raises(LayerError, match=message):
        Net(parse_text(DEPLOY, caffe_pb2.NetParameter()), "TEST", file="tiny.prototxt")


def test_the_layer_is_not_run_unless_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python_layer, "_allowed", False)
    monkeypatch.delenv(python_layer.VARIABLE, raising=False)
    with pytest.raises(
        LayerError, match=rf"runs the Python class rpn\.proposal_layer\.ProposalLayer, .* set {python_layer.VARIABLE}=1"
    ):
        Net(parse_text(DEPLOY, caffe_pb2.NetParameter()), "TEST", file="tiny.prototxt")
