"""The table of weights."""

from pycaffe_compat.convert import list_model


def test_listing(model):
    text = list_model(model)
    line = next(line for line in text.splitlines() if line.startswith("ip "))
    assert line.split() == [
        "ip",
        "InnerProduct",
        "weight",
        "5×64",
        "float32",
        "-inf",
        "inf",
        "nan",
        "2",
        "not",
        "finite",
    ]
    assert text.endswith("5 layers, 9 blobs, 453 numbers")
