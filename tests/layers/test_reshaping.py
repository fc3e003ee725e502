"""Concat, Slice, Flatten, Reshape, Tile, Crop: Caffe's numbers, gradients of every option, bad options."""

import golden_layer as gl
import pytest
import torch

from pycaffe_compat.errors import LayerError


@pytest.mark.parametrize("name", gl.names("concat", "slice_", "flatten", "reshape_", "tile", "crop"))
def test_golden(name):
    gl.check(name)


@pytest.mark.parametrize(
    "prototxt, shapes, tops",
    [
        ('"Concat" concat_param { axis: -1 }', [(2, 3, 1), (2, 3, 2)], [(2, 3, 3)]),
        ('"Concat"', [(2, 3)], [(2, 3)]),
        ('"Slice" top: "a" top: "b" slice_param { axis: -1 slice_point: 1 }', [(2, 3)], [(2, 1), (2, 2)]),
        ('"Slice"', [(2, 3)], [(2, 3)]),
        ('"Flatten" flatten_param { axis: 0 end_axis: 1 }', [(2, 3, 2)], [(6, 2)]),
        ('"Flatten" flatten_param { axis: -2 end_axis: -1 }', [(2, 3, 2)], [(2, 6)]),
        ('"Flatten" flatten_param { axis: 1 end_axis: 0 }', [(2, 3, 2)], [(2, 1, 3, 2)]),
        ('"Flatten"', [(2, 3)], [(2, 3)]),
        ('"Reshape" reshape_param { shape { dim: 0 dim: 0 dim: 1 dim: -1 } }', [(2, 3, 2)], [(2, 3, 1, 2)]),
        ('"Reshape" reshape_param { shape { dim: -1 } }', [(2, 3, 2)], [(12,)]),
        ('"Reshape" reshape_param { shape { dim: 1 dim: 1 } axis: -1 num_axes: 0 }', [(2, 3)], [(2, 3, 1, 1)]),
        ('"Reshape" reshape_param { shape { dim: 1 } axis: 0 num_axes: 0 }', [(2, 3)], [(1, 2, 3)]),
        ('"Reshape" reshape_param { shape { dim: 3 dim: -1 } axis: 1 num_axes: 1 }', [(2, 6, 2)], [(2, 3, 2, 2)]),
        ('"Reshape" reshape_param { axis: 1 num_axes: 1 }', [(2, 1, 2)], [(2, 2)]),
        ('"Reshape" reshape_param { shape { } }', [(1, 1)], [()]),
        ('"Tile" tile_param { axis: -2 tiles: 2 }', [(2, 3)], [(4, 3)]),
        ('"Crop" crop_param { offset: 1 }', [(2, 2, 3, 4), (9, 9, 2, 2)], [(2, 2, 2, 2)]),
        ('"Crop" crop_param { axis: 0 offset: 0 offset: 1 offset: 2 }', [(2, 3, 4), (2, 2, 2)], [(2, 2, 2)]),
        ('"Crop" crop_param { axis: -1 }', [(2, 3, 4), (1, 1, 2)], [(2, 3, 2)]),
    ],
)
def test_shapes_and_gradients(prototxt, shapes, tops):
    layer = gl.build(f"type: {prototxt}", *shapes)
    assert gl.meta_shapes(layer, shapes) == tops
    bottoms = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    if layer.type_name == "Crop":
        bottoms[1] = torch.zeros(shapes[1], dtype=torch.long)  # its values count for nothing
    gl.check_gradients(layer, *bottoms)


def test_tile_repeats_blocks():
    y = gl.build('type: "Tile" tile_param { tiles: 2 }', (1, 2))(torch.tensor([[1.0, 2]]))
    assert y.tolist() == [[1, 2, 1, 2]]


def test_they_follow_another_shape():
    """After a reshape of the net, sizes that were not given are those of the new bottom."""
    layer = gl.build('type: "Slice" top: "a" top: "b" slice_param { slice_point: 1 }', (2, 3))
    assert [tuple(t.shape) for t in layer(torch.ones(4, 9))] == [(4, 1), (4, 8)]
    assert gl.build('type: "Flatten"', (2, 3, 4))(torch.ones(1, 5, 6)).shape == (1, 30)
    assert gl.build('type: "Reshape" reshape_param { shape { dim: 0 dim: -1 } }', (2, 3, 4))(
        torch.ones(1, 5, 6)
    ).shape == (1, 30)


