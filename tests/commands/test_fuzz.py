"""Files of any bytes: a result or an error of our family, from every reader that the commands have."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_text import LOG

from pycaffe_compat.commands.detect import read_windows
from pycaffe_compat.commands.images import read_array
from pycaffe_compat.commands.logs import read_log
from pycaffe_compat.errors import CaffeError

TABLE = b'filename,ymin,xmin,ymax,xmax\na.png,0,1,8,9\n"b c.png",2,2,1e2,inf\n'


def _array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.arange(12, dtype=np.float32).reshape(2, 6))
    return stream.getvalue()


SEEDS = {read_log: LOG.encode(), read_windows: TABLE, lambda path: read_array(path, "input"): _array()}


@st.composite
def spoilt(draw: st.DrawFn, seed: bytes) -> bytes:
    """A few pieces of a good file replaced, or anything at all."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 20))] = draw(
            st.binary(max_size=12) | st.sampled_from([b"9" * 30, b"-", b"\0"])
        )
    return bytes(data)


@pytest.mark.parametrize("read", SEEDS, ids=["log", "windows", "array"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes(read, data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data.draw(spoilt(SEEDS[read])))
    try:
        read(str(path))
    except CaffeError as error:
        assert str(path) in str(error)
