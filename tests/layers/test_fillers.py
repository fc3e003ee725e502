"""Fillers: the distributions and patterns of Caffe's fillers, and fillers that cannot be."""

import math

import pytest
import torch
from google.protobuf import text_format

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers.fillers import fill
from pycaffe_compat.proto import caffe_pb2


def filled(shape, prototxt, dtype=torch.float32):
    tensor = torch.full(shape, math.nan, dtype=dtype)
    torch.manual_seed(1)
    fill(tensor, text_format.Parse(prototxt, caffe_pb2.FillerParameter()))
    return tensor


def test_none_is_zeros():
    tensor = torch.ones(2, 3)
    fill(tensor)
    assert not tensor.any()


def test_constant():
    assert filled((2, 3), "value: 0.5").unique().tolist() == [0.5]
    assert filled((), 'type: "constant" value: 2').item() == 2
    assert filled((2, 3), "").unique().tolist() == [0]


def test_uniform():
    x = filled((100, 100), 'type: "uniform" min: -1 max: 3')
    assert -1 <= x.min() < -0.99 and 2.99 < x.max() <= 3
    assert x.mean().item() == pytest.approx(1, abs=0.05)


def test_gaussian():
    x = filled((100, 100), 'type: "gaussian" mean: 2 std: 0.5')
    assert x.mean().item() == pytest.approx(2, abs=0.02)
    assert x.std().item() == pytest.approx(0.5, abs=0.02)


def test_sparse_gaussian_keeps_so_many_weights_an_input():
    x = filled((50, 200), 'type: "gaussian" std: 1 sparse: 10')
    assert x.count_nonzero().item() == pytest.approx(10 * 200, rel=0.1)
    assert x[x != 0].std().item() == pytest.approx(1, abs=0.05)


def test_msra_for_leaky_relus():
    x = filled((100, 50), 'type: "msra" alpha: 2')
    assert x.std().item() == pytest.approx((2 / 50 / 5) ** 0.5, rel=0.05)


def test_gaussian_unitball():
    x = filled((500, 3, 4), 'type: "gaussian_unitball"').view(500, -1)
    assert torch.allclose(x.norm(dim=1), torch.ones(500)) and x.mean(0).abs().max() < 0.05


def test_positive_unitball():
    x = filled((5, 3, 4), 'type: "positive_unitball"')
    assert (x >= 0).all()
    torch.testing.assert_close(x.sum((1, 2)), torch.ones(5))


@pytest.mark.parametrize(
    "options, groups, value",
    [("", 4, 4 / 8), ("num_groups: 2 value: 3", 2, 3 * 2 / 8), ("num_groups: 1", 1, 1 / 8)],
)
def test_identity(options, groups, value):
    x = filled((8, 4, 3, 5), f'type: "identity" {options}')
    for output, inputs, row, column in x.nonzero().tolist():
        assert (row, column) == (1, 2) and output * groups // 8 == inputs * groups // 4
    assert x.count_nonzero() == 8 * 4 // groups and x[x != 0].unique().tolist() == [value]


def test_identity_beside_noise():
    x = filled((40, 40, 3, 3), 'type: "identity" std: 0.1')
    assert (x[:, :, 1, 1].diagonal() == 1).all()
    assert x[:, :, 0].std().item() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("shape, options", [((4, 4), ""), ((6, 4, 1, 1), ""), ((4, 2, 1, 1), "num_groups: 4")])
def test_what_identity_cannot_fill(shape, options):
    with pytest.raises(LayerError, match='filler "identity"'):
        filled(shape, f'type: "identity" {options}')


@pytest.mark.parametrize("norm, fan", [("FAN_IN", 3 * 25), ("FAN_OUT", 64 * 25), ("AVERAGE", 67 * 25 / 2)])
@pytest.mark.parametrize("kind, variance", [("xavier", 1), ("msra", 2)])
def test_variance_is_that_of_the_fan(norm, fan, kind, variance):
    x = filled((64, 3, 5, 5), f'type: "{kind}" variance_norm: {norm}', torch.float64)
    assert x.var().item() == pytest.approx(variance / fan, rel=0.1)
    if kind == "xavier":
        assert x.abs().max().item() <= math.sqrt(3 / fan)


