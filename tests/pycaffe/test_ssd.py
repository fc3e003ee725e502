"""SSD through the numpy face: from a picture to boxes, whose number is known after a pass only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pycaffe_compat as caffe
from pycaffe_compat.errors import LayerError

SOURCE = """
layer {{ name: "{0}_{1}" type: "Convolution" bottom: "{0}" top: "{0}_{1}"
  convolution_param {{ num_output: {2} kernel_size: 3 pad: 1
  weight_filler {{ type: "gaussian" std: 0.3 }} }} }}
layer {{ name: "{0}_{1}_perm" type: "Permute" bottom: "{0}_{1}" top: "{0}_{1}_perm"
  permute_param {{ order: 0 order: 2 order: 3 order: 1 }} }}
layer {{ name: "{0}_{1}_flat" type: "Flatten" bottom: "{0}_{1}_perm" top: "{0}_{1}_flat" }}
"""
PRIORS = """
layer {{ name: "{0}_prior" type: "PriorBox" bottom: "{0}" bottom: "data" top: "{0}_prior" prior_box_param {{ min_size: {1}
  max_size: {2} aspect_ratio: 2 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 clip: true }} }}
"""
HEAD = """
layer {{ name: "mbox_{0}" type: "Concat" bottom: "conv4n_{0}" bottom: "conv7_{0}" top: "mbox_{0}" concat_param {{ axis: {1} }} }}
"""
NET = (
    """
name: "SSD_24x24" input: "data" input_shape { dim: 1 dim: 3 dim: 24 dim: 24 }
layer { name: "conv4" type: "Convolution" bottom: "data" top: "conv4"
  convolution_param { num_output: 4 kernel_size: 3 stride: 4 weight_filler { type: "gaussian" std: 0.2 } } }
layer { name: "conv4n" type: "Normalize" bottom: "conv4" top: "conv4n" norm_param { across_spatial: false
  channel_shared: false scale_filler { type: "constant" value: 4 } } }
layer { name: "conv7" type: "Convolution" bottom: "conv4" top: "conv7"
  convolution_param { num_output: 4 kernel_size: 3 stride: 2 weight_filler { type: "gaussian" std: 0.2 } } }
"""
    + "".join(SOURCE.format(layer, *kind) for layer in ("conv4n", "conv7") for kind in (("loc", 16), ("conf", 12)))
    + PRIORS.format("conv4n", 6, 9)
    + PRIORS.format("conv7", 12, 20)
    + HEAD.format("loc_flat", 1)
    + HEAD.format("conf_flat", 1)
    + HEAD.format("prior", 2)
    + """
layer { name: "reshape" type: "Reshape" bottom: "mbox_conf_flat" top: "reshape"
  reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "softmax" type: "Softmax" bottom: "reshape" top: "softmax" softmax_param { axis: 2 } }
layer { name: "flat" type: "Flatten" bottom: "softmax" top: "flat" }
layer { name: "detection_out" type: "DetectionOutput" bottom: "mbox_loc_flat" bottom: "flat" bottom: "mbox_prior"
  top: "detection_out" include { phase: TEST } detection_output_param { num_classes: 3 code_type: CENTER_SIZE keep_top_k: 20
    confidence_threshold: 0.98 nms_param { nms_threshold: 0.45 top_k: 40 } } }
"""
)


@pytest.fixture
def net(tmp_path: Path) -> caffe.Net:
    file = tmp_path / "deploy.prototxt"
    file.write_text(NET)
    caffe.set_random_seed(5)
    return caffe.Net(str(file), caffe.TEST)


def test_pictures_become_boxes(net: caffe.Net) -> None:
    assert net.blobs["detection_out"].data.shape == (1, 1, 1, 7)  # before the first pass, as in Caffe
    rng = np.random.default_rng(0)
    pictures = [np.zeros((3, 24, 24)), *(rng.normal(size=(3, 24, 24)) * spread for spread in (0.3, 1))]
    found = []
    for picture in pictures:
        net.blobs["data"].data[...] = picture
        found.append(net.forward()["detection_out"].copy())
        np.testing.assert_array_equal(net.blobs["detection_out"].data, found[-1])
        assert net.blobs["detection_out"].diff.shape == found[-1].shape
    assert len({rows.shape for rows in found}) == 3
    assert found[0].tolist() == [[[[0, -1, -1, -1, -1, -1, -1]]]]
    for rows in found[1:]:
        assert set(rows[0, 0, :, 1]) <= {1, 2}
        assert (rows[0, 0, :, 2] > 0.98).all()
        assert len(rows[0, 0]) <= 20
    net.blobs["data"].reshape(3, 3, 24, 24)
    net.blobs["data"].data[...] = pictures
    together = net.forward()["detection_out"][0, 0]
    for image in (1, 2):
        mine = together[together[:, 0] == image]
        np.testing.assert_allclose(mine[:, 1:], found[image][0, 0, :, 1:], rtol=1e-4, atol=1e-5)
    assert not (together[:, 0] == 0).any()


def test_another_size_of_picture_makes_other_priors(net: caffe.Net) -> None:
    net.blobs["data"].reshape(1, 3, 48, 24)
    net.reshape()
    priors = net.blobs["mbox_prior"].data.shape[2] // 4
    assert priors * 4 == net.blobs["mbox_loc_flat"].data.shape[1]
    net.forward()


def test_a_wrong_number_of_classes_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "deploy.prototxt"
    file.write_text(NET.replace("num_classes: 3", "num_classes: 4"))
    with pytest.raises(
        LayerError, match=r'deploy.prototxt: layer "detection_out".*its second bottom, the scores, 4 \(num_classes'
    ):
        caffe.Net(str(file), caffe.TEST)
