import golden_layer as gl
import pytest

@pytest.mark.parametrize("name", gl.names("concat", "slice_", "flatten", "reshape_", "tile", "crop"))
def test_golden(name):
    gl.check(name)
