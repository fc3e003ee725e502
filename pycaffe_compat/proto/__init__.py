"""Caffe's files: the messages, prototxt and binary, upgrades of old forms, and weights."""

from . import caffe_pb2, wire
from .binary import parse_binary, read_message, write_message
from .blob_proto import array_to_blob, blob_to_array
from .nets import assume_fork, filter_net, included, read_net, read_solver, rules_in_words, state_in_words
from .reader import read_weights
from .text import format_text, parse_text
from .upgrade import upgrade_net, upgrade_solver
from .weights import Weights
from .writer import write_weights

__all__ = [
    "Weights",
    "array_to_blob",
    "assume_fork",
    "blob_to_array",
    "caffe_pb2",
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
    "wire",
    "write_message",
    "write_weights",
]
