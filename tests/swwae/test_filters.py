"""Pictures of filters: what is drawn where, how differences are measured, and what cannot be drawn."""

import cv2
import numpy as np
import pytest

from pycaffe_compat.commands.draw_filters import main
from pycaffe_compat.errors import UnknownNameError, WeightsError
from pycaffe_compat.net import Net
from pycaffe_compat.swwae import vgg
from pycaffe_compat.swwae.filters import Filters, change, filters_figure, read_filters
from pycaffe_compat.swwae.nets import deploy_inputs


def saved(path, channels=3, width=4, scale=1.0):
    """A small net's caffemodel, whose first filters are known: filter i has the weights of i + 1 in its first channel."""
    inputs = deploy_inputs((1, channels, 8, 8), labels=False)
    param = vgg(inputs=inputs, stages=((1, width), (1, 6)), hidden=(), classes=3)
    del param.layer[-2:]
    net = Net(param, "TEST")
    weight = net.layers["conv1_1"].blobs[0].detach()
    weight.zero_()
    for i in range(width):
        weight[i, 0] = scale * (i + 1)
    net.save(str(path))
    return str(path)


def test_the_first_layer_of_pictures_is_found(tmp_path):
    found = read_filters(saved(tmp_path / "a.caffemodel"))
    assert (found.layer, found.title, found.values.shape) == ("conv1_1", "a.caffemodel", (4, 3, 3, 3))
    np.testing.assert_array_equal(found.values[:, 0, 0, 0], [1, 2, 3, 4])


def test_a_change_is_relative():
    before = Filters("a", "c", np.full((2, 1, 3, 3), 2.0, np.float32))
    assert change(before, Filters("b", "c", before.values * 1.25)) == pytest.approx(0.25)


def test_the_picture_shows_blue_filters_and_their_difference(tmp_path, capsys):
    first, second = saved(tmp_path / "a.caffemodel"), saved(tmp_path / "b.caffemodel", scale=0.5)
    picture = tmp_path / "f.png"
    assert main([first, second, str(picture)]) == 0
    assert "differs from" in (said := capsys.readouterr().out) and "50.00%" in said
    shown = cv2.imread(str(picture)).astype(int)
    strong = (shown == [255, 128, 128]).all(2) | (shown == [255, 127, 127]).all(2)  # the weight 4 of ±4 in B
    thirds = [half.sum() for half in np.array_split(strong, 3, axis=1)]
    assert thirds[0] > 100 and thirds[1] == 0
    dark = (shown == [0, 128, 128]).all(2) | (shown == [0, 127, 127]).all(2)  # the difference -2 of ±2
    assert np.array_split(dark, 3, axis=1)[2].sum() > 100


def test_grey_filters(tmp_path):
    filters_figure(tmp_path / "f.png", read_filters(saved(tmp_path / "a.caffemodel", channels=1)))
    shown = cv2.imread(str(tmp_path / "f.png"))
    assert (shown == 255).all(2).sum() > 100


def test_bad_input(tmp_path, capsys):
    path = saved(tmp_path / "a.caffemodel")
    with pytest.raises(UnknownNameError, match=r'no weights for a layer "conv1_2".*can be shown: conv1_1'):
        read_filters(path, "conv1_2")
    with pytest.raises(WeightsError, match="shape 6×4×3×3; filters of 1 channel or 3 can be shown: conv1_1"):
        read_filters(path, "conv2_1")
    other = saved(tmp_path / "b.caffemodel", width=5)
    assert main([path, other, str(tmp_path / "f.png")]) == 1
    assert "only the same can be compared" in capsys.readouterr().err
    assert not (tmp_path / "f.png").exists()
    assert main([path, str(tmp_path / "f.bmp")]) == 1
    assert "f.bmp: the file name's ending must be one of" in capsys.readouterr().err
