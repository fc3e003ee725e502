"""Caffe's layers, one ``nn.Module`` per type, in a registry by Caffe's type names."""

from . import *  # noqa: F403
