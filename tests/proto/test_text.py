"""Prototxt: what is accepted, and what errors say."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycaffe_compat.errors import CaffeError, ParseError
from pycaffe_compat.proto import caffe_pb2, format_text, parse_text
from pycaffe_compat.proto.outline import Source, read_outline

NET = caffe_pb2.NetParameter


def test_lax_syntax():
    text = """
    name: 'one' "two"  # strings side by side
    layer: { name: "a", top: "x"; type: "Input" }
    layer < name: "b" loss_weight: 1. loss_weight: .5 loss_weight: - 2 loss_weight: 1.5f loss_weight: 1e3 >
    state { level: 0x10 stage: ["p", "q"] }
    input_dim: 010 force_backward: 1
    """
    net = parse_text(text, NET)
    assert net.name == "onetwo"
    assert (net.layer[0].name, net.layer[0].top, net.layer[0].type) == ("a", ["x"], "Input")
    assert net.layer[1].loss_weight == [1, 0.5, -2, 1.5, 1000]
    assert (net.state.level, net.state.stage, net.input_dim, net.force_backward) == (16, ["p", "q"], [8], True)


@pytest.mark.parametrize(
    ("text", "name"),
    [(r"'\?'", "?"), (r'"a\??" "\\?b"', "a??\\?b"), (r'"\\\?"', "\\?"), (r'"\a\b\f\v\r\x41\101\""', '\a\b\f\v\rAA"')],
)
def test_escapes(text, name):
    net = parse_text(f"name: {text} force_backward: true", caffe_pb2.NetParameter)
    assert net.name == name and net.force_backward


def test_comments_hold_any_bytes():
    net = parse_text(b'\xef\xbb\xbfname: "x" # caf\xe9 { " \xff\nlayer { name: "#{" } # }', NET)
    assert net == NET(name="x", layer=[{"name": "#{"}])


def test_an_instance_is_filled_and_unchanged_if_parsing_fails():
    net = NET(name="before")
    assert parse_text('layer { name: "a" }', net) is net
    assert net == NET(name="before", layer=[{"name": "a"}])
    with pytest.raises(ParseError):
        parse_text('layer { name: "b" } oops: 1', net)
    assert len(net.layer) == 1


def test_format_is_protobufs_and_comes_back():
    net = NET(name="x", layer=[{"name": "a", "pooling_param": {"pool": 32}, "loss_weight": [0.1]}])
    assert format_text(net).startswith('name: "x"\nlayer {\n  name: "a"\n')
    assert "pool: SWITCH" in format_text(net) and "loss_weight: 0.1\n" in format_text(net)
    assert parse_text(format_text(net), NET) == net


CONV = 'name: "n"\nlayer {\n  name: "c1"\n  convolution_param {\n    kernal_size: 3\n  }\n}\n'

ERRORS = {
    "misspelt field": (CONV, "5:5", "kernal_size", "kernel_size", 'layer "c1"', "convolution_param"),
    "field of an inner message": ('layer { name: "a" num_output: 3 }', "1:19", "convolution_param, inner"),
    "field of an outer message": ("layer {\n convolution_param {\n pooling_param {} } }", "3:2", "brace missing"),
    "field of another file": ("base_lr: 0.1", "1:1", "base_lr", "SolverParameter"),
    "field of another fork": ("layer { weave_param {} }", "1:9", "weave_param", "fork"),
    "misspelt enum value": ("layer { pooling_param { pool: MAXX } }", "1:31", "MAXX", "MAX, AVE, STOCHASTIC, FIX"),
    "enum value in another case": ("layer { include { phase: Train } }", "1:26", "Train", "did you mean TRAIN"),
    "quoted enum value": ('layer { pooling_param { pool: "MAX" } }', "1:31", "PoolMethod", "without quotes", '"MAX"'),
    "field of layers in layer": ("layer { blobs_lr: 1 }", "1:9", "blobs_lr", 'older "layers"', "param { lr_mult: … }"),
    "field of layer in layers": ("layers { param { lr_mult: 1 } }", "1:16", "blobs_lr", 'where a "layer" has param'),
    "decimal comma": ("layer { param { lr_mult: 0,1 } }", "1:28", "name of a field", "got 1", "a point"),
    "comment of C": ("layer {} // the end", "1:10", "got //", "comments begin with #"),
    "enum number": ("layer { pooling_param { pool: 17 } }", "1:31", "17", "SOFT_SWITCH"),
    "bare type in layer": ('layer {\n name: "a" type: CONVOLUTION }', "2:18", "quoted", 'type: "Convolution"'),
    "quoted type in layers": ('layers {\n type: "Convolution" }', "2:8", "bare", "CONVOLUTION"),
    "duplicate": ('layer { name: "a" name: "b" }', "1:25", "name is given twice"),
    "duplicate message": ("layer { pooling_param {}\npooling_param {} }", "2:15", "pooling_param is given twice"),
    "unclosed": ('layer {\n  name: "a"\n  pooling_param {\n', "3:17", "ends inside", 'layer "a", pooling_param'),
    "closed twice": ('layer { name: "a" }\n}\n', "2:1", "closes nothing"),
    "text for a number": ('state { level: "3" }', "1:16", "level takes an integer", 'got "3"'),
    "negative": ("layer { convolution_param { num_output: -3 } }", "1:41", "num_output", "-3", "from 0"),
    "shell's placeholder": ("input_dim: ${N} input_dim: 3", "1:12", "${N} is a template's placeholder", "fill in"),
    "Jinja's placeholder": (
        "input_dim: {{ n }} input_dim: 3",
        "1:12",
        "{{ n }} is a template's placeholder",
        "fill in",
    ),
    "Jinja's statement": ("{% include 'a' %}", "1:1", "{% include 'a' %} is a template's placeholder", "fill in"),
    "fraction": ("layer { convolution_param { pad: 0.5 } }", "1:34", "pad takes an integer", "0.5"),
    "too large": (
        "layer { convolution_param { pad: [1, 99999999999] } }",
        "1:38",
        "pad takes an integer",
        "99999999999",
    ),
    "no boolean": ("force_backward: maybe", "1:17", "true or false", "maybe"),
    "no message": ("layer { convolution_param: 3 }", "1:28", "convolution_param { … }"),
    "no quotes": ("layer { name: a }", "1:15", "quoted string", "got a"),
    "no closing quote": ('layer { name: "abc }\n}', "1:15", "quote is missing"),
    "no colon": ('name "x"', "1:6", "colon"),
    "commented value": ("layer { pooling_param { stride: # 2\n pad: 3 } }", "2:2", "stride has no value", "pad:"),
    "string for a field": ('layer { "name": "a" }', "1:9", "name of a field", 'got "name"'),
    "field of an outer message and a brace missing": (
        'layer {\n  name: "a"\n  relu_param { negative_slope: 0.1\n}\nlayer { name: "b" }\n',
        "5:1",
        'layer "a" is still open where layer begins',
        "brace opened at dir/net.prototxt:1:7 is never closed",
        "the } at dir/net.prototxt:4:1 closes relu_param, opened at dir/net.prototxt:3:14",
    ),
    "closed too early": (
        'layer { relu_param {} }\n bottom: "x" }',
        "2:2",
        "bottom is a field of layer",
        "brace at dir/net.prototxt:1:23 one too many",
    ),
    "type of another fork": (
        "layers { type: WARPING }",
        "1:16",
        "LayerType has no value WARPING; it may be from another",
    ),
    "no value": ("layer { name:", "1:14", "ends inside layer"),
    "missing required": ("layer { clip_param { min: 0 } }", "layer[0].clip_param.max"),
    "not UTF-8": (b'name: "x"\ninput: "caf\xe9"', "2:12", "0xe9", "UTF-8"),
    "UTF-16": ('name: "x"'.encode("utf-16"), "UTF-16", "save it as UTF-8"),
    "binary": (NET(name="x", input_dim=[1, 2]).SerializeToString(), "binary", "NetParameter"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_name_the_place_and_the_fault(case):
    text, *expected = ERRORS[case]
    with pytest.raises(ParseError) as caught:
        parse_text(text, NET, "dir/net.prototxt")
    message = str(caught.value)
    assert message.startswith("dir/net.prototxt:")
    for words in expected:
        assert words in message, message


SIGNS = "layer { loss_weight: -\n1 loss_weight: - # half\n .5 loss_weight: - inf loss_weight: - # a\n# b\n 2 }"
COMMENTED = """
layer # a layer {
{ name # its name
  : # follows
  "a" # and goes on "
  'b'
  loss_weight # [
  : # 1
  [ # 2
  3 # 4
  , 5 ]
  pooling_param: # options
  { pool: # MAX
    AVE } }
