import golden_layer as gl
import pytest

@pytest.mark.parametrize("name", gl.names("bn_", "lrn_", "mvn"))
def test_golden(name):
    gl.check(name)
