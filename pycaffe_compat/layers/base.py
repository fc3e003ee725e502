"""What a layer is, and the registry that finds it by Caffe's type name."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..errors import LayerError, nearest
from ..proto import caffe_pb2

Shape = tuple[int, ...]
PLUG_INS = "pycaffe_compat.layers"  # the entry-point group of packages that bring layers of their own
REGISTRY: dict[str, type[Layer]] = {}
LayerClass = TypeVar("LayerClass", bound="type[Layer]")


def register(type_name: str) -> Callable[[LayerClass], LayerClass]:
    """Class decorator: make a :class:`Layer` the one that runs ``type: "type_name"``. The last registration wins."""

    def enter(cls: LayerClass) -> LayerClass:
        cls.type_name = type_name
        REGISTRY[type_name] = cls
        return cls

    return enter


@functools.cache
def load_plug_ins() -> tuple[str, ...]:
    """Import what installed packages name in the entry-point group :data:`PLUG_INS`, so that it registers its layers.

    Done once, when a net names a type that is not registered. Returns what went wrong, in words, a string a plug-in.
    """
    broken = []
    for plug_in in entry_points(group=PLUG_INS):
        try:
            plug_in.load()
        except (Exception, SystemExit) as error:
            package = f" of the package {plug_in.dist.name}" if plug_in.dist else ""
            broken.append(f'plug-in "{plug_in.name}" ({plug_in.value}){package}: {type(error).__name__}: {error}')
    return tuple(broken)


def layer_class(param: Any, file: str = "") -> type[Layer]:
    """Return the class registered for ``param.type``, by this package, by the program or by a plug-in.

    Raises:
        LayerError: no layer has that type; the message names the layer, its file, the types that are spelt alike, and
            plug-ins that could not be loaded.
    """
    if param.type not in REGISTRY:
        broken = load_plug_ins()
        if param.type not in REGISTRY:
            where = f" in {file}" if file else ""
            unloaded = "".join(f". It may be in what could not be loaded: {each}" for each in broken)
            raise LayerError(
                f'layer "{param.name}"{where}: unknown layer type "{param.type}"{nearest(param.type, REGISTRY)}; '
                f"known types: {', '.join(sorted(REGISTRY))}. Register your own with @pycaffe_compat.layers.register"
                f"{unloaded}"
            )
    return REGISTRY[param.type]


@dataclass
class BlobSpec:
    """A learnable (or stored) blob of a layer, before it has memory: Caffe's ``blobs[i]``."""

    name: str
    shape: Shape
    filler: Any  # FillerParameter, a tensor of the values, or None (zeros)
    trainable: bool


