import golden_layer as gl
import pytest

@pytest.mark.parametrize("name", gl.names("eltwise", "reduction", "argmax", "split", "parameter", "batch_reindex", "filter", "shared_bottom", "propagate_down"))
def test_golden(name):
    gl.check(name)
