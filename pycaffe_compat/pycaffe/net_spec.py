"""Nets written in Python: ``NetSpec``, ``layers`` (usually ``L``) and ``params`` (usually ``P``).

``L.Convolution(bottom, kernel_size=5, num_output=20)`` makes a layer of that type. A keyword that is a field of
``LayerParameter`` is set there; any other goes into the message of the layer's own options, ``convolution_param``.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from ..errors import CaffeError, nearest
from ..layers import REGISTRY
from ..layers.registry import VARIANTS
from ..proto import caffe_pb2


def param_name_dict() -> dict[str, str]:
    """Layer type → the stem of its options' field, for types whose field does not follow from the message's name."""
    stems: dict[str, str] = {}
    for field in caffe_pb2.LayerParameter.DESCRIPTOR.fields:  # BVLC's fields come first
        if field.name.endswith("_param") and field.message_type:
            stems.setdefault(field.message_type.name[: -len("Parameter")], field.name[: -len("_param")])
    return stems


def _layer_fields() -> frozenset[str]:
    """The fields of a layer itself.

    Some forks give every layer an "engine" or "debug" of its own; in a script the word means the option of that name.
    """
    return frozenset(
        f.name
        for f in caffe_pb2.LayerParameter.DESCRIPTOR.fields
        if f.message_type or ("LayerParameter", f.name) not in caffe_pb2.ADDITIONS.fields
    )


_KINDS = {
    FieldDescriptor.CPPTYPE_STRING: "text",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_ENUM: "the name or number of an enum",
    FieldDescriptor.CPPTYPE_INT32: "integer",
    FieldDescriptor.CPPTYPE_UINT32: "integer of at least 0",
}


class ValueOfFieldError(CaffeError, TypeError, ValueError):
    """A value that a field of a message cannot hold."""


def _options_field(type_name: str, names: Iterable[str]) -> str | None:
    """The field that holds the options ``names`` of a layer type: as its class says, or, for an unknown type, by its name.

    Of classes of several forks it is the first whose fork has all of these options.
    """
    classes = VARIANTS.get(type_name) or [REGISTRY[type_name]] * (type_name in REGISTRY)
    fields = [(cls, field) for cls in classes for field in cls.option_fields()[:1]]
    for cls, field in fields:
        if all(_has_option(field, name, cls.forks) for name in names):
            return field
    if fields or type_name in REGISTRY:
        return fields[0][1] if fields else None
    stems = param_name_dict()
    return f"{stems[type_name]}_param" if type_name in stems else None


def _has_option(field: str, name: str, forks: Sequence[str]) -> bool:
    """Whether the message of a field of ``LayerParameter`` has the option ``name`` in one of ``forks`` (in BVLC's, if none)."""
    message = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[field].message_type
    having = caffe_pb2.ADDITIONS.fields.get((message.name, name))
    return name in message.fields_by_name and (having is None or not set(having).isdisjoint(forks))


def _means_option(field: str, name: str) -> bool:
    """Whether ``name``, which a layer has too, is meant in the layer's options: its type is said already, forks add others."""
    message = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[field].message_type
    added = ("LayerParameter", name) in caffe_pb2.ADDITIONS.fields
    return name in message.fields_by_name and (added or name == "type")


def to_proto(*tops: Top) -> Any:
    """Return a ``NetParameter`` of all layers that the tops need.

    Raises:
        TypeError: something else than tops is given.
    """
    layers: OrderedDict[Function, Any] = OrderedDict()
    names: dict[Any, str] = {}
    autonames: Counter[str] = Counter()
    for top in tops:
        if not isinstance(top, Top):
            raise TypeError(
                f"to_proto takes tops, such as L.ReLU(n.data) returns with one top, not a {type(top).__name__}"
            )
        top.fn._to_proto(layers, names, autonames)
    net = caffe_pb2.NetParameter()
    net.layer.extend(layers.values())
    return net


def assign_proto(proto: Any, name: str, value: Any) -> None:
    """Set a field of a message from Python values: lists for repeated fields, dicts for messages.

    Raises:
        CaffeError: the message has no such field, or the value does not fit it.
    """
    field = proto.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        names = [f.name for f in proto.DESCRIPTOR.fields]
        raise CaffeError(f'{proto.DESCRIPTOR.name} has no field "{name}"{nearest(name, names)}')
    try:
        _assign(proto, field, value)
    except (TypeError, ValueError) as error:
        if isinstance(error, CaffeError):
            raise
        kind = field.message_type.name if field.message_type is not None else _KINDS.get(field.cpp_type, "number")
        given = f"{value!r} ({type(value).__name__})"
        if isinstance(value, float) and value.is_integer() and kind.startswith("integer"):
            given += f", which / gives for integers in Python 3 (// gives {int(value)}),"
        raise ValueOfFieldError(
            f"{proto.DESCRIPTOR.name}.{name}: {given} does not fit this field ({kind}): {error}"
        ) from error


def _assign(proto: Any, field: Any, value: Any) -> None:
    name = field.name
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
    target = getattr(proto, name)
    if repeated and not isinstance(value, (list, tuple)):
        value = [value]
    if repeated and value and isinstance(value[0], Mapping):
        for item in value:
            element = target.add()
            for key, inner in item.items():
                assign_proto(element, key, inner)
    elif repeated:
        target.extend(value)
    elif isinstance(value, Mapping):
        target.SetInParent()
        for key, inner in value.items():
            assign_proto(target, key, inner)
    elif field.message_type is not None:
        target.CopyFrom(value)
    else:
        setattr(proto, name, value)


class Top:
    """One top of a layer (``n`` counts from 0)."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> Any:
        """A ``NetParameter`` of all layers that this top needs."""
        return to_proto(self)

    def _to_proto(self, layers: Any, names: Any, autonames: Any) -> str:
        self.fn._to_proto(layers, names, autonames)
        return self.fn._get_top_name(self, names, autonames)


class Function:
    """A layer: its type, the tops it reads, and its options.

    ``ntop`` sets the number of tops, ``in_place=True`` names the top like the bottom, ``name`` the layer.
    """

    def __init__(self, type_name: str, inputs: Iterable[Top], params: dict[str, Any]) -> None:
        self.type_name = type_name
        self.inputs = tuple(inputs)
        for index, bottom in enumerate(self.inputs):
            if not isinstance(bottom, Top):
                raise TypeError(f"{type_name} input {index} is not a Top (type is {type(bottom)})")
        self.params = dict(params)
        self.ntop: int = self.params.pop("ntop", 1)
        self.in_place: bool = self.params.get("in_place", False)
        self.params.pop("in_place", None)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _get_name(self, names: dict[Any, str], autonames: Counter[str]) -> str:
        """The layer's name: that of its first top, or a numbered one."""
        key = self.tops[0] if self.ntop > 0 else self
        if key not in names:
            autonames[self.type_name] += 1
            names[key] = f"{self.type_name}{autonames[self.type_name]}"
        return names[key]

    def _get_top_name(self, top: Top, names: dict[Any, str], autonames: Counter[str]) -> str:
        """The blob that a top stands for; a layer in place writes into its bottom."""
        if self.in_place:
            if top.n >= len(self.inputs):
                raise TypeError(
                    f"{self.type_name}: in_place=True needs a bottom for top {top.n}; there are {len(self.inputs)}"
                )
            bottom = self.inputs[top.n]
            return bottom.fn._get_top_name(bottom, names, autonames)
        if top not in names:
            autonames[self.type_name] += 1
            names[top] = f"{self.type_name}{autonames[self.type_name]}"
        return names[top]

    def _to_proto(self, layers: Any, names: dict[Any, str], autonames: Counter[str]) -> None:
        if self in layers:
            return
        bottoms = [top._to_proto(layers, names, autonames) for top in self.inputs]
        layer = caffe_pb2.LayerParameter()
        layer.type = self.type_name
        layer.bottom.extend(bottoms)
        layer.top.extend(self._get_top_name(top, names, autonames) for top in self.tops)
        layer.name = self._get_name(names, autonames)
        own = _layer_fields() if self.params else frozenset()
        options = self.params.keys() - own
        field = _options_field(self.type_name, options) if self.params else None
        for key, value in self.params.items():
            if key in own and not (field and _means_option(field, key)):
                assign_proto(layer, key, value)
            elif field:
                assign_proto(getattr(layer, field), key, value)
            else:
                raise CaffeError(
                    f'{self.type_name}: "{key}" is not a field of LayerParameter{nearest(key, own)}, '
                    "and the type has no options of its own"
                )
        layers[self] = layer


class NetSpec:
    """Tops by name: ``n.conv1 = L.Convolution(n.data, …)`` names the top, and with it the layer."""

    tops: OrderedDict[str, Top]

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Top) -> None:
        if not isinstance(value, (Top, Function)):
            hint = "; assign each of them: n.data, n.label = L.Data(…, ntop=2)" if isinstance(value, tuple) else ""
            raise TypeError(f'"{name}" names a top, such as L.ReLU(n.data) returns, not a {type(value).__name__}{hint}')
        self.tops[name] = value

    def __getattr__(self, name: str) -> Top:
        try:
            return self.tops[name]
        except KeyError:
            raise AttributeError(f'no top "{name}" has been assigned{nearest(name, self.tops)}') from None

    def __setitem__(self, key: str, value: Top) -> None:
        self.__setattr__(key, value)

    def __getitem__(self, item: str) -> Top:
        return self.__getattr__(item)

    def __delitem__(self, name: str) -> None:
        del self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def keys(self) -> list[str]:
        """The names of the tops, in order. This, ``vals`` and ``update`` are SSD's additions, which scripts for its forks use."""
        return list(self.tops)

    def vals(self) -> list[Top]:
        """The tops, in order."""
        return list(self.tops.values())

    def update(self, name: str, params: Mapping[str, Any]) -> None:
        """Set further options of the layer that makes the top ``name``, or give options new values."""
        top = self.__getattr__(name)
        (top.fn if isinstance(top, Top) else top).params.update(params)

    def to_proto(self) -> Any:
        """A ``NetParameter`` of all assigned tops and what they need."""
        names: dict[Any, str] = {v: k for k, v in self.tops.items()}
        autonames: Counter[str] = Counter()
        layers: OrderedDict[Function, Any] = OrderedDict()
        for top in self.tops.values():
            top._to_proto(layers, names, autonames)
        net = caffe_pb2.NetParameter()
        net.layer.extend(layers.values())
        return net


class Layers:
    """``layers.TYPE(*bottoms, **options)``: a :class:`Top`, a tuple of them, or the :class:`Function` if it has no tops."""

    def __getattr__(self, name: str) -> Any:
        def layer(*args: Top, **kwargs: Any) -> Any:
            function = Function(name, args, kwargs)
            if function.ntop == 0:
                return function
            return function.tops[0] if function.ntop == 1 else function.tops

        return layer


class Parameters:
    """``params.MESSAGE.VALUE``: the number of an enum value, as in ``P.Pooling.MAX``."""

    def __getattr__(self, name: str) -> Any:
        message = getattr(caffe_pb2, f"{name}Parameter", None)
        if message is None:
            raise AttributeError(f"caffe.proto has no message {name}Parameter")

        descriptor = message.DESCRIPTOR

        class Values:
            def __getattr__(self, value: str) -> int:
                try:
                    return getattr(message, value)
                except AttributeError:
                    names = [n for enum in descriptor.enum_types for n in enum.values_by_name]
                    raise AttributeError(f"{name}Parameter has no value {value}{nearest(value, names)}") from None

        return Values()


layers = Layers()
params = Parameters()
