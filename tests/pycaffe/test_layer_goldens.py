"""Every layer golden, through the pycaffe interface: built from prototxt, run forward and backward as a pycaffe script would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from golden_files import assert_close, golden, names

import pycaffe_compat as caffe


@pytest.mark.parametrize(
    ("folder", "name"), [(folder, name) for folder in ("layers", "forks") for name in names(folder)]
)
def test_golden(folder: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = golden(folder, name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(case.meta["prototxt"])
    net = caffe.Net("net.prototxt", getattr(caffe, case.meta["phase"]))
    for path, value in case.group("param").items():
        layer, index = path.rsplit("/", 1)
        net.params[layer][int(index)].data[...] = value
    for blob, value in case.group("in").items():
        net.blobs[blob].data[...] = value

    net.forward()
    for blob, want in case.group("out").items():
        assert_close(net.blobs[blob].data, want, f"blob {blob}")
    for path, want in case.group("state").items():
        layer, index = path.rsplit("/", 1)
        assert_close(net.params[layer][int(index)].data, want, f"state {path}")
    if case.meta["forward_only"]:
        return

    for blob, value in case.group("top_diff").items():
        net.blobs[blob].diff[...] = value
    net.backward()
    for blob, want in case.group("in_diff").items():
        assert_close(net.blobs[blob].diff, want, f"diff of {blob}")
    for path, want in case.group("param_diff").items():
        layer, index = path.rsplit("/", 1)
        got = net.params[layer][int(index)].diff
        # a bias in front of a batch normalisation has gradient zero but for rounding
        assert_close(got, want, f"diff of {path}") if np.abs(want).max() > 1e-5 else np.testing.assert_allclose(
            got, want, atol=1e-5
        )
