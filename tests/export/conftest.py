"""A small classifier, for all ways out."""

from __future__ import annotations

import pytest
from exported_nets import CLASSIFIER, CONVNET, build_net

from pycaffe_compat.net import Net


@pytest.fixture
def convnet() -> Net:
    """A fully convolutional net: conv, bn, scale, relu, pool."""
    return build_net(CONVNET)


@pytest.fixture
def classifier() -> Net:
    """The same with ``fc`` and ``prob``."""
    return build_net(CLASSIFIER)
