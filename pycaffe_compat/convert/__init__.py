"""Converts trained weights between Caffe's two formats, PyTorch's, safetensors' and numpy's, without loss."""

from .fit import fit_to_net, remarks
from .formats import read_model, write_model
from .listing import list_model
from .model import Model, blob_names, suffix_of
from .torchvision import from_torchvision, to_torchvision

__all__ = [
    "Model",
    "blob_names",
    "fit_to_net",
    "from_torchvision",
    "list_model",
    "read_model",
    "remarks",
    "suffix_of",
    "to_torchvision",
    "write_model",
]
