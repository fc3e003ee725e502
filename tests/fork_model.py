"""A caffemodel of a fork that uses fields of BVLC Caffe's LayerParameter for something else."""

from pycaffe_compat.proto import caffe_pb2, parse_text, wire

LAYERS = """
layer { name: "conv" type: "Convolution" convolution_param { num_output: 2 }
        blobs { shape { dim: 2 } data: 1 data: 2 diff: 3 diff: 4 } }
layer { name: "loss" type: "SmoothL1Loss" loss_weight: 2 }
layer { name: "ip" type: "InnerProduct" blobs { shape { dim: 1 } double_data: 0.1 } }
layer { name: "write" type: "MatWrite" }
"""


def message(number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return wire.header(number, len(body)) + body


def fork_model() -> bytes:
    """148 is smooth_l1_loss_param {sigma}, where clip_param requires min and max; 145 a string, not parameter_param."""
    sigma = message(148, b"\x0d\x00\x00\x40\x40")
    extra = {"loss": sigma, "write": message(145, b"out/mat\xff")}
    net = parse_text(LAYERS, caffe_pb2.NetParameter)
    layers = [message(100, layer.SerializeToString(), extra.get(layer.name, b"")) for layer in net.layer]
    return message(1, b"fork") + b"".join(layers)
