"""The registry of layers, by Caffe's type names: which class runs a layer, and what no class runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from ..errors import LayerError, nearest
from ..forks import all_forks
from ..plug_ins import load_plug_ins
from ..proto import caffe_pb2
from ..proto.additions import titles
from ..proto.finite import not_numbers
from ..proto.recognise import forks_of
from ..proto.upgrade import V1_TYPES
from .base import Layer
from .variants import check_fork_options, choose

log = logging.getLogger(__name__)
_REGISTER = ". Register your own with @pycaffe_compat.layers.register"
REGISTRY: dict[str, type[Layer]] = {}  # for a type that several forks have, the class that was registered first
VARIANTS: dict[str, list[type[Layer]]] = {}  # of the types that forks have: all classes, one without a fork first
LayerClass = TypeVar("LayerClass", bound="type[Layer]")


def register(type_name: str, fork: str | Sequence[str] = ()) -> Callable[[LayerClass], LayerClass]:
    """Class decorator: run layers of ``type: "type_name"`` with this :class:`Layer`.

    Without ``fork`` it runs all layers of the type, and the last registration wins. With ``fork``, the name of the fork of
    Caffe that has the layer or several such names, it stands beside the classes of other forks for the same type: the
    options that a layer has decide which one runs it, or else what the net uses besides.
    """

    def enter(cls: LayerClass) -> LayerClass:
        cls.type_name = type_name
        if not fork:
            REGISTRY[type_name] = cls
            VARIANTS.pop(type_name, None)
            return cls
        cls.forks = (fork,) if isinstance(fork, str) else tuple(fork)
        cls.fork = cls.forks[0]
        plain = REGISTRY.get(type_name)
        variants = VARIANTS.setdefault(type_name, [plain] if plain is not None else [])
        variants[:] = [each for each in variants if each.forks != cls.forks] + [cls]
        REGISTRY[type_name] = variants[0]
        return cls

    return enter


def layer_class(param: Any, file: str = "", fork: str = "", likely: Sequence[str] = ()) -> type[Layer]:
    """Return the class registered for ``param.type`` by this package, the program or a plug-in.

    Args:
        param: the ``LayerParameter``.
        file: the net's file, for messages.
        fork: the fork of Caffe that the user named; empty to go by what the layer and the net use.
        likely: the forks that the net may be of, the likeliest first; by default those that the layer may be of.

    Raises:
        LayerError: the type is unknown. The message names the layer, its file, types with similar names, and the
            plug-ins that could not be loaded. Or no fork has a layer of that type with such options.
    """
    where = f'layer "{param.name}"{f" in {file}" if file else ""}'
    if param.type not in REGISTRY:
        broken = load_plug_ins()
        if param.type not in REGISTRY:
            if not param.type:
                raise LayerError(f'{where}: its type is missing; give one, as in type: "Convolution"')
            older = V1_TYPES.get(param.type)
            near = f" (did you mean {older}?)" if older in REGISTRY else nearest(param.type, REGISTRY)
            known = _whose(param.type) or f"{near}; docs/layers.md lists all that are known"
            unloaded = "".join(f". A plug-in that failed to load may have it: {each}" for each in broken)
            raise LayerError(f'{where}: unknown layer type "{param.type}"{known}{_REGISTER}{unloaded}')
    variants = VARIANTS.get(param.type)
    if variants and not likely:
        likely = forks_of(caffe_pb2.NetParameter(layer=[param]))
    return choose(param, variants, fork, likely, where) if variants else REGISTRY[param.type]


def _whose(type_name: str) -> str:
    """Say which forks of Caffe have a layer type that is not implemented here; ``""`` if none is known to."""
    names = [each.name for each in all_forks() if type_name in each.layer_types]
    return f", which is a layer of {titles(names)} and is not implemented here" if names else ""


def missing_types(types: Mapping[str, str]) -> str:
    """Say which layer types no class runs, for a file that cannot be read whole; ``""`` if all have one.

    Args:
        types: each type to the name of a layer of it.
    """
    if any(name not in REGISTRY for name in types):
        load_plug_ins()
    missing = {name: layer for name, layer in types.items() if name not in REGISTRY}
    if not missing:
        return ""
    words = (f'"{name}"{_whose(name)} (layer "{layer}")' for name, layer in missing.items())
    return f". Unknown layer types besides: {', '.join(words)}"


# Fields of data layers that only the upgrade of the older "layers" reads, as in Caffe.
_OLDER_FIELDS = ("scale", "mean_file", "crop_size", "mirror")


def _without_effect(param: Any, cls: type[Layer]) -> Iterator[str]:
    """Say which of BVLC's options are set in a layer that does not read them. What classes from elsewhere read is not known."""
    if cls.forks or not cls.__module__.startswith("pycaffe_compat."):
        return
    read = cls.option_fields()
    for field, value in param.ListFields():
        if not field.name.endswith("_param") or ("LayerParameter", field.name) in caffe_pb2.ADDITIONS.fields:
            continue
        if field.name not in read:
            yield f"{field.name} is not an option of {param.type} and has no effect, as in Caffe"
        elif "transform_param" in read and field.name != "transform_param":
            for older in (name for name in _OLDER_FIELDS if _is_set(value, name)):
                yield (
                    f'{field.name}.{older} is read only in the older "layers", as in Caffe; '
                    f"write transform_param {{ {older}: … }}"
                )


def _is_set(message: Any, name: str) -> bool:
    return name in message.DESCRIPTOR.fields_by_name and message.HasField(name)


def check_layers(net: Any, file: str = "", likely: Sequence[str] = ()) -> None:
    """Check that a class supports every option of every layer of a net, and report all that is missing together.

    Args:
        net: the ``NetParameter`` with the layers that are to be built.
        file: its file, for messages.
        likely: the forks that it may be of, the likeliest first.

    Raises:
        LayerError: what :func:`layer_class`, :func:`.variants.check_fork_options` and :func:`.not_numbers` say of all layers
            together, each kind of fault once.
    """
    idle: dict[str, list[str]] = {}  # what has no effect, to the layers with it
    faults: dict[str, list[str]] = {}  # what is wrong, to the layers with it
    first = ""
    noted = set[str]()
    for param in net.layer:
        where = f'layer "{param.name}"{f" in {file}" if file else ""}'
        try:
            cls = layer_class(param, file, net.fork, likely)
            check_fork_options(param, cls, where, noted)
            for words in _without_effect(param, cls):
                idle.setdefault(words, []).append(f'"{param.name}"')
            if wrong := next(not_numbers(param), ""):
                raise LayerError(f"{where}: {wrong}")
        except LayerError as error:
            words = str(error).removeprefix(f"{where}: ").removesuffix(_REGISTER)
            first = first or str(error)
            faults.setdefault(words, []).append(f'"{param.name}"')
    for words, names in idle.items():
        log.warning("%s: layer %s: %s", file or "the net", _some(names), words)
    if first:
        more = [f"{words} (layer {_some(names)})" for words, names in [*faults.items()][1:]]
        besides = f". Besides, in this net: {'; '.join(more)}" if more else ""
        closest = (
            f". Of the forks known here the net is most like {titles(likely[:1])}" if likely and not net.fork else ""
        )
        raise LayerError(f"{first}{besides}{closest}")


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
