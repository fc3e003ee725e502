"""What is said of layers that a target has no words for, whatever the target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from exported_nets import CLASSIFIER, build_net, layer_net

from pycaffe_compat.errors import NetError
from pycaffe_compat.export import to_onnx, to_source

pytestmark = pytest.mark.parametrize(("export", "name"), [(to_onnx, "net.onnx"), (to_source, "net.py")])
Export = Callable[..., object]


def test_every_layer_that_cannot_be_written_is_named_at_once(export: Export, name: str, tmp_path: Path) -> None:
    noise = (
        'layer { name: "%s" type: "DummyData" top: "%s" '
        'dummy_data_param { data_filler { type: "gaussian" } shape { dim: 1 dim: 5 } } }'
    )
    net = build_net(
        CLASSIFIER
        + noise % ("n1", "n1")
        + noise % ("n2", "n2")
        + 'layer { name: "sum" type: "Eltwise" bottom: "prob" bottom: "n1" bottom: "n2" top: "sum" }'
    )
    with pytest.raises(NetError, match=r'"n1" \(DummyData\): fills its tops with random numbers; layer "n2"'):
        export(net, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_why_a_layer_is_not_written_is_told(export: Export, name: str, tmp_path: Path) -> None:
    net, _ = layer_net([(2, 3), (2,)], 'type: "MarginInnerProduct" margin_inner_product_param { num_output: 3 }')
    words = r"\(MarginInnerProduct\): it takes the true labels; an InnerProduct with its weights"
    with pytest.raises(NetError, match=words):
        export(net, tmp_path / name)