"""


@pytest.mark.parametrize(
    "written", ["device_id: [2, 0,\n 1]", "device_id: 2 device_id: 0\ndevice_id: 1", "device_id:[2,0,1]"]
)
def test_a_list_of_gpus_stands_for_its_first(written: str, caplog: pytest.LogCaptureFixture) -> None:
    """SolverParameter.device_id is repeated in yjxiong's Caffe, whose processes take one each (caffe.cpp)."""
    text = f"base_lr: 0.1  # device_id: 7\n{written}\nmax_iter: 5"
    solver = parse_text(text, caffe_pb2.SolverParameter, "s.prototxt")
    assert (solver.device_id, solver.max_iter) == (2, 5)
    assert "2, 0, 1" in caplog.text and "--gpu 2,0,1" in caplog.text
    with pytest.raises(ParseError, match=rf"s.prototxt:{text.count(chr(10)) + 1}:1.*max_itr"):
        parse_text(text.replace("max_iter", "max_itr"), caffe_pb2.SolverParameter, "s.prototxt")


def test_comments_may_stand_between_any_two_tokens():
    (layer,) = parse_text(COMMENTED, NET).layer
    assert (layer.name, layer.loss_weight, layer.pooling_param.pool) == ("ab", [3, 5], 1)
    assert parse_text(SIGNS, NET).layer[0].loss_weight == [-1, -0.5, float("-inf"), -2]


