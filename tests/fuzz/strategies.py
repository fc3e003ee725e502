"""What the fuzz tests feed: files with damage, and nets that no one would write.

Everything is drawn evenly from a ``random.Random``; hypothesis draws its seed. A few seconds in the test suite;
``FUZZ_EXAMPLES=100000 pytest tests/fuzz -k …`` is a long run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pycaffe_compat.layers import REGISTRY
from pycaffe_compat.proto import caffe_pb2

FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    print_blob=True,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
)
INTEGERS = (0, 1, 2, 3, 4, 7, 99, -1, -2, 2**31 - 1, -(2**31), 2**32 - 1, 10**12, 2**63 - 1, -(2**63))
FLOATS = (0.0, 1.0, 0.5, -1.0, 2.0, 1e-30, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))
WORDS = (
    "",
    "a",
    "constant",
    "gaussian",
    "xavier",
    "msra",
    "bilinear",
    "uniform",
    "positive_unitball",
    "data",
    "\x00",
    "../x",
)
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
TYPES = sorted(REGISTRY)


def randomly(make: Callable[..., Any], *args: Any) -> Any:
    """The strategy of what ``make(random, *args)`` returns."""
    return st.randoms(use_true_random=True).map(lambda random: make(random, *args))


class Bytes(bytes):
    """Bytes of which a report shows the number only; hypothesis prints what draws them again."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