@pytest.mark.parametrize("shape, fan_in, fan_out", [((8,), 1, 8), ((4, 6), 6, 4), ((2, 3, 4), 12, 8)])
def test_fans_of_other_shapes(shape, fan_in, fan_out):
    """Caffe counts an axis that a blob does not have as 1."""
    bounds = []
    for norm in ("FAN_IN", "FAN_OUT"):
        bounds.append(filled(shape, f'type: "xavier" variance_norm: {norm}').abs().max().item())
    assert bounds[0] <= math.sqrt(3 / fan_in) and bounds[1] <= math.sqrt(3 / fan_out)
    assert bounds[0] / bounds[1] == pytest.approx(math.sqrt(fan_out / fan_in))


@pytest.mark.parametrize(
    "size, row",
    [
        (1, [1]),
        (2, [0.5, 0.5]),
        (3, [0.5, 1, 0.5]),
        (4, [0.25, 0.75, 0.75, 0.25]),
        (5, [1 / 3, 2 / 3, 1, 2 / 3, 1 / 3]),
    ],
)
def test_bilinear_is_a_pyramid_the_same_for_every_channel(size, row):
    want = torch.outer(*[torch.tensor(row, dtype=torch.float32)] * 2).expand(3, 2, size, size)
    torch.testing.assert_close(filled((3, 2, size, size), 'type: "bilinear"'), want)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["constant", "uniform", "gaussian", "positive_unitball", "xavier", "msra", "bilinear"])
def test_every_dtype(kind, dtype):
    assert filled((4, 2, 3, 3), f'type: "{kind}"', dtype).isfinite().all()


@pytest.mark.parametrize(
    "shape, prototxt, says",
    [
        ((2, 2), 'type: "gausian"', r'unknown filler "gausian" \(did you mean gaussian\?\)'),
        ((2, 2), 'type: "uniform" sparse: 1', "only the gaussian filler can be sparse"),
        ((2, 2), 'type: "gaussian" sparse: 3', "it must be 0 to 2"),
        ((2, 2), 'type: "gaussian" sparse: -2', "sparse: -2"),
        ((2, 2), 'type: "gaussian" std: -1', "std: -1"),
        ((2, 2), 'type: "uniform" min: 1 max: 0', "min: 1 above max: 0"),
        ((2, 2), 'type: "bilinear"', r"not a blob of shape 2×2"),
        ((2, 2, 3, 4), 'type: "bilinear"', r"not a blob of shape 2×2×3×4"),
    ],
)
def test_bad_fillers(shape, prototxt, says):
    with pytest.raises(LayerError, match=says):
        filled(shape, prototxt)


@pytest.mark.parametrize(
    ("outputs", "size", "total", "weighted"),
    [
        (32, 5, 252.375283, 4.937605),
        (64, 7, 1106.186325, -3.380513),
        (64, 3, 302.040943, -0.26402),
        (96, 11, 1888.170928, -1.743506),
    ],
)
def test_gabor(outputs, size, total, weighted):
    """The sum of magnitudes, and the mean of each number times its place, are those of intel/caffe's gabor.hpp."""
    x = filled((outputs, 3, size, size), 'type: "gabor" std: 0.01', torch.float64).flatten()
    assert x.abs().sum().item() == pytest.approx(total, abs=1e-5)
    assert (x * torch.arange(len(x))).mean().item() == pytest.approx(weighted, abs=1e-5)


def test_gabor_is_for_four_nets():
    with pytest.raises(LayerError, match=r"has filters of the shapes 32×3×5×5, .*; none for a blob of shape 96×3×7×7"):
        filled((96, 3, 7, 7), 'type: "gabor"')
