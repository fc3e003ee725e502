import golden_layer as gl
import pytest

@pytest.mark.parametrize("name", gl.names("conv_", "deconv_", "im2col"))
def test_golden(name):
    gl.check(name)
