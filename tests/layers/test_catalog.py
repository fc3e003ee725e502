"""The catalogue of layers: up to date, and complete over types and options."""

from pathlib import Path

from pycaffe_compat.layers import REGISTRY
from pycaffe_compat.layers.catalog import catalog, goldens_by_type, schema
from pycaffe_compat.proto import caffe_pb2

GOLDENS = Path(__file__).parents[1] / "goldens"
BVLC = [
    "AbsVal",
    "Accuracy",
    "ArgMax",
    "BatchNorm",
    "BatchReindex",
    "Bias",
    "BNLL",
    "Clip",
    "Concat",
    "ContrastiveLoss",
    "Convolution",
    "Crop",
    "Data",
    "Deconvolution",
    "Dropout",
    "DummyData",
    "Eltwise",
    "ELU",
    "Embed",
    "EuclideanLoss",
    "Exp",
    "Filter",
    "Flatten",
    "HDF5Data",
    "HDF5Output",
    "HingeLoss",
    "Im2col",
    "ImageData",
    "InfogainLoss",
    "InnerProduct",
    "Input",
    "Log",
    "LRN",
    "LSTM",
    "LSTMUnit",
    "MemoryData",
    "MultinomialLogisticLoss",
    "MVN",
    "Parameter",
    "Pooling",
    "Power",
    "PReLU",
    "Python",
    "Reduction",
    "ReLU",
    "Reshape",
    "RNN",
    "Scale",
    "Sigmoid",
    "SigmoidCrossEntropyLoss",
    "Silence",
    "Slice",
    "Softmax",
    "SoftmaxWithLoss",
    "Split",
    "SPP",
    "Swish",
    "TanH",
    "Threshold",
    "Tile",
    "WindowData",
]
FORK = ["Depooling", "SafeInv", "ImageOutput"]


def test_the_page_is_what_the_registry_says():
    page = Path(__file__).parents[2] / "docs" / "layers.md"
    command = "python -m pycaffe_compat.layers.catalog tests/goldens > docs/layers.md"
    assert page.read_text("utf-8") == catalog(GOLDENS), f"run: {command}"


def test_every_type_of_caffe_is_there():
    assert len(BVLC) == 61
    assert {*BVLC, *FORK} <= set(REGISTRY)


def test_every_option_message_belongs_to_a_type():
    added = {field for message, field in caffe_pb2.ADDITIONS.fields if message == "LayerParameter"}
    fields = {name for name in caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name if name.endswith("_param")} - added
    own = [cls for cls in REGISTRY.values() if cls.__module__.startswith("pycaffe_compat.layers.")]
    assert fields == {field for cls in own for field in cls.option_fields()} - added


def test_the_schema_is_read_whole():
    """Every field of every message that the parsed descriptor has, with its default and its origin."""
    for name, fields in schema().items():
        assert [field.name for field in fields] == [field.name for field in getattr(caffe_pb2, name).DESCRIPTOR.fields]
    pooling = {field.name: field for field in schema()["PoolingParameter"]}
    assert pooling["fix_x"].forks == ("SWWAE",) and pooling["fix_x"].default == "-1"
    assert "densenet" in pooling["ceil_mode"].forks
    assert not pooling["stride"].forks and pooling["stride"].default == "1" and pooling["kernel_h"].default == ""


def test_a_golden_is_listed_under_each_type_in_it():
    found = goldens_by_type(GOLDENS)
    assert "inplace_chain" in found["Scale"] and "inplace_chain" in found["BatchNorm"]
    assert "enc_crop" in found["Data"]
