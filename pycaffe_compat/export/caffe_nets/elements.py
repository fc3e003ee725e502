"""Products, normalisation, activations, arithmetic."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...tables import dims
from .conversion import Blob, Conversion, converts


@converts("linear.default")
def linear(c: Conversion, a: SimpleNamespace) -> Blob:
    return _product(c, a.input, a.weight, a.bias)


@converts("addmm.default")
def addmm(c: Conversion, a: SimpleNamespace) -> Blob:
    if a.beta != 1 or a.alpha != 1 or not isinstance(a.mat2, Tensor):
        raise c.unsaid("no layer computes addmm with factors")
    return _product(c, a.mat1, a.mat2.t(), getattr(a, "self"))  # noqa: B009


@converts("mm.default", "matmul.default")
def matmul(c: Conversion, a: SimpleNamespace) -> Blob:
    other = a.mat2 if hasattr(a, "mat2") else a.other
    if not isinstance(other, Tensor) or other.dim() != 2:
        raise c.unsaid("multiplies two matrices that depend on the input; no layer does")
    return _product(c, a.self, other.t(), None)


def _product(c: Conversion, x: Any, weight: Any, bias: Any) -> Blob:
    if not isinstance(x, Blob) or not isinstance(weight, Tensor) or isinstance(bias, Blob):
        raise c.unsaid("its weights are computed from the input")
    axis = len(x.shape) - 1
    if not axis:
        raise c.unsaid("its input has no batch axis")
    options = {
        "num_output": weight.shape[0],
        "axis": None if axis == 1 else axis,
        "bias_term": None if bias is not None else False,
    }
    return c.layer("InnerProduct", [c.unflattened(x)], {"inner_product_param": options}, [weight, bias])  # type: ignore[no-any-return]


@converts("embedding.default")
def embedding(c: Conversion, a: SimpleNamespace) -> Blob:
    rows, size = a.weight.shape
    options = {"input_dim": rows, "num_output": size, "bias_term": False}
    return c.layer("Embed", [a.indices], {"embed_param": options}, [a.weight])  # type: ignore[no-any-return]


@converts("_native_batch_norm_legit_no_training.default")
def batch_norm(c: Conversion, a: SimpleNamespace) -> Any:
    """BatchNorm, and Scale for its weight and bias."""
    mean, variance = a.running_mean, a.running_var
    options = _norm_options(a.eps)
    x = c.layer("BatchNorm", [a.input], {"batch_norm_param": options}, [mean, variance, torch.ones(1)])
    return _scaled(c, x, a.weight, a.bias), None, None


@converts("_native_batch_norm_legit.no_stats")
def batch_norm_of_batch(c: Conversion, a: SimpleNamespace) -> Any:
    """BatchNorm by the statistics of the batch, in evaluation too."""
    channels = a.input.shape[1]
    options = {"use_global_stats": False, **_norm_options(a.eps)}
    blobs = [torch.zeros(channels), torch.ones(channels), torch.ones(1)]
    return (
        _scaled(c, c.layer("BatchNorm", [a.input], {"batch_norm_param": options}, blobs), a.weight, a.bias),
        None,
        None,
    )


@converts("batch_norm.default")
def any_batch_norm(c: Conversion, a: SimpleNamespace) -> Blob:
    made = (batch_norm_of_batch if a.training else batch_norm)(c, a)[0]
    return made  # type: ignore[no-any-return]


def _norm_options(eps: float) -> dict[str, Any]:
    return {"eps": None if math.isclose(eps, 1e-5) else eps}


def _scaled(c: Conversion, x: Blob, weight: Tensor | None, bias: Tensor | None) -> Blob:
    if weight is None and bias is None:
        return x
    factor = torch.ones_like(bias) if weight is None else weight  # type: ignore[arg-type]
    options = {"bias_term": True if bias is not None else None}
    made: Blob = c.layer("Scale", [c.part(x)], {"scale_param": options}, [factor, bias], what="scale")
    return made


@converts("local_response_norm.default")
def lrn(c: Conversion, a: SimpleNamespace) -> Blob:
    if len(a.input.shape) != 4 or a.size % 2 == 0:
        raise c.unsaid(f"size {a.size} of {len(a.input.shape)} axes; LRN takes odd sizes, and 4 axes")
    options = {"local_size": a.size, "alpha": a.alpha, "beta": a.beta, "k": None if a.k == 1 else a.k}
    return c.layer("LRN", [a.input], {"lrn_param": options})  # type: ignore[no-any-return]


@converts("softmax.int", "_softmax.default")
def softmax(c: Conversion, a: SimpleNamespace) -> Blob:
    return _softmax(c, a)


def _softmax(c: Conversion, a: SimpleNamespace, what: str = "") -> Blob:
    axis = a.dim % len(c.shape)
    return c.layer("Softmax", [a.self], {"softmax_param": {"axis": None if axis == 1 else axis}}, what=what)  # type: ignore[no-any-return]


@converts("log_softmax.int", "_log_softmax.default")
def log_softmax(c: Conversion, a: SimpleNamespace) -> Blob:
    made = _softmax(c, a, "softmax")
    return c.layer("Log", [made], what="log")  # type: ignore[no-any-return]


def plain(kind: str, *operators: str) -> None:
    """Enter operators that are one layer without options."""

    @converts(*operators)
    def convert(c: Conversion, a: SimpleNamespace) -> Blob:
        return c.layer(kind, [a.input if hasattr(a, "input") else a.self])  # type: ignore[no-any-return]


plain("ReLU", "relu.default")
plain("Sigmoid", "sigmoid.default")
plain("TanH", "tanh.default")
plain("AbsVal", "abs.default")
plain("Exp", "exp.default")
plain("Log", "log.default")
plain("Swish", "silu.default")


@converts("leaky_relu.default")
def leaky_relu(c: Conversion, a: SimpleNamespace) -> Blob:
    return c.layer("ReLU", [a.self], {"relu_param": {"negative_slope": a.negative_slope}})  # type: ignore[no-any-return]


@converts("prelu.default", "_prelu_kernel.default")
def prelu(c: Conversion, a: SimpleNamespace) -> Blob:
    weight = a.weight.reshape(-1)
    shared = {"channel_shared": True} if len(weight) == 1 else {}
    return c.layer("PReLU", [a.self], {"prelu_param": shared}, [weight[0] if shared else weight])  # type: ignore[no-any-return]


@converts("elu.default")
def elu(c: Conversion, a: SimpleNamespace) -> Blob:
    if a.scale != 1 or a.input_scale != 1:
        raise c.unsaid("SELU's scale; Caffe's ELU has only alpha")
    return c.layer("ELU", [a.self], {"elu_param": {"alpha": None if a.alpha == 1 else a.alpha}})  # type: ignore[no-any-return]


@converts("selu.default")
def selu(c: Conversion, a: SimpleNamespace) -> Blob:
    """Klambauer et al. 2017: an ELU, scaled."""
    bent = c.layer("ELU", [a.self], {"elu_param": {"alpha": 1.6732632423543772}}, what="elu")
    return _power(c, bent, scale=1.0507009873554805, what="scale")


@converts("softplus.default")
def softplus(c: Conversion, a: SimpleNamespace) -> Blob:
    if a.beta == 1:
        return c.layer("BNLL", [a.self])  # type: ignore[no-any-return]
    y = c.layer("BNLL", [_power(c, a.self, scale=a.beta, what="steeper")], what="bnll")
    return _power(c, y, scale=1 / a.beta, what="back")


@converts("log_sigmoid.default")
def log_sigmoid(c: Conversion, a: SimpleNamespace) -> Blob:
    y = c.layer("BNLL", [_power(c, a.self, scale=-1, what="mirror")], what="bnll")
    return _power(c, y, scale=-1, what="back")


@converts("mish.default")
def mish(c: Conversion, a: SimpleNamespace) -> Blob:
    """Misra 2019: ``x`` times the tanh of its softplus."""
    gate = c.layer("TanH", [c.layer("BNLL", [a.self], what="bnll")], what="tanh")
    return c.layer("Eltwise", [a.self, gate], {"eltwise_param": {"operation": "PROD"}})  # type: ignore[no-any-return]


@converts("hardtanh.default", "relu6.default", "clamp.default")
def clamp(c: Conversion, a: SimpleNamespace) -> Blob:
    low = getattr(a, "min", getattr(a, "min_val", 0))
    high = getattr(a, "max", getattr(a, "max_val", 6))
    if low is None or high is None:
        raise c.unsaid("clamps on one side; Clip needs min and max")
    return c.layer("Clip", [a.self], {"clip_param": {"min": float(low), "max": float(high)}})  # type: ignore[no-any-return]


@converts("clone.default", "dropout.default", "contiguous.default", "alias.default", "detach.default", "to.dtype")
def same(c: Conversion, a: SimpleNamespace) -> Blob:
    """Nothing, or the Dropout that was there when the module was trained."""
    x = a.self if hasattr(a, "self") else a.input
    if hasattr(a, "p"):
        ratio = a.p
    elif c.kind.rsplit(".", 1)[-1] == "Dropout" and c.graph.module is not None:
        ratio = getattr(c.graph.module.get_submodule(c.path), "p", 0.5)
    else:
        return x  # type: ignore[no-any-return]
    return c.layer("Dropout", [x], {"dropout_param": {"dropout_ratio": None if ratio == 0.5 else ratio}})  # type: ignore[no-any-return]


@converts("hardsigmoid.default")
def hard_sigmoid(c: Conversion, a: SimpleNamespace) -> Blob:
    """``x / 6 + 1 / 2`` between 0 and 1."""
    line = _power(c, a.self, scale=1 / 6, shift=0.5, what="line")
    return c.layer("Clip", [line], {"clip_param": {"min": 0.0, "max": 1.0}}, what="clip")  # type: ignore[no-any-return]


@converts("hardswish.default")
def hard_swish(c: Conversion, a: SimpleNamespace) -> Blob:
    gate = hard_sigmoid(c, a)
    return c.layer("Eltwise", [a.self, gate], {"eltwise_param": {"operation": "PROD"}})  # type: ignore[no-any-return]


def _power(c: Conversion, x: Blob, power: float = 1, scale: float = 1, shift: float = 0, what: str = "") -> Blob:
    options = {
        "power": None if power == 1 else power,
        "scale": None if scale == 1 else scale,
        "shift": None if shift == 0 else shift,
    }
    return c.layer("Power", [x], {"power_param": options}, shape=x.shape, what=what)  # type: ignore[no-any-return]


@converts("pow.Tensor_Scalar")
def power(c: Conversion, a: SimpleNamespace) -> Blob:
    return _power(c, a.self, float(a.exponent))


@converts("square.default")
def square(c: Conversion, a: SimpleNamespace) -> Blob:
    return _power(c, a.self, 2)


@converts("sqrt.default")
def root(c: Conversion, a: SimpleNamespace) -> Blob:
    return _power(c, a.self, 0.5)


@converts("neg.default")
def negative(c: Conversion, a: SimpleNamespace) -> Blob:
    return _power(c, a.self, scale=-1)


@converts("add.Tensor", "add.Scalar")
def add(c: Conversion, a: SimpleNamespace) -> Blob:
    return _sum(c, a.self, a.other, 1, a.alpha)


@converts("sub.Tensor", "sub.Scalar")
def subtract(c: Conversion, a: SimpleNamespace) -> Blob:
    return _sum(c, a.self, a.other, 1, -a.alpha)


@converts("rsub.Scalar", "rsub.Tensor")
def subtract_from(c: Conversion, a: SimpleNamespace) -> Blob:
    return _sum(c, a.self, a.other, -a.alpha, 1)


def _sum(c: Conversion, x: Any, y: Any, by_x: float, by_y: float) -> Blob:
    if not isinstance(x, Blob):
        x, y, by_x, by_y = y, x, by_y, by_x
    if isinstance(y, Blob):
        if x.shape != y.shape:
            factors = [each if by == 1 else c.part(_power(c, each, scale=by)) for each, by in ((x, by_x), (y, by_y))]
            return _spread(c, "Bias", *factors)
        coeffs = None if (by_x, by_y) == (1, 1) else [float(by_x), float(by_y)]
        return c.layer("Eltwise", [x, y], {"eltwise_param": {"coeff": coeffs}})  # type: ignore[no-any-return]
    if isinstance(y, Tensor) and y.numel() > 1:
        if by_x != 1:
            x = c.part(_power(c, x, scale=by_x))
        axis, blob = _axes(c, x, y * by_y)
        options = {"axis": None if axis == 1 else axis, "num_axes": None if blob.dim() == 1 else blob.dim()}
        return c.layer("Bias", [x], {"bias_param": options}, [blob])  # type: ignore[no-any-return]
    return _power(c, x, scale=by_x, shift=by_y * c.number(y, "what it adds"))


@converts("mul.Tensor", "mul.Scalar")
def multiply(c: Conversion, a: SimpleNamespace) -> Blob:
    x, y = (a.self, a.other) if isinstance(a.self, Blob) else (a.other, a.self)
    if isinstance(y, Blob):
        if x.shape == y.shape:
            return c.layer("Eltwise", [x, y], {"eltwise_param": {"operation": "PROD"}})  # type: ignore[no-any-return]
        return _spread(c, "Scale", x, y)
    if isinstance(y, Tensor) and y.numel() > 1:
        axis, blob = _axes(c, x, y)
        options = {"axis": None if axis == 1 else axis, "num_axes": None if blob.dim() == 1 else blob.dim()}
        return c.layer("Scale", [x], {"scale_param": options}, [blob])  # type: ignore[no-any-return]
    return _power(c, x, scale=c.number(y, "what it multiplies by"))


def _spread(c: Conversion, kind: str, x: Blob, y: Blob) -> Blob:
    """A product (Scale) or sum (Bias) with one number for each channel of each image, the second bottom."""
    if math.prod(x.shape) < math.prod(y.shape):
        x, y = y, x
    lead = next((i for i, (m, n) in enumerate(zip(x.shape, y.shape, strict=False)) if m != n), len(y.shape))
    if len(x.shape) != len(y.shape) or c.shape != x.shape or any(n != 1 for n in y.shape[lead:]) or not lead:
        raise c.unsaid(f"combines {c.said(x.shape)} and {c.said(y.shape)}, which no Caffe layer broadcasts")
    if lead < len(y.shape):
        flat = {"shape": {"dim": [0] * lead}}
        y = c.layer("Reshape", [y], {"reshape_param": flat}, shape=y.shape[:lead], what="spread")
    return c.layer(kind, [x, y], {f"{kind.lower()}_param": {"axis": 0}})  # type: ignore[no-any-return]


@converts("div.Tensor", "div.Scalar")
def divide(c: Conversion, a: SimpleNamespace) -> Blob:
    if isinstance(a.other, Blob):
        raise c.unsaid("divides by a value that depends on the input; no layer does")
    if isinstance(a.other, Tensor) and a.other.numel() > 1:
        return multiply(c, SimpleNamespace(self=a.self, other=1 / a.other))
    return _power(c, a.self, scale=1 / c.number(a.other, "what it divides by"))


@converts("maximum.default", "max.other")
def maximum(c: Conversion, a: SimpleNamespace) -> Blob:
    x, y = a.self, a.other
    if not isinstance(x, Blob) or not isinstance(y, Blob) or x.shape != y.shape:
        raise c.unsaid("takes the maximum of something other than two values of the same shape")
    return c.layer("Eltwise", [x, y], {"eltwise_param": {"operation": "MAX"}})  # type: ignore[no-any-return]


def _axes(c: Conversion, x: Blob, value: Tensor) -> tuple[int, Tensor]:
    """The first axis that a constant covers, and the constant without its axes of length 1 at both ends."""
    shape = list(value.shape)
    if len(shape) > len(x.shape):
        raise c.unsaid(f"combines {c.said(x.shape)} with a constant of {dims(shape)}")
    axis = len(x.shape) - len(shape)
    while shape and shape[0] == 1:
        shape, axis = shape[1:], axis + 1
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    if list(x.shape[axis : axis + len(shape)]) != shape or not axis:
        raise c.unsaid(
            f"combines {c.said(x.shape)} with a constant of {dims(value.shape)}, which no Caffe layer broadcasts"
        )
    return axis, value.reshape(shape)
