"""Element-wise layers: Caffe's numbers, gradients, options, bad options."""

import golden_layer as gl
import pytest

NEURONS = ("absval", "bnll", "clip", "dropout_test", "elu", "exp_", "log_", "power", "prelu", "relu", "sigmoid",
           "swish", "tanh", "threshold", "inplace_")


@pytest.mark.parametrize("name", [n for n in gl.names(*NEURONS) if not n.startswith(("sigmoidce", "inplace_chain", "inplace_softmax", "inplace_scale"))])
def test_golden(name):
    gl.check(name)
