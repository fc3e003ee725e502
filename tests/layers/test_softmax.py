"""Softmax: Caffe's numbers, gradients on every axis, an axis that is not there."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", ["softmax", "softmax_axism1", "inplace_softmax"])
def test_golden(name):
    gl.check(name)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("engine", ["DEFAULT", "CAFFE", "CUDNN"])
def test_axis(axis, engine):
    layer = gl.build(f'type: "Softmax" softmax_param {{ axis: {axis} engine: {engine} }}', (2, 3, 4))
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(layer(x).sum(axis), torch.ones_like(x).sum(axis) / x.shape[axis])
    assert torch.autograd.gradcheck(layer, x)


def test_large_scores_do_not_overflow():
    assert torch.equal(gl.build('type: "Softmax"', (1, 2))(torch.tensor([[1e30, 0.0]])), torch.tensor([[1.0, 0]]))


def test_axis_out_of_range():
    with pytest.raises(LayerError, match=r"softmax_param\.axis: 3 is out of range for a blob with 2 axes"):
        gl.meta_shapes(gl.build('type: "Softmax" softmax_param { axis: 3 }', (2, 3)), [(2, 3)])
