"""Which class runs a layer whose type several forks of Caffe have, each with another meaning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import LayerError
from ..forks import fork_named
from ..proto import caffe_pb2
from ..proto.additions import Addition, additions, note, refusal, speed_only, titles
from .base import Layer

SHARED = ("transform_param", "loss_param")  # options that layers of many types read
_FILLERS = tuple(
    ("FillerParameter", name) for name in ("alpha", "file", "diag_val")
)  # supported wherever blobs are filled


def choose(param: Any, classes: Sequence[type[Layer]], given: str, likely: Sequence[str], where: str) -> type[Layer]:
    """Return the class of ``classes`` that runs the layer ``param``.

    Args:
        param: the ``LayerParameter``.
        classes: all that are registered for its type.
        given: the fork that the user named; it decides, unless the layer can only be BVLC's. Empty if none.
        likely: the forks that the net may be of by all that it uses, the likeliest first.
        where: the layer and its file, for messages.

    Raises:
        LayerError: no class takes all options that are set, because they are of several forks, or of another than the named
            one; or several do, and nothing else in the net tells which is meant; or the named fork has a layer of the type
            that is not implemented here.
    """
    named = [cls for cls in classes if given in cls.forks]
    if named and (named[0].fits(param) or classes[0].forks or not classes[0].fits(param)):
        known = caffe_pb2.ADDITIONS.fields
        foreign = [each for each in _foreign(param, named[0]) if given not in known.get((each.message, each.field), ())]
        if foreign := [each for each in foreign if not each.is_default]:
            words = ", ".join(f"{each.path} of {titles(each.forks)}" for each in foreign)
            raise LayerError(
                f'{where}: {titles([given])}, the fork that is named, has no such option of "{param.type}": {words}'
            )
        return named[0]
    if given and not named and classes[0].forks and param.type in fork_named(given).layer_types:
        raise LayerError(
            f'{where}: {titles([given])}, the fork that is named, has a layer "{param.type}" of its own, which is not '
            "implemented here"
        )
    fitting = [cls for cls in classes if not _foreign(param, cls) and cls.fits(param)]
    if not fitting:  # a value that is the default anyway hinders no class
        fitting = [cls for cls in classes if all(each.is_default for each in _foreign(param, cls)) and cls.fits(param)]
    if not fitting:
        raise LayerError(f"{where}: {_why_none(param, classes)}")
    if not fitting[0].forks:  # the layer is as in BVLC's Caffe, unless the net's fork gave the type another meaning
        others = [cls for cls in fitting if _meant(param, cls, fitting[0]) or _likely_meant(cls, likely)]
        return others[0] if others else fitting[0]
    if len(fitting) > 1:
        fitting = next(
            (chosen for name in likely if (chosen := [cls for cls in fitting if name in cls.forks])), fitting
        )
    if len(fitting) > 1:
        meant = "; ".join(f"{_owner(cls)}: {_first_sentence(cls)}" for cls in fitting)
        several = f'several forks of Caffe have a layer "{param.type}", and nothing in the net tells which is meant'
        if given:
            several = f"{titles([given])}, the fork that is named, has no such layer; {several}"
        raise LayerError(f"{where}: {several}. Name one with --fork or fork=. {meant}")
    return fitting[0]


def _meant(param: Any, cls: type[Layer], plain: type[Layer]) -> bool:
    """Whether options are set that ``cls`` has and BVLC's class for the type has no field for."""
    given = {field.name for field, _ in param.ListFields()}
    return any(name in given for name in cls.option_fields() if name not in plain.option_fields())


def _likely_meant(cls: type[Layer], likely: Sequence[str]) -> bool:
    return cls.replaces_bvlcs and bool(set(likely[:1]) & set(cls.forks))


def _foreign(param: Any, cls: type[Layer]) -> list[Addition]:
    """The options that are set and that the class does not take: none of its forks has them."""
    return [
        each
        for each in _own_options(param, cls)
        if not _supported(each, cls)
        and each.field not in cls.inert_options
        and not set(each.forks) & set(cls.forks)
        and not speed_only(each)
    ]


def _supported(each: Addition, cls: type[Layer]) -> bool:
    """Whether the layer, or a filler of its blobs, supports the field."""
    return each.path in cls.fork_options or (each.message, each.field) in _FILLERS


def _own_options(param: Any, cls: type[Layer]) -> Iterator[Addition]:
    own = cls.option_fields()
    for field, value in param.ListFields():
        if field.name in own:
            for each in value if hasattr(value, "add") else (value,):
                yield from additions(each, field.name, inside=True)


def _why_none(param: Any, classes: Sequence[type[Layer]]) -> str:
    rows = []
    foreign_to = {cls: _foreign(param, cls) for cls in classes}
    most = max(map(len, foreign_to.values()))  # who lacks all of them is not meant
    for cls, foreign in foreign_to.items():
        if len(foreign) == most and any(len(each) < most for each in foreign_to.values()):
            continue
        if foreign:
            rows.append(f"{_owner(cls)} has no {', '.join(each.path for each in foreign)}")
        else:
            rows.append(f"{_owner(cls)}: {_first_sentence(cls)}")
    return f'its options are of no one fork that has a layer "{param.type}". {"; ".join(rows)}'


def _owner(cls: type[Layer]) -> str:
    return titles(cls.forks[:1]) or "BVLC's Caffe"


def _first_sentence(cls: type[Layer]) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")


def check_fork_options(param: Any, cls: type[Layer], where: str, noted: set[str]) -> None:
    """Refuse set fields of forks that ``cls`` does not support; log those that only affect speed, once per net.

    Args:
        param: the ``LayerParameter``.
        cls: the class that runs it.
        where: the layer and its file, for messages.
        noted: the fields that have been logged.

    Raises:
        LayerError: a field would change results. All such fields are named, with the forks that have them.
    """
    own = cls.option_fields()
    refused = []
    for each in additions(param):
        if each.path in own or _supported(each, cls) or each.is_default:
            continue
        if each.path.partition(".")[0] in own and set(each.forks) & set(cls.forks):
            continue
        if each.path.partition(".")[0] in own and each.field in cls.inert_options:
            continue
        if words := speed_only(each):
            note(each, words, noted)
        elif _is_of_another_type(each, own):
            note(each, f"it holds options of another layer type, so a {param.type} layer does not read it", noted)
        else:
            refused.append(refusal(each))
    if refused:
        raise LayerError(f"{where}: not supported: {'; '.join(refused)}")


def _is_of_another_type(each: Addition, own: Sequence[str]) -> bool:
    """Whether a field is, or is in, options that layers of other types read: ``softmax_param { … }`` of an InnerProduct."""
    root = each.path.partition(".")[0]
    field = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name.get(root)
    if field is None or field.message_type is None or root in own:
        return False
    if root == each.path:
        return not each.is_value
    return root.endswith("_param") and root not in SHARED
