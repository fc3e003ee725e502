"""Pooling, Depooling, SafeInv and SPP: Caffe's goldens, every option, and the errors."""

import golden_layer
import pytest


@pytest.mark.parametrize("name", golden_layer.names("pool_", "switch_pool", "depool", "safeinv", "spp"))
def test_golden(name):
    golden_layer.check(name)
