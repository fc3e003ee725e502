"""Fields of one name in several forks: what they share, what each fork keeps, and what cannot be one field."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, text_format

from pycaffe_compat.proto import caffe_pb2, parse_text
from pycaffe_compat.proto.numbers import classes, recast
from pycaffe_compat.proto.schema import known_forks, merged

Field = descriptor_pb2.FieldDescriptorProto


def _is_integer(field: Any) -> bool:
    return field.type in (Field.TYPE_INT32, Field.TYPE_INT64, Field.TYPE_UINT32, Field.TYPE_UINT64)


@pytest.mark.parametrize(("name", "addition"), list(known_forks()), ids=[name for name, _ in known_forks()])
def test_every_field_of_a_fork_is_the_same_here_or_its_own_is_kept(name: str, addition: Any) -> None:
    kept = caffe_pb2.ADDITIONS.otherwise.get(name, {})
    for message in addition.message_type:
        here = getattr(caffe_pb2, message.name).DESCRIPTOR.fields_by_name
        there = classes(name)[message.name].DESCRIPTOR.fields_by_name
        for own in message.field:
            one, theirs = here[own.name], there[own.name]
            assert one.cpp_type == theirs.cpp_type or _is_integer(own), f"{message.name}.{own.name}"
            repeated = own.label == Field.LABEL_REPEATED
            assert hasattr(one.default_value, "append") or not repeated, f"{message.name}.{own.name} takes one value"
            default = theirs.default_value
            if own.type == Field.TYPE_ENUM and not repeated:
                default = one.enum_type.values_by_name[theirs.enum_type.values_by_number[default].name].number
            same = default == one.default_value and repeated == isinstance(one.default_value, list)
            assert same or kept[message.name, own.name] == own, f"{message.name}.{own.name}"


def test_what_one_fork_repeats_is_read_and_written_as_many_times() -> None:
    resize = "resize_param { height: %d width: 3 } "
    text = f'layer {{ name: "d" type: "Data" transform_param {{ {resize % 4} {resize % 5} }} }}'
    net = parse_text(text, caffe_pb2.NetParameter)
    assert [each.height for each in net.layer[0].transform_param.resize_param] == [4, 5]
    numbered = classes("yolo")["NetParameter"]()
    recast(net, numbered)
    assert len(numbered.layer[0].transform_param.resize_param) == 2
    with pytest.raises(ValueError, match=r"TransformationParameter.resize_param takes one value, not 2"):
        recast(net, classes("ssd")["NetParameter"]())


def _file(fields: str) -> Any:
    text = f'name: "f" package: "f" message_type {{ name: "GateParameter" {fields} }}'
    return text_format.Parse(text, descriptor_pb2.FileDescriptorProto())


ONE = 'field { name: "a" number: 1 label: LABEL_OPTIONAL type: TYPE_INT32 default_value: "2" }'


@pytest.mark.parametrize("other", ["type: TYPE_STRING", "type: TYPE_FLOAT", 'type: TYPE_MESSAGE type_name: ".f.Other"'])
def test_two_kinds_of_one_name_are_no_schema(other: str) -> None:
    second = f'field {{ name: "a" number: 1 label: LABEL_OPTIONAL {other} }}'
    with pytest.raises(ValueError, match=r"GateParameter.a of tsn has a different kind"):
        merged([("ssd", _file(ONE)), ("tsn", _file(second))])


def test_what_bvlcs_caffe_has_once_no_known_fork_may_repeat() -> None:
    text = 'name: "ReLUParameter" field { name: "negative_slope" number: 1 label: LABEL_REPEATED type: TYPE_FLOAT }'
    file = text_format.Parse(f"message_type {{ {text} }}", descriptor_pb2.FileDescriptorProto())
    with pytest.raises(ValueError, match=r"ReLUParameter.negative_slope of ssd is repeated"):
        merged([("ssd", file)])


@pytest.mark.parametrize("reverse", [False, True])
def test_the_merged_field_takes_several_values_whichever_fork_comes_first(reverse: bool) -> None:
    files = [("ssd", _file(ONE)), ("tsn", _file(ONE.replace("OPTIONAL", "REPEATED").replace('default_value: "2"', "")))]
    file, additions = merged(files[::-1] if reverse else files)
    (field,) = next(message for message in file.message_type if message.name == "GateParameter").field
    assert field.label == Field.LABEL_REPEATED and not field.default_value
    assert {fork: own["GateParameter", "a"].default_value for fork, own in additions.otherwise.items()} == {"ssd": "2"}
    assert additions.repeating("GateParameter", "a") == ("tsn",)
