"""What a layer is: its options, blobs and shapes, and what it computes."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from ..errors import LayerError
from ..proto import caffe_pb2
from ..tables import dims

Shape = tuple[int, ...]
Method = TypeVar("Method", bound=Callable[..., Any])


def untraced(method: Method) -> Method:
    """Decorator for a method of a :class:`Layer`: ``torch.compile`` leaves it to Python.

    It is ``torch.compiler.disable`` from the first layer of the class on. By itself that imports the compiler, which
    every program would wait for: a second and a half.
    """
    method.is_untraced = True  # type: ignore[attr-defined]
    return method


@functools.cache
def _leave_to_python(cls: type) -> None:
    """Hide the methods that a class marks as ``untraced``, or inherits, from ``torch.compile``."""
    for owner in cls.__mro__:
        for name, method in list(vars(owner).items()):
            if getattr(method, "is_untraced", False):
                del method.is_untraced
                setattr(owner, name, torch.compiler.disable(method))


@dataclass
class BlobSpec:
    """One of Caffe's ``blobs[i]`` before it has memory: a parameter, or a buffer such as BatchNorm's statistics."""

    name: str
    shape: Shape
    filler: Any  # FillerParameter, a tensor of the values, or None (zeros)
    trainable: bool


class Layer(nn.Module):
    """One Caffe layer as a module.

    A subclass reads and checks its options in the constructor and keeps them as plain attributes: ``forward`` never
    touches a protobuf message, so that it compiles. It declares its blobs with :meth:`add_blob`. ``forward`` takes the
    bottoms and returns one tensor, or a tuple with one tensor per top. It must also run on ``meta`` tensors: that is how
    the net learns the shapes of the tops.

    What the rest of the package wants to know about a layer, the class says itself, in the attributes below and in
    :meth:`option_fields`, :meth:`blob_names` and :meth:`flops`. A new layer therefore touches one file.

    Args:
        param: the upgraded ``LayerParameter``; ``param.phase`` is set.
        bottom_shapes: the shape of each bottom, in order.

    Attributes:
        made_for: ``bottom_shapes``, which a later reshape does not change.
        fork: the fork of Caffe that the layer comes from; empty for BVLC Caffe.
        forks: the forks of Caffe that have this very layer, as :func:`register` was given them.
        fork_options: fields and values of forks that the layer supports, besides those of its own forks in its own options:
            ``{"pooling_param.ceil_mode", "loss_param.normalization=PRE_FIXED"}``.
        replaces_bvlcs: with the same options the layer computes something else than BVLC Caffe's of that type. It runs where
            the net is of one of its forks by what it uses besides, or by name.
        bottoms, tops: the allowed number of bottoms and tops as ``(least, most)``; ``most`` is None for any number.
        options: the fields of ``LayerParameter`` that hold the layer's options; None for the one named after the type.
        inert_options: options that change no result; in Caffe they steer speed, memory or logging.
        blobs_declared: the name of every blob that the layer can have, in Caffe's order.
        blobs_optional: those of them that some options leave out.
        loss: a loss layer. Its first top has loss weight ``default_weight`` unless the prototxt gives another.
        default_weight: the weight of the first top of a loss layer where the prototxt gives none.
        weightless: the forks of Caffe in which that is 0, as their layer leaves it out.
        head: a net ends in it: it reads scores or other results, and nothing that learns reads its tops.
        random: it may draw random numbers in ``forward``.
        negative_is_none: a number below 0 in its tops stands for none, and a solver's test averages the others.
        differentiable: for each bottom, whether ``force_backward`` may ask for its gradient (never for labels). The last
            entry stands for all further bottoms; losses with labels use ``(True, False)``.
        fresh_top: its top is new memory that neither the layer nor its gradient reads again. A ReLU may overwrite it.
        shares_memory: in Caffe its tops lie in the memory of its bottoms or blobs, so the pycaffe interface may share it too.
        per_process: names of buffers that each process of a distributed run keeps for itself.
        open_axes: the axes of its tops whose length only a pass decides, by values; ``forward`` on the meta device gives
            them a nominal one.
        traceable: what PyTorch traces of one pass computes the same for other values.
        planes_traceable: the same for other heights and widths.
        passes_places: each element of a top is, or is made of, the elements at the same place of the bottoms' planes.
        checks_makers: whether :meth:`check_makers` has anything to check.
        keeps_positive: where it passes a gradient on, its top is above 0 exactly where its bottom is.
    """

    type_name: ClassVar[str] = ""
    fork: ClassVar[str] = ""
    forks: ClassVar[tuple[str, ...]] = ()
    fork_options: ClassVar[frozenset[str]] = frozenset()
    replaces_bvlcs: ClassVar[bool] = False
    bottoms: ClassVar[tuple[int, int | None]] = (1, 1)
    tops: ClassVar[tuple[int, int | None]] = (1, 1)
    options: ClassVar[tuple[str, ...] | None] = None
    inert_options: ClassVar[frozenset[str]] = frozenset()
    blobs_declared: ClassVar[tuple[str, ...]] = ()
    blobs_optional: ClassVar[frozenset[str]] = frozenset()
    loss: ClassVar[bool] = False
    weightless: ClassVar[frozenset[str]] = frozenset()
    head: ClassVar[bool] = False
    random: ClassVar[bool] = False
    negative_is_none: ClassVar[bool] = False
    differentiable: ClassVar[tuple[bool, ...]] = (True,)
    fresh_top: ClassVar[bool] = False
    shares_memory: ClassVar[bool] = False
    open_axes: ClassVar[tuple[int, ...]] = ()
    traceable: ClassVar[bool] = True
    planes_traceable: ClassVar[bool] = True
    passes_places: ClassVar[bool] = False
    checks_makers: bool = False
    default_weight: float = 1.0
    keeps_positive: bool = False
    per_process: tuple[str, ...] = ()

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__()
        _leave_to_python(type(self))  # type: ignore[arg-type]  # a class is hashable
        self.param = param
        self.name: str = param.name
        self.phase: int = param.phase
        self.n_tops = max(len(param.top), self.tops[0])
        self.blob_specs: list[BlobSpec] = []
        self.made_for = [tuple(shape) for shape in bottom_shapes]
        self.check_count("bottom", len(bottom_shapes), self.bottoms)
        if param.top:
            self.check_count("top", len(param.top), self.tops)
        self.train(param.phase == caffe_pb2.TRAIN)

    def check_count(self, what: str, have: int, allowed: tuple[int, int | None]) -> None:
        """Raise a ``LayerError`` unless ``have``, a number of bottoms or tops (``what``), is in ``allowed``."""
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

    def misfit(self, shapes: Sequence[Shape], error: Exception) -> LayerError:
        """Return (for the caller to raise) what an error of PyTorch's for bottoms of these shapes means."""
        given = [tuple(shape) for shape in shapes]
        message = f"does not fit its bottoms (shapes: {', '.join(map(dims, given)) or 'none'}): "
        if given != self.made_for and self.made_for:
            made = "".join(f", and its {spec.name} is {dims(spec.shape)}" for spec in self.blob_specs[:1])
            message += f"it was made for {', '.join(map(dims, self.made_for))}{made}: "
        return self.error(f"{message}{error}")

    def outside(self, indices: Tensor, n: int, of: str) -> LayerError:
        """Return (for the caller to raise) an error that names the first of ``indices`` that is not in 0 to ``n`` - 1."""
        flat = indices.detach().flatten()
        whole = flat.long()
        at = int(((whole < 0) | (whole >= n)).nonzero()[0])
        return self.error(f"index {flat[at].item():g}, value {at} of its bottom, is outside 0 … {n - 1} ({of})")

    def add_blob(self, name: str, shape: Sequence[int], filler: Any = None, trainable: bool = True) -> None:
        """Declare the next blob: a parameter, or a buffer if not ``trainable``. The net gives it memory later.

        ``filler`` is a ``FillerParameter``, a tensor of the values, or None for zeros. The order of the calls is the order
        of Caffe's ``blobs``.

        Raises:
            LayerError: a dimension is negative, or there are too many elements to count.
        """
        size = tuple(int(n) for n in shape)
        self.blob_specs.append(BlobSpec(name, size, filler, trainable))
        try:
            value = torch.empty(size, device="meta")
        except (RuntimeError, TypeError) as error:
            raise self.error(f"its {name} cannot have shape {dims(size)}: {str(error).splitlines()[0]}") from error
        if trainable:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def add_bias(self, shape: Sequence[int], options: Any) -> None:
        """Declare the blob ``bias``, filled by ``bias_filler``; with ``bias_term: false`` there is none, and ``bias`` is None."""
        if options.bias_term:
            self.add_blob("bias", shape, options.bias_filler)
        else:
            self.register_parameter("bias", None)

    def blob(self, index: int) -> Tensor:
        """Return Caffe's ``blobs[index]``, the parameter or buffer itself."""
        return getattr(self, self.blob_specs[index].name)

    def set_blob(self, index: int, value: Tensor) -> None:
        """Replace ``blobs[index]`` by ``value``, sharing its memory; a trainable blob is wrapped in a Parameter."""
        spec = self.blob_specs[index]
        if spec.trainable:
            self._parameters[spec.name] = value if isinstance(value, nn.Parameter) else nn.Parameter(value)
        else:
            self._buffers[spec.name] = value

    @property
    def blobs(self) -> list[Tensor]:
        """All blobs in Caffe's order."""
        return [self.blob(i) for i in range(len(self.blob_specs))]

    def takes_shape(self, index: int, shape: Shape) -> bool:
        """Whether the blob is stored in this shape too, which is not its own.

        It has the same values in the same order, or :meth:`adapted` makes the blob's of them.
        """
        return False

    def adapted(self, index: int, stored: Tensor) -> Tensor:
        """The values of a blob, of those that are ``stored`` in a shape of another size, which :meth:`takes_shape` takes."""
        raise NotImplementedError

    def stored_order(self, shapes: Sequence[Shape | None]) -> Sequence[int]:
        """Which blob of a file each of the layer's blobs is, for files of another age that have another order.

        Args:
            shapes: the shapes of the blobs in the file, as many as the layer has; None for one that it leaves out.
        """
        return range(len(shapes))

    @classmethod
    def option_fields(cls) -> tuple[str, ...]:
        """The fields of ``LayerParameter`` that hold the options of this type: ``("pooling_param",)`` for Depooling."""
        if cls.options is not None:
            return cls.options
        own = cls.type_name.lower() + "param"
        names = [f for f in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name if f.replace("_", "") == own]
        is_bvlcs = not cls.forks and cls.__module__.startswith("pycaffe_compat.")
        return tuple(f for f in names if not is_bvlcs or ("LayerParameter", f) not in caffe_pb2.ADDITIONS.fields)

    @classmethod
    def fits(cls, param: Any) -> bool:
        """Whether this class may be meant by the layer ``param``, for a type that several forks have.

        It is asked only where every option that is set is one of the class's forks. The number of bottoms may decide, for
        example.
        """
        return True

    @classmethod
    def blob_names(cls, number: int) -> tuple[str, ...]:
        """The names of the blobs of a layer that has ``number`` of them, as in ``state_dict``.

        A layer has all of its blobs, or all but the optional ones. For any other number, and for a type that declares
        none, the names are ``weight``, ``bias``, ``2``, ``3`` and so on.
        """
        required = tuple(name for name in cls.blobs_declared if name not in cls.blobs_optional)
        for names in (cls.blobs_declared, required):
            if number == len(names):
                return names
        return ("weight", "bias", *(str(i) for i in range(2, number)))[:number]

    def flops(self, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int | None:
        """Operations of a forward pass, 2 for each multiply-add with weights; None for a layer that is not counted.

        Args:
            bottoms, tops: the shapes of the bottoms and of the tops.
        """
        return None

    def multiply_adds(self, places: int) -> int:
        """The operations of applying every matrix or filter bank of the layer at ``places`` rows, pixels or time steps."""
        return 2 * places * sum(count(spec.shape) for spec in self.blob_specs if len(spec.shape) > 1)

    def prepare(self, bottom_shapes: Sequence[Shape], device: torch.device) -> None:
        """Make ready what the layer carries from pass to pass, for bottoms of these shapes.

        The net calls it once the blobs have memory, and after a reshape.
        """

    def at_iteration(self, number: int) -> None:
        """Follow the solver, which calls this before the passes of iteration ``number``, counted from 0."""

    def check_makers(self, makers: Sequence[Maker], shapes: Sequence[Shape]) -> None:
        """Check rules that depend on the layers that made the bottoms, and not only on shapes.

        The net calls it, where ``checks_makers`` is true, when it is built and for all new shapes.

        Args:
            makers: the maker of each bottom.
            shapes: the shape of each bottom.

        Raises:
            LayerError: this layer would misread a bottom.
        """

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: not the views of blobs that another layer owns, which the net makes again."""
        views = {spec.name for spec in self.blob_specs}
        return {
            name: value for name, value in self.__dict__.items() if not (name in views and isinstance(value, Tensor))
        }

    def state(self) -> dict[str, Any]:
        """What the layer carries from pass to pass besides its blobs, as values that JSON can hold.

        A data layer, for example, stores its position.
        """
        return {}

    def seek(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, which :meth:`state` returned, bit for bit."""

    def canonical_axis(self, axis: int, dims: int, field: str = "axis") -> int:
        """Return ``axis`` as a non-negative number; -1 is the last of ``dims`` axes.

        Raises:
            LayerError: ``axis`` is out of range; the message names the option ``field``.
        """
        if not -dims <= axis < dims:
            valid = f"({-dims} to {dims - 1})" if dims else "(does its Input lack a shape?)"
            raise self.error(f"{field}: {axis} is out of range for a blob with {dims} axes {valid}")
        return axis % dims


class Maker(NamedTuple):
    """Where a blob's values come from: the layer, the index of the top, and the shapes of the layer's bottoms.

    A layer that hands its bottom on unchanged, such as Split, is no maker; the one before it is.
    """

    layer: Layer
    top: int
    bottom_shapes: list[Shape]


class Source(Layer):
    """A layer without bottoms whose tops come from outside the graph: a data layer or ``Input``.

    It declares the shapes of its tops; it is not run on the meta device. ``forward`` makes the next batch.

    Attributes:
        is_input: its tops are arguments of the net, so ``forward`` is never called.
        device: where the batches are wanted. The net says so before each; one that comes on another device is copied.
    """

    is_input: ClassVar[bool] = False
    bottoms: ClassVar[tuple[int, int | None]] = (0, 0)
    tops: ClassVar[tuple[int, int | None]] = (1, None)
    device: torch.device = torch.device("cpu")

    @classmethod
    def known_shapes(cls, param: Any, channels: int = 0) -> list[Shape] | None:
        """The shapes of the tops if the options alone give them; None if a file must be opened.

        Options are not checked: a batch size that is missing, for example, is returned as 0.

        Args:
            param: the ``LayerParameter``.
            channels: what to assume if the options say everything but the number of channels; 0 assumes nothing.
        """
        return None

    def top_shapes(self) -> list[Shape]:
        """The shape of each top of the next batch."""
        raise NotImplementedError

    def forward(self) -> Tensor | tuple[Tensor, ...]:
        raise NotImplementedError

    def close(self) -> None:
        """Stop background work and close files. Safe to call twice."""


def count(shape: Sequence[int], start: int = 0, stop: int | None = None) -> int:
    """The number of elements in the axes ``start`` to ``stop`` of ``shape``; ``stop`` is excluded."""
    return math.prod(shape[start:stop])