def damaged(random: Random, samples: Sequence[bytes]) -> Bytes:
    """One of ``samples`` with up to six pieces flipped, cut out, doubled, or overwritten; or random bytes."""
    data = bytearray(random.choice(samples))
    if random.random() < 0.05:
        return Bytes(random.randbytes(random.randrange(60)))
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(data) + 1)
        if random.random() < 0.5:
            at = min(at, random.randrange(64))  # where headers are
        length = random.randint(1, 24)
        kind = random.choice(("flip", "flip", "cut", "end", "double", "insert", "number"))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif kind == "cut":
            del data[at : at + length]
        elif kind == "end" and random.random() < 0.3:
            del data[at:]
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "insert":
            data[at:at] = random.randbytes(random.randrange(12))
        elif kind == "number":
            huge = random.choice(
                (b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", bytes(5), b"\x80\x94\xeb\xdc\x03")
            )
            data[at : at + len(huge)] = huge
    return Bytes(data)


def shuffled(random: Random, texts: Sequence[str]) -> str:
    """One of ``texts`` with words taken out, doubled, exchanged, or replaced by what does not fit; or nonsense."""
    if random.random() < 0.05:
        return "".join(chr(random.randrange(32, 1000)) for _ in range(random.randrange(60)))
    words = random.choice(texts).replace("{", " { ").replace("}", " } ").replace(":", " : ").split(" ")
    for _ in range(random.randint(1, 5)):
        at = random.randrange(len(words))
        kind = random.choice(("out", "double", "exchange", "number", "sign", "text"))
        if kind == "out" and len(words) > 1:
            del words[at]
        elif kind == "double":
            words.insert(at, words[at])
        elif kind == "exchange":
            words[at] = random.choice(words)
        elif kind == "number":
            words[at] = str(random.choice((*INTEGERS, *FLOATS, "0x7fffffffff", "1e999", "-0", "08")))
        elif kind == "sign":
            words[at] = random.choice(("{", "}", "<", ">", "[", "]", ":", '"', "'", "#", ",", ";", "\\", "\\x", "\x00"))
        else:
            words[at] = "".join(chr(random.randrange(1, 0x3000)) for _ in range(random.randrange(6)))
    return " ".join(words)


# ---- messages


def fill(random: Random, message: Any, most: int = 4) -> None:
    """Set some fields of a message to values as absurd as their types allow."""
    fields = list(message.DESCRIPTOR.fields)
    for field in random.sample(fields, random.randint(0, min(most, len(fields)))):
        set_field(random, message, field)


def set_field(random: Random, message: Any, field: Any) -> None:
    """Set one field of a message."""
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    for _ in range(random.randint(1, 3) if repeated else 1):
        target = getattr(message, field.name)
        if field.message_type is not None:
            part = target.add() if repeated else target
            part.SetInParent()
            fill(random, part)
        elif repeated:
            target.append(_value(random, field))
        else:
            setattr(message, field.name, _value(random, field))


def _value(random: Random, field: Any) -> Any:
    kind = field.cpp_type
    if kind in _RANGES:
        least, most = _RANGES[kind]
        return random.choice([n for n in INTEGERS if least <= n <= most])
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return random.choice(FLOATS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return random.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return random.choice([v.number for v in field.enum_type.values])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return random.randbytes(random.randrange(4))
    return random.choice(WORDS)


# ---- nets

IMAGES = ((2, 3, 8, 8), (2, 4, 5, 7), (1, 2, 6, 6), (2, 3, 9, 4))
OTHERS = ((3, 6), (2, 3, 4), (5, 2, 4), (4,), (), (2, 2, 3, 4, 5))
GENERIC = ("loss_weight", "propagate_down", "param", "include", "phase", "transform_param", "loss_param")


def net(random: Random) -> Any:
    """A valid message of a net: a few inputs and one to three layers of any type, their options plausible or not."""
    made = caffe_pb2.NetParameter(force_backward=random.random() < 0.5)
    likely = random.random() < 0.9
    main = random.choice(IMAGES if random.random() < 0.6 else OTHERS)
    odd = (0, 1, 2, 3, 8) if likely else (0, 1, 2, 10**6, 10**12, 2**31, -1)
    shapes = [main, main, main[:1], main[:2], (*main[:1], *main[2:]), random.choices(odd, k=random.randrange(5))]
    for i, shape in enumerate(shapes):
        made.layer.add(name=f"in{i}", type="Input", top=[f"in{i}"]).input_param.shape.add(dim=shape)
    inputs = [f"in{i}" for i in range(len(shapes))]
    blobs = list(inputs)
    for i in range(random.randint(1, 3)):
        layer = made.layer.add(name=f"l{i}", type=random.choice(TYPES))
        cls = REGISTRY[layer.type]
        if likely and random.random() < 0.7 and layer.type in ("LSTM", "RNN"):
            layer.bottom.extend(("in0", "in3"))
        elif likely and random.random() < 0.7 and (cls.loss or layer.type == "Accuracy"):
            layer.bottom.extend(("in0", random.choice(("in1", "in2", "in4"))))
        else:
            layer.bottom.extend(
                random.choices([blobs[-1], *inputs[:2], *inputs], k=_number(random, cls.bottoms, likely))
            )
        tops = [f"t{i}_{k}" for k in range(_number(random, cls.tops, likely))]
        if tops and layer.bottom and random.random() < 0.2:
            tops[0] = layer.bottom[0]
        layer.top.extend(tops)
        blobs.extend(tops)
        options = _options(layer.type)
        if options is not None:
            _plausible(random, getattr(layer, options.name))
            if random.random() < 0.6:
                fill(random, getattr(layer, options.name), most=2)
        if random.random() < 0.2:
            part = caffe_pb2.LayerParameter()
            for name in random.sample(GENERIC, random.randint(1, 2)):
                set_field(random, part, part.DESCRIPTOR.fields_by_name[name])
            layer.MergeFrom(part)
    return made


def _number(random: Random, allowed: tuple[int, int | None], likely: bool) -> int:
    least, most = allowed
    if not likely:
        return random.randint(0, 3)
    return random.choice((least, least, least + 1 if most is None else most, least + 2 if most is None else most))


def _options(type_name: str) -> Any:
    """The field of ``LayerParameter`` with the options of a type, or None."""
    shared = {"Deconvolution": "Convolution", "Depooling": "Pooling", "LSTM": "Recurrent", "RNN": "Recurrent"}
    name = f"{shared.get(type_name, type_name)}Parameter"
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    return next((f for f in fields if f.message_type is not None and f.message_type.name == name), None)


def _plausible(random: Random, options: Any) -> None:
    """Give the options that a layer cannot do without."""
    names = options.DESCRIPTOR.fields_by_name
    few = random.choice((1, 2, 3))
    for name, value in (
        ("num_output", 2 * few),
        ("input_dim", 5),
        ("pyramid_height", few),
        ("tiles", few),
        ("batch_size", 2),
        ("file_name", "out.h5"),
        ("min", -1),
        ("max", 1),
    ):
        if name in names:
            setattr(options, name, value)
    if "kernel_size" in names:
        if hasattr(options.kernel_size, "append"):
            options.kernel_size.append(few)
        else:
            options.kernel_size = few
    if options.DESCRIPTOR.name == "RecurrentParameter":
        options.weight_filler.type = "gaussian"
    if options.DESCRIPTOR.name == "DummyDataParameter":
        options.shape.add(dim=[2, 3])
    if options.DESCRIPTOR.name == "MemoryDataParameter":
        options.channels = options.height = options.width = 2
    if options.DESCRIPTOR.name == "ParameterParameter":
        options.shape.dim.extend((2, 3))