class Layer(nn.Module):
    """One Caffe layer as a module.

    A subclass reads every option from ``param`` in its constructor, into plain attributes (``forward`` never touches a
    protobuf message, so that it compiles), checks them against the shapes of its bottoms, and declares its blobs with
    :meth:`add_blob`. ``forward`` takes the bottoms and returns one tensor, or a tuple of one tensor a top. It must also
    run on ``meta`` tensors: that is how the net learns the shapes of the tops.

    Args:
        param: the upgraded ``LayerParameter``; ``param.phase`` is set.
        bottom_shapes: the shape of each bottom, in order.

    Attributes:
        bottoms, tops: the numbers of bottoms and tops allowed, as ``(least, most)``; ``most`` None for any number.
        loss: a loss layer: its first top has loss weight 1 unless given.
        differentiable: per bottom, whether ``force_backward`` may ask for its gradient (never for labels). A shorter tuple
            is continued with its last entry; losses that take labels say ``(True, False)``.
    """

    type_name: ClassVar[str] = ""
    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    loss: ClassVar[bool] = False
    differentiable: ClassVar[tuple[bool, ...]] = (True,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.param = param
        self.name: str = param.name
        self.phase: int = param.phase
        self.n_tops = max(len(param.top), self.tops[0])
        self.blob_specs: list[BlobSpec] = []
        self.check_count("bottom", len(bottom_shapes), self.bottoms)
        if param.top:
            self.check_count("top", len(param.top), self.tops)
        self.train(param.phase == caffe_pb2.TRAIN)

    def check_count(self, what: str, have: int, allowed: tuple[int, int | None]) -> None:
        """Raise a ``LayerError`` unless ``have`` bottoms or tops (``what``) are as many as ``allowed``: (least, most)."""
        least, most = allowed
        if have < least or (most is not None and have > most):
            if most is None:
                want = f"at least {least}"
            elif least == most:
                want = f"exactly {least}"
            else:
                want = f"{least} to {most}"
            raise self.error(f"has {have} {what} blob{'s' * (have != 1)}, but takes {want}")

    def error(self, message: str) -> LayerError:
        """Return (for the caller to raise) an error that begins with this layer's name and type."""
        return LayerError(f'layer "{self.name}" ({self.type_name}): {message}')

    def add_blob(self, name: str, shape: Sequence[int], filler: Any = None, trainable: bool = True) -> None:
        """Declare the next blob: a parameter, or a buffer if not ``trainable``; it has memory after :meth:`allocate`.

        ``filler`` is a ``FillerParameter``, a tensor of the values, or None for zeros. The order of the calls is the order
        of Caffe's ``blobs``.

        Raises:
            LayerError: a negative dimension, or more elements than can be counted.
        """
        size = tuple(int(n) for n in shape)
        self.blob_specs.append(BlobSpec(name, size, filler, trainable))
        try:
            value = torch.empty(size, device="meta")
        except (RuntimeError, TypeError) as error:
            raise self.error(f"its {name} cannot have shape {size}: {str(error).splitlines()[0]}") from error
        if trainable:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def blob(self, index: int) -> Tensor:
        """Return Caffe's ``blobs[index]``: the parameter or buffer itself."""
        return getattr(self, self.blob_specs[index].name)

    def set_blob(self, index: int, value: Tensor) -> None:
        """Put ``value`` in the place of ``blobs[index]``, sharing its memory; a trainable blob becomes a Parameter of it."""
        spec = self.blob_specs[index]
        if spec.trainable:
            self._parameters[spec.name] = value if isinstance(value, nn.Parameter) else nn.Parameter(value)
        else:
            self._buffers[spec.name] = value

    @property
    def blobs(self) -> list[Tensor]:
        """All blobs in Caffe's order."""
        return [self.blob(i) for i in range(len(self.blob_specs))]

    def state(self) -> dict[str, Any]:
        """What the layer carries from pass to pass besides its blobs (where a data layer stands), as JSON-able values."""
        return {}

    def seek(self, state: dict[str, Any]) -> None:
        """Go on from where :meth:`state` was taken, bit for bit."""

    def canonical_axis(self, axis: int, dims: int, field: str = "axis") -> int:
        """Return ``axis`` as a non-negative number; -1 is the last of ``dims`` axes.

        Raises:
            LayerError: ``axis`` is out of range; ``field`` is the option it came from.
        """
        if not -dims <= axis < dims:
            raise self.error(f"{field}: {axis} is out of range for a blob with {dims} axes ({-dims} to {dims - 1})")
        return axis % dims


class Source(Layer):
    """A layer without bottoms whose tops come from outside the graph: data layers and ``Input``.

    It declares the shapes of its tops instead of being run on the meta device. ``forward`` makes the next batch; that of
    ``Input`` is never called: its tops are the arguments of the net.
    """

    bottoms: ClassVar[tuple[int, int | None]] = (0, 0)
    tops: ClassVar[tuple[int, int | None]] = (1, None)

    def top_shapes(self) -> list[Shape]:
        """The shape of each top of the next batch."""
        raise NotImplementedError

    def forward(self) -> Tensor | tuple[Tensor, ...]:
        raise NotImplementedError

    def close(self) -> None:
        """Stop background work and close files. Safe to call twice."""


def count(shape: Sequence[int], start: int = 0, stop: int | None = None) -> int:
    """The number of elements that the axes ``start`` to ``stop`` of ``shape`` span."""
    return math.prod(shape[start:stop])
