"""A net as Faster R-CNN's, whose proposals come from a Python layer of the user's own folder, or from its stand-in."""

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


STAND_IN = """
layer { name: "in" type: "Input" top: "s" top: "d" top: "i" input_param {
  shape { dim: 1 dim: 18 dim: 4 dim: 5 } shape { dim: 1 dim: 36 dim: 4 dim: 5 } shape { dim: 1 dim: 3 } } }
layer { name: "proposal" type: "Python" bottom: "s" bottom: "d" bottom: "i" top: "rois" top: "scores"
  python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "PARAMETERS" } }
"""


def test_code_that_cannot_be_imported_is_told_of_the_stand_in(own_folder: Path) -> None:
    net = parse_text(STAND_IN.replace("PARAMETERS", "'feat_stride': 16"), caffe_pb2.NetParameter())
    for code, words in (("print 'x'", "for Python 2"), ("import gpu_nms", "no module named gpu_nms")):
        (own_folder / "rpn" / "proposal_layer.py").write_text(code)
        with pytest.raises(LayerError, match=f"{words}.*not allowed, a layer of this package runs in its place"):
            Net(net, "TEST")


def stand_in(parameters: str = "'feat_stride': 16", phase: str = "TEST", fork: str = "") -> Net:
    param = parse_text(STAND_IN.replace("PARAMETERS", parameters), caffe_pb2.NetParameter(fork=fork))
    return Net(param, phase, file="tiny.prototxt")


@pytest.mark.parametrize("fork", ["", "fast_rcnn"])
def test_a_stand_in_makes_py_faster_rcnns_proposals(fork: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its algorithm, step by step: anchors, clipping, least size, order, suppression."""
    net = stand_in(fork=fork)
    assert "as by py-faster-rcnn's rpn.proposal_layer" in caplog.text
    anchors = net.layers["proposal"].anchors
    assert anchors[0].tolist() == [-84, -40, 99, 55] and anchors[8].tolist() == [-168, -344, 183, 359]  # its own list
    rng = np.random.default_rng(0)
    scores, deltas = rng.random((1, 18, 4, 5)), rng.standard_normal((1, 36, 4, 5)) * 0.3
    tall, wide, scale = 64.0, 80.0, 1.5
    rows = []
    for y in range(4):
        for x in range(5):
            for a, (x1, y1, x2, y2) in enumerate(anchors + 16 * np.array([x, y, x, y])):
                dx, dy, dw, dh = deltas[0, 4 * a : 4 * a + 4, y, x]
                w, h = x2 - x1 + 1, y2 - y1 + 1
                cx, cy, w, h = dx * w + x1 + w / 2, dy * h + y1 + h / 2, np.exp(dw) * w, np.exp(dh) * h
                box = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, [wide - 1, tall - 1] * 2)
                if min(box[2] - box[0], box[3] - box[1]) + 1 >= 16 * scale:
                    rows.append((*box, scores[0, 9 + a, y, x]))
    kept: list[tuple[float, ...]] = []
    for row in sorted(rows, key=lambda row: -row[4]):
        for other in kept:
            width = max(0, min(row[2], other[2]) - max(row[0], other[0]) + 1)
            height = max(0, min(row[3], other[3]) - max(row[1], other[1]) + 1)
            areas = sum((box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (row, other))
            if width * height / (areas - width * height) > 0.7:
                break
        else:
            kept.append(row)
    made = net.double()(s=torch.tensor(scores), d=torch.tensor(deltas), i=torch.tensor([[tall, wide, scale]]).double())
    np.testing.assert_allclose(made["rois"], [(0, *row[:4]) for row in kept[:300]], rtol=1e-6)
    np.testing.assert_allclose(made["scores"][:, 0], [row[4] for row in kept[:300]])


def test_a_stand_in_reads_the_parameters_of_its_class() -> None:
    assert stand_in(phase="TRAIN").layers["proposal"].after == 2000
    many = r"{'feat_stride': 8, 'ratios': [0.5, 1, 2], 'scales': !!python/tuple [4, 8, 16]}"
    assert stand_in(many).layers["proposal"].anchors[0].tolist() == [-38, -16, 53, 31]
    with pytest.raises(LayerError, match=r"is not of py-faster-rcnn's rpn.proposal_layer, which takes feat_stride"):
        stand_in("'feat_stride': 16, 'classes': 3")
    with pytest.raises(LayerError, match="feat_stride: x is not a number"):
        stand_in("'feat_stride': x")
    with pytest.raises(LayerError, match=r"needs scores 1×6×H×W and shifts 1×12×H×W for its 3 anchors"):
        stand_in("'feat_stride': 16, 'scales': [8]")


def test_the_users_own_class_goes_before_its_stand_in(own_folder: Path) -> None:
    with pytest.raises(LayerError, match=r"rpn\.proposal_layer\.ProposalLayer"):  # which has another number of anchors
        stand_in()(s=torch.zeros(1, 18, 4, 5), d=torch.zeros(1, 36, 4, 5), i=torch.zeros(1, 3))
