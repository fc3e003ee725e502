"""SSD through the pycaffe interface: from a picture to boxes, whose number is known after a pass only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ssd_net import NET

import pycaffe_compat as caffe
from pycaffe_compat.errors import LayerError


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