EVERY_KIND = """name: "n" # first
layer {
  name: 'data'
  type: "Input" top: "data" "x"
  input_param {
    shape { dim: 1 dim: [ 3, 4 ] }
  } # shapes
  include < phase: TRAIN stage: "a" >
}
layers { name: "old" type: CONVOLUTION blobs_lr: 1. blobs_lr: -2e3; weight_decay: 1, }
layer {
  name: "conv1" # a comment {
  param { lr_mult: 1 }
  param { lr_mult: -inf }
  convolution_param {
    num_output: 0x3 bias_term: false
    weight_filler { type: "xavier" }
    bias_filler { type: "constant" value: - 1 }
  }
  loss_weight: [ 1, # one
                 2 ]
}
layer {
  python_param { module: "m" layer: "L" param_str: "{}" }
  pooling_param { pool: MAX }
}
state: { phase: TEST stage: [ "a", "b" ] }
"""


@pytest.mark.parametrize("tail", ["", "\n", " # the end", "\n# layer {\n"])
def test_a_file_that_ends_inside_a_block_says_which_brace_is_never_closed(tail):
    parse_text(EVERY_KIND, NET)
    for token in read_outline(EVERY_KIND).tokens:
        for end in {token.start + len(token.text), token.start + (len(token.text) + 1) // 2}:
            text = EVERY_KIND[:end] + tail
            unclosed = read_outline(text).open
            if not unclosed:
                continue
            with pytest.raises(ParseError, match="the file ends inside ") as caught:
                parse_text(text, NET, "f")
            assert f"opened at {Source(text, 'f').where(unclosed[-1].start)} is never closed" in str(caught.value)


def test_a_brace_missing_in_the_middle_is_said_to_be_never_closed():
    outline = read_outline(EVERY_KIND)
    source = Source(EVERY_KIND, "f")
    for block in outline.blocks:
        text = EVERY_KIND[: block.end] + EVERY_KIND[block.end + 1 :]
        with pytest.raises(ParseError, match="is never closed") as caught:
            parse_text(text, NET, "f")
        assert f"opened at {source.where(block.start)}" in str(caught.value), text


def test_a_bracket_of_another_kind_is_named():
    with pytest.raises(ParseError) as caught:
        parse_text("layer {\n  relu_param < negative_slope: 1 }\n}", NET, "f")
    assert 'f:2:34: "}" cannot close relu_param, which "<" opened: the bracket opened at f:2:14 is never closed' in str(
        caught.value
    )


WORDS = r"layer layers { } < > [ ] : ' # \ name type - 1. 0x , pooling_param pool MAX 12 include phase TRAIN [a.b/c.D]"
PIECES = [*WORDS.split(" "), '"', '"a"', "\n", "\x00", "\xe9", "\ud800"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map(" ".join) | st.text(max_size=60) | st.binary(max_size=60))
def test_any_text_is_a_message_or_a_caffe_error(text):
    for cls in (NET, caffe_pb2.SolverParameter):
        with contextlib.suppress(CaffeError):
            assert isinstance(parse_text(text, cls), cls)


def test_all_unknown_names_are_listed_at_once():
    text = """name: "n" speed: FAST
layer { name: "a" type: "X" rotate_param { order: 0 order: { deep: 1 } } pooling_param { pool: ROI } }
layers { type: XN xn_param { a: 1 } include { phase: TEST } }
layers { type: XN xn_param < a: 1 > } layers { type: RELU top: "BN" }
state { phase: TRAIN stage: ["p", "q"] levels: [1, 2] } layer [{ name: "b" axis: 1 }, { axis: 2 }]
"""
    with pytest.raises(ParseError) as caught:
        parse_text(text, NET, "net.prototxt")
    assert str(caught.value).startswith("net.prototxt:1:11: NetParameter has no field speed")
    assert str(caught.value).endswith(
        ". Also unknown in this file: rotate_param of LayerParameter (2:29), ROI of PoolMethod (2:96), "
        "XN of LayerType (3:16, 2 times), xn_param of V1LayerParameter (3:19, 2 times), levels of NetState (5:40), "
        "axis of LayerParameter (5:76, 2 times)"
    )
    with pytest.raises(ParseError) as caught:
        parse_text("speed: 1 " + " ".join(f"f{i}: 1" for i in range(15)), NET)
    assert str(caught.value).endswith("f11 of NetParameter (1:77) and 3 more")
    for alone in ("speed: 1", "speed: 1 speed: 2", "layer { speed: 1 } layer {"):
        with pytest.raises(ParseError) as caught:
            parse_text(alone, NET)
        assert "Also unknown" not in str(caught.value)


def test_a_word_without_end_is_cut_short_in_its_error() -> None:
    with pytest.raises(ParseError, match=r"NetParameter has no field x{80}…; ") as caught:
        parse_text("x" * 1_000_000, caffe_pb2.NetParameter)
    assert len(str(caught.value)) < 1000
