"""Random options, shapes and numbers of blobs: a layer either says what is wrong, or it runs, forward and backward."""

import random

import pytest
import torch

from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import REGISTRY, Layer
from pycaffe_compat.layers.catalog import schema
from pycaffe_compat.proto import caffe_pb2
from pycaffe_compat.proto.additions import value_forks

FAMILIES = ("neuron", "convolution", "linear", "normalization", "common", "reshaping")
TYPES = sorted(name for name, cls in REGISTRY.items() if cls.__module__.rpartition(".")[2] in FAMILIES)
ODD = {
    "bool": [False, True],
    "float": [0, 1, -1, 0.5, 2, 1e30, -1e30, float("nan"), float("inf"), 1e-30],
    "uint32": [0, 1, 1, 2, 2, 3, 5, 2**20, 2**31, 2**32 - 1],
    "int32": [0, 1, 1, 2, -1, -2, 3, 5, 2**31 - 1, -(2**31)],
    "int64": [0, 1, 2, 3, -1, -2, 2**30],
    "string": ["constant", "gaussian", "odd"],
}
SCHEMA = schema()


def values_of_bvlc(enum):
    return [value.number for value in enum.values if not value_forks(value)]


def randomise(message, rng, forks):
    """Set some fields of ``message``, of BVLC's Caffe or of ``forks``, to odd values."""
    fields = [field for field in SCHEMA[message.DESCRIPTOR.name] if not field.forks or forks & set(field.forks)]
    for field in fields:
        if rng.random() > max(0.2, 1 / len(fields)) and field.name not in ("num_output", "kernel_size"):
            continue
        described = message.DESCRIPTOR.fields_by_name[field.name]
        if described.message_type:
            if field.label != "repeated":
                getattr(message, field.name).SetInParent()
                randomise(getattr(message, field.name), rng, forks)
            continue
        values = ODD[field.type] if described.enum_type is None else values_of_bvlc(described.enum_type)
        if field.label == "repeated":
            getattr(message, field.name).extend(rng.choices(values, k=rng.randint(1, 3)))
        else:
            setattr(message, field.name, rng.choice(values))


def random_layer(type_name, rng) -> tuple[Layer, list[tuple[int, ...]]]:
    cls = REGISTRY[type_name]
    param = caffe_pb2.LayerParameter(name="odd", type=type_name)
    for option in cls.option_fields():
        randomise(getattr(param, option), rng, {"SWWAE", *cls.forks})
    shape = tuple(rng.choices([0, 1, 2, 3, 4, 6], k=rng.randint(0, 5)))
    bottoms = rng.choice([cls.bottoms[0]] * 3 + [cls.bottoms[0] + 1, 0])
    shapes = [
        shape if rng.random() < 0.8 else tuple(rng.choices(range(4), k=rng.randint(0, 5))) for _ in range(bottoms)
    ]
    param.bottom.extend(f"b{i}" for i in range(bottoms))
    param.top.extend(f"t{i}" for i in range(rng.choice([cls.tops[0], cls.tops[0], bottoms, 2])))
    if rng.random() < 0.2 and param.bottom and param.top:
        param.top[0] = param.bottom[0]
    return cls(param, shapes), shapes


def run(layer, bottoms):
    made = layer(*bottoms)
    return (made,) if isinstance(made, torch.Tensor) else made


@pytest.mark.parametrize("type_name", TYPES)
def test_it_runs_or_says_what_is_wrong(type_name):
    rng = random.Random(type_name)
    ran = 0
    for attempt in range(4000):
        if attempt >= 400 and ran:
            break
        try:
            layer, shapes = random_layer(type_name, rng)
            tops = run(layer, [torch.empty(shape, device="meta") for shape in shapes])
        except LayerError as error:
            assert str(error).startswith(f'layer "odd" ({type_name}): ')
            continue
        except RuntimeError:  # torch has its say about sizes; the net adds the layer's name
            continue
        if sum(t.numel() for t in (*layer.blobs, *tops)) > 100_000:
            continue
        for i, blob in enumerate(layer.blobs):
            layer.set_blob(i, torch.zeros(blob.shape))
        made = run(layer, [torch.zeros(shape, requires_grad=True) for shape in shapes])
        if type_name != "Filter":
            assert [top.shape for top in made] == [top.shape for top in tops]
        seeds = [top for top in made if top.requires_grad]
        if seeds:
            torch.autograd.backward(seeds, [torch.ones_like(top) for top in seeds])
        ran += 1
    assert ran, "no random layer ever ran: the options drawn are never valid"
