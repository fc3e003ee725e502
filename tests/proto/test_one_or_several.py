"""resize_param: one message in SSD's Caffe, several in MobileNet-YOLO's; scripts of both work."""

import pytest

from pycaffe_compat.proto import caffe_pb2, format_text, parse_text


def transform(text: str = ""):
    return parse_text(f"transform_param {{ {text} }}", caffe_pb2.LayerParameter).transform_param


def test_a_script_of_ssd_writes_one_message() -> None:
    param = transform()
    assert not param.HasField("resize_param")
    assert param.resize_param.height == 0
    assert list(param.resize_param.interp_mode) == []
    assert not param.HasField("resize_param")  # reading made none
    param.resize_param.interp_mode.append(caffe_pb2.ResizeParameter.AREA)
    param.resize_param.height = 300
    assert param.HasField("resize_param")
    assert param.resize_param.HasField("height")
    assert not param.resize_param.HasField("width")
    assert str(param.resize_param) == "height: 300\ninterp_mode: AREA\n"
    assert format_text(param) == "resize_param {\n  height: 300\n  interp_mode: AREA\n}\n"
    param.ClearField("resize_param")
    assert not param.HasField("resize_param")


def test_one_message_is_copied_merged_and_compared() -> None:
    param, other = transform(), transform("resize_param { height: 5 }")
    one = caffe_pb2.ResizeParameter(height=3, width=4)
    param.resize_param.CopyFrom(one)
    assert param.resize_param == one
    param.resize_param.MergeFrom(caffe_pb2.ResizeParameter(width=9))
    assert (param.resize_param.height, param.resize_param.width) == (3, 9)
    param.resize_param.CopyFrom(param.resize_param)
    assert param.resize_param.height == 3
    param.resize_param.CopyFrom(other.resize_param)
    assert param == other
    param.resize_param.Clear()
    param.resize_param.SetInParent()
    assert format_text(param).split() == ["resize_param", "{", "}"]
    with pytest.raises(AttributeError):
        param.resize_param.hight = 3


def test_a_script_of_yolo_writes_several() -> None:
    param = transform("resize_param { height: 1 } resize_param { height: 2 }")
    param.resize_param.add(height=3).width = 7
    assert [each.height for each in param.resize_param] == [1, 2, 3]
    assert param.resize_param[2].width == 7
    del param.resize_param[0]
    assert len(param.resize_param) == 2
    assert param.resize_param.height == 2
    again = transform(format_text(param))
    assert again == param
    assert again.resize_param == param.resize_param
