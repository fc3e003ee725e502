import golden_layer as gl
import pytest

@pytest.mark.parametrize("name", gl.names("ip_", "embed", "scale_", "bias_", "silu_bias", "inplace_scale"))
def test_golden(name):
    gl.check(name)
