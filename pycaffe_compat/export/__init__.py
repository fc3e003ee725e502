"""The way out: nets as files that run without Caffe and without this package."""

from .caffe_nets.conversion import Normalised
from .caffe_nets.write import CaffeNet, program_to_caffe, to_caffe
from .onnx.model import to_onnx
from .outline import Outline
from .preprocess import Preprocessing
from .programs import run_alone, to_pt2, to_torchscript
from .smaller import to_float16, to_int8
from .source.module import to_source
from .verify import Difference, compare_onnx

__all__ = [
    "CaffeNet",
    "Difference",
    "Normalised",
    "Outline",
    "Preprocessing",
    "compare_onnx",
    "program_to_caffe",
    "run_alone",
    "to_caffe",
    "to_float16",
    "to_int8",
    "to_onnx",
    "to_pt2",
    "to_source",
    "to_torchscript",
]
