"""Which forks of Caffe a net may be of, by the layer types and fields that it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..forks import BVLC, NAMES, all_forks
from .additions import additions, titles


def forks_of(net: Any) -> tuple[str, ...]:
    """Return the forks that a ``NetParameter`` may be of, those that have most of what it uses first.

    Empty if it uses nothing that BVLC's Caffe lacks. If any fork has all of it, only such forks are returned. A fork whose
    ``sign`` the net bears comes first. The field ``fork`` of the net, where it is set, is the only one, or, for a fork of
    the user's own, the first.
    """
    if net.fork in (*NAMES, BVLC.name):
        return (net.fork,)
    if net.fork:
        bare = type(net)()
        bare.CopyFrom(net)
        bare.ClearField("fork")
        return tuple(dict.fromkeys((net.fork, *forks_of(bare))))
    types, fields = _used(net)
    scores = scores_of(types, fields)
    best = max(scores.values(), default=0)
    everything = len(fields) + len(types & _fork_types())
    if best == everything:
        found = [name for name, score in scores.items() if score == best]
    else:
        found = sorted(scores, key=lambda name: -scores[name])
    signed = [fork.name for fork in all_forks() if fork.name in found and fork.sign is not None and fork.sign(net)]
    return tuple(dict.fromkeys((*signed, *found)))


def mixture(net: Any) -> str:
    """Say what a ``NetParameter`` uses that the fork with most of it lacks; ``""`` if any fork has all of it, or none any."""
    types, fields = _used(net)
    scores = scores_of(types, fields)
    types &= _fork_types()
    best = max(scores, key=lambda name: scores[name], default="")
    if not best or scores[best] == len(fields) + len(types):
        return ""
    of_types = {name: [fork.name for fork in all_forks() if name in fork.layer_types] for name in sorted(types)}
    others = [f"{name} of {titles(forks)}" for name, forks in of_types.items() if best not in forks]
    others += [
        f"{message}.{field} of {titles(forks)}" for (message, field), forks in fields.items() if best not in forks
    ]
    return f"no one fork of Caffe has all that the net uses. Most is of {titles([best])}; besides: {'; '.join(others)}"


def _used(net: Any) -> tuple[set[str], dict[tuple[str, str], tuple[str, ...]]]:
    """The layer types of a net, and the fields that BVLC's Caffe lacks, each with the forks that have it."""
    types = {layer.type for layer in net.layer}
    return types, {(each.message, each.field): each.forks for each in additions(net, inside=True)}


def scores_of(types: set[str], fields: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, int]:
    """How many of ``types`` and ``fields`` each fork has, for the forks that have any; ``fields`` holds the forks of each."""
    scores = {
        fork.name: len(types & fork.layer_types) + sum(fork.name in forks for forks in fields.values())
        for fork in all_forks()
    }
    return {name: score for name, score in scores.items() if score}


def _fork_types() -> frozenset[str]:
    return frozenset().union(*(fork.layer_types for fork in all_forks()))