@pytest.mark.parametrize(
    "prototxt, shapes, says",
    [
        ('"Concat" concat_param { axis: 1 concat_dim: 1 }', [(2, 3)], "both axis and concat_dim"),
        ('"Concat" concat_param { axis: 2 }', [(2, 3)], "axis: 2 is out of range"),
        ('"Concat" concat_param { concat_dim: 2 }', [(2, 3)], "concat_dim: 2 is out of range"),
        ('"Concat"', [(2, 3), (3, 3)], r"bottom 1 has shape 3×3, bottom 0 2×3: only axis 1 may differ"),
        ('"Concat"', [(2, 3), (2, 3, 1)], r"bottom 1 has shape 2×3×1"),
        ('"Slice" top: "a" top: "b"', [(2, 3)], "cannot cut the 3 of axis 1 into 2 equal parts"),
        (
            '"Slice" top: "a" top: "b" slice_param { slice_point: 1 slice_point: 2 }',
            [(2, 3)],
            "2 slice_point and 2 tops",
        ),
        (
            '"Slice" top: "a" top: "b" slice_param { slice_point: 3 }',
            [(2, 3)],
            r"slice_point \[3\] must increase, and be 1 … 2 on",
        ),
        ('"Slice" top: "a" top: "b" slice_param { slice_point: 0 }', [(2, 3)], r"slice_point \[0\]"),
        ('"Slice" top: "a" top: "b" top: "c" slice_param { slice_point: 2 slice_point: 1 }', [(2, 3)], r"\[2, 1\]"),
        ('"Slice" slice_param { axis: 0 slice_dim: 0 }', [(2, 3)], "both axis and slice_dim"),
        ('"Flatten" flatten_param { axis: 2 end_axis: 0 }', [(2, 3, 4)], "axis 2 comes after end_axis 0"),
        ('"Flatten" flatten_param { end_axis: 3 }', [(2, 3, 4)], "end_axis: 3 is out of range"),
        ('"Reshape" reshape_param { shape { dim: -1 dim: -1 } }', [(2, 3)], r"\[-1, -1\]: a dim is"),
        ('"Reshape" reshape_param { shape { dim: -2 } }', [(2, 3)], r"\[-2\]: a dim is"),
        (
            '"Reshape" reshape_param { shape { dim: 4 dim: -1 } }',
            [(2, 3)],
            r"shape 2×3 has 6 elements; it cannot become a blob of 4×-1",
        ),
        ('"Reshape" reshape_param { shape { dim: 2 dim: 2 } }', [(2, 3)], r"it cannot become a blob of 2×2"),
        (
            '"Reshape" reshape_param { shape { dim: 2 dim: 3 dim: 0 } }',
            [(2, 3)],
            r"2×3 has no axis to copy for dim 2",
        ),
        ('"Reshape" reshape_param { axis: 3 }', [(2, 3)], "axis: 3 must be -3 to 2 for 2 axes"),
        ('"Reshape" reshape_param { axis: -4 }', [(2, 3)], "axis: -4 must be"),
        ('"Reshape" reshape_param { axis: 1 num_axes: 2 }', [(2, 3)], "axis: 1 and num_axes: 2 reach past its 2 axes"),
        ('"Reshape" reshape_param { num_axes: -2 }', [(2, 3)], "num_axes: -2 must be at least -1"),
        ('"Tile"', [(2, 3)], "tiles: 0 must be at least 1"),
        ('"Tile" tile_param { tiles: 2 axis: 2 }', [(2, 3)], "axis: 2 is out of range"),
        ('"Crop"', [(2, 3)], "has 1 bottom blob, but takes exactly 2"),
        ('"Crop" crop_param { axis: 4 }', [(1, 1, 4, 4)] * 2, "axis: 4 is out of range"),
        (
            '"Crop" crop_param { axis: 1 offset: 1 offset: 1 }',
            [(1, 1, 4, 4)] * 2,
            "offset is given 2 times; from axis 1 on it is 1 or 3 times",
        ),
        ('"Crop" crop_param { axis: 1 }', [(1, 1, 4, 4), (1, 1, 4)], "same number of axes"),
    ],
)
def test_bad_options(prototxt, shapes, says):
    with pytest.raises(LayerError, match=says):
        gl.build(f"type: {prototxt}", *shapes)


@pytest.mark.parametrize("offset, size", [(3, 2), (0, 5)])
def test_a_crop_must_lie_inside(offset, size):
    layer = gl.build(f'type: "Crop" crop_param {{ offset: {offset} }}', (1, 1, 4, 4), (1, 1, size, size))
    with pytest.raises(LayerError, match=f"cannot crop {size} from offset {offset} out of the 4 of axis 2"):
        gl.meta_shapes(layer, [(1, 1, 4, 4), (1, 1, size, size)])
