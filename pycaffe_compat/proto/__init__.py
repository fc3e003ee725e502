"""Caffe's files: the messages, prototxt and binary, upgrades of old forms, and weights."""

from typing import Any

from . import caffe_pb2, wire
from .binary import parse_binary, read_message, write_message
from .blob_proto import array_to_blob, blob_to_array
from .nets import as_phase, assume_fork, filter_net, included, read_net, read_solver, rules_in_words, state_in_words
from .own import use_proto
from .reader import read_weights
from .text import format_text, parse_text
from .upgrade import upgrade_net, upgrade_solver
from .weights import Weights
from .writer import write_weights


def current(message: Any) -> Any:
    """Return ``message`` as one of today's classes: it may be older than a fork of the user's own (:func:`use_proto`)."""
    cls = getattr(caffe_pb2, message.DESCRIPTOR.name)
    return message if isinstance(message, cls) else cls.FromString(message.SerializeToString())


__all__ = [
    "Weights",
    "array_to_blob",
    "as_phase",
    "assume_fork",
    "blob_to_array",
    "caffe_pb2",
    "current",
    "filter_net",
    "format_text",
    "included",
    "parse_binary",
    "parse_text",
    "read_message",
    "read_net",
    "read_solver",
    "read_weights",
    "rules_in_words",
    "state_in_words",
    "upgrade_net",
    "upgrade_solver",
    "use_proto",
    "wire",
    "write_message",
    "write_weights",
]
