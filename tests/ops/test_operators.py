"""The operators as PyTorch citizens: opcheck, gradients, compile, export, autocast, vmap, memory, and clear errors."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

from pycaffe_compat import ops
from pycaffe_compat.ops import operators

OVERLAPPING = ((3, 2), (2, 1), (1, 0))
TIGHT = ((2, 2), (2, 2), (0, 0))


def example(window, dtype=torch.float64):
    """``x`` and ``y`` that ask for gradients, switch and place of each window of ``x``, and a gate like ``y``."""
    torch.manual_seed(3)
    x = torch.randn(1, 2, 4, 6, dtype=dtype)
    y, switch = ops.max_pool_switch(x, *window)
    _, index = ops.max_pool_index(x, *window)
    return x.requires_grad_(), torch.randn_like(y).requires_grad_(), switch, index, torch.randn_like(y)


def calls(window):
    """Every operator with arguments: ``name -> (operator, arguments)``, the first tensor first."""
    x, y, switch, index, gate = example(window)
    plane, count = tuple(x.shape[2:]), tuple(y.shape[2:])
    found = {
        "max_pool_switch": (x, *window, count, False),
        "max_pool_switch relu": (x, *window, count, True),
        "max_pool_index": (x, *window, count),
        "pool_switch": (x, switch, *window, None),
        "pool_switch gate": (x, switch, *window, gate),
        "unpool_switch": (y, switch, *window, plane, None),
        "unpool_switch gate": (y, switch, *window, plane, gate),
        "pool_switch_normalized": (x, switch, *window, gate),
        "unpool_switch_normalized": (y, switch, *window, plane, gate),
        "unpool_weights": (switch, *window, plane, torch.float32),
        "pool_fixed": (x, (0, 1), window[1], count, gate),
        "unpool_fixed": (y, (-1, 1), window[1], plane, gate),
        "pool_sum": (x, *window, count, False, None),
        "pool_sum average": (x, *window, count, True, gate),
        "unpool_sum": (y, *window, plane, False, gate),
        "unpool_sum average": (y, *window, plane, True, None),
        "pool_index": (x, index),
        "unpool_index": (y, index, plane),
    }
    return {name: (operators.OPERATORS[name.split()[0]], arguments) for name, arguments in found.items()}


NAMES = list(calls(TIGHT))


def test_every_operator_is_tested():
    assert {name.split()[0] for name in NAMES} == set(operators.OPERATORS)


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(backend, name):
    operator, arguments = calls(OVERLAPPING)[name]
    torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "unpool_weights"])
@pytest.mark.parametrize("window", (TIGHT, OVERLAPPING), ids=("tight", "overlapping"))
def test_gradients(name, window):
    """Of the best backend; the next test says that others have the same."""
    operator, (first, *rest) = calls(window)[name]

    def function(value):
        result = operator(value, *rest)
        return result[0] if isinstance(result, tuple) else result

    assert torch.autograd.gradcheck(function, (first,))
    assert torch.autograd.gradgradcheck(function, (first,))


COMPILED = [name for name in NAMES if "index" not in name and name != "unpool_weights"]


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("window", (TIGHT, OVERLAPPING), ids=("tight", "overlapping"))
def test_every_backend_has_the_same_derivatives(name, window):
    operator, (first, *rest) = calls(window)[name]

    def derivatives():
        result = operator(first, *rest)
        y = result[0] if isinstance(result, tuple) else result
        seed = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape).requires_grad_()
        (dx,) = torch.autograd.grad(y, first, seed, create_graph=True)
        (again,) = torch.autograd.grad(dx.square().sum(), seed)
        return y, dx, again

    want = derivatives()
    with ops.use_backend("torch"):
        assert all(map(torch.equal, derivatives(), want))


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_derivatives_under_torch_func(backend, name):
    operator, (first, *rest) = calls(OVERLAPPING)[name]

    def function(value):
        result = operator(value, *rest)
        return (result[0] if isinstance(result, tuple) else result).square().sum()

    (want,) = torch.autograd.grad(function(first), first)
    first = first.detach()
    assert torch.equal(torch.func.grad(function)(first), want)
    each = torch.func.vmap(torch.func.grad(function))(torch.stack((first, first)))
    assert torch.equal(each, torch.stack((want, want)))
    with pytest.raises(NotImplementedError, match="do not support forward-mode"):
        torch.func.jvp(function, (first,), (first,))


def test_a_second_backward_is_refused_as_usual(backend):
    x = torch.randn(1, 1, 4, 4, requires_grad=True)
    y, _ = ops.max_pool_switch(x, 2, 2, relu=True)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    y, _ = ops.max_pool_switch(x, 2, 2, relu=True)
    with torch.no_grad():
        y.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_whoever_watches_the_calls_sees_the_registered_operator():
    x = torch.randn(2, 3, 6, 8)

    def both(x):
        y, switch = ops.max_pool_switch(x, 2, 2, relu=True)
        return ops.unpool_switch(y, switch, 2, 2)

    nodes = make_fx(both)(x).graph.nodes
    called = {str(node.target) for node in nodes if node.op == "call_function"}
    assert called == {f"pycaffe_compat.{name}.default" for name in ("max_pool_switch", "unpool_switch")} | {
        name for name in called if "getitem" in name
    }
    with torch._subclasses.FakeTensorMode() as mode:
        assert both(mode.from_tensor(x)).shape == x.shape
    assert torch.equal(torch.func.vmap(both)(x[:, None]), both(x)[:, None])


@pytest.mark.parametrize("window", (TIGHT, OVERLAPPING), ids=("tight", "overlapping"))
def test_relu_before_unpooling(backend, window):
    _, y, switch, _, _ = example(window)
    plane = (4, 6)
    for unpool in (ops.unpool_switch, ops.unpool_switch_normalized):
        fused, apart = unpool(y, switch, *window, plane, relu=True), unpool(F.relu(y), switch, *window, plane)
        assert torch.equal(fused, apart)
        seed = torch.randn_like(fused)
        assert torch.equal(*(torch.autograd.grad(u, y, seed)[0] for u in (fused, apart)))
    for unpool in (ops.unpool_sum, ops.unpool_average, ops.unpool_fixed):
        fused, apart = unpool(y, *window, plane, relu=True), unpool(F.relu(y), *window, plane)
        assert torch.equal(fused, apart)
        assert torch.equal(*(torch.autograd.grad(u.square().sum(), y)[0] for u in (fused, apart)))


def test_relu_before_pooling(backend):
    x = torch.randint(-2, 2, (2, 3, 7, 9)).float().requires_grad_()
    fused, switch = ops.max_pool_switch(x, 3, 2, 1, relu=True)
    apart, same_switch = ops.max_pool_switch(F.relu(x), 3, 2, 1)
    assert torch.equal(fused, apart)
    assert torch.equal(switch, same_switch)
    seed = torch.randn_like(fused)
    assert torch.equal(*(torch.autograd.grad(y, x, seed)[0] for y in (fused, apart)))


@pytest.mark.parametrize(("relu", "most"), ((False, 1), (True, 1 + 4)))
def test_backward_keeps_a_byte_a_window_and_never_the_input(relu, most):
    x = torch.randn(4, 8, 32, 32, requires_grad=True)
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        y, _ = ops.max_pool_switch(x, 2, 2, relu=relu)
    assert sum(t.nbytes for t in kept.values()) == most * y.numel()
    assert x.data_ptr() not in kept


class Codec(torch.nn.Module):
    """A convolution, its pooling, and the way back."""

    def __init__(self):
        super().__init__()
        self.up = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.down = torch.nn.ConvTranspose2d(4, 3, 3, padding=1)

    def forward(self, x):
        y, switch = ops.max_pool_switch(self.up(x), 3, 2, relu=True)
        x = ops.unpool_switch_normalized(y, switch, 3, 2, 0, x.shape[2:]) + ops.unpool_average(y, 3, 2, 0, x.shape[2:])
        return self.down(x), ops.switch_to_mask(switch, 3, 2, 0, x.shape[2:])


def test_compile_without_graph_breaks(backend):
    torch.manual_seed(0)
    model = Codec()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for batch, size in ((2, 9), (3, 13)):
        x = torch.randn(batch, 3, size, size)
        want, want_mask = model(x)
        have, mask = compiled(x)
        torch.testing.assert_close(have, want)
        assert torch.equal(mask, want_mask)
        grads = [torch.autograd.grad(y.square().sum(), list(model.parameters())) for y in (have, want)]
        for g, w in zip(*grads, strict=True):
            torch.testing.assert_close(g, w)


def test_export(backend):
    model = Codec().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 9, 9),), dynamic_shapes={"x": {0: batch}})
    x = torch.randn(5, 3, 9, 9)
    torch.testing.assert_close(program.module()(x), model(x))
    targets = {str(node.target) for node in program.graph.nodes}
    assert "pycaffe_compat.max_pool_switch.default" in targets


def test_autocast_leaves_the_type_alone(backend):
    model = Codec()
    with torch.autocast("cpu", torch.bfloat16):
        y, mask = model(torch.randn(2, 3, 9, 9))
        assert ops.pool_sum(torch.randn(1, 1, 4, 4), 2, 2).dtype == torch.float32
    assert y.dtype == torch.bfloat16
    assert mask.dtype == torch.float32
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_vmap(name):
    operator, (first, *rest) = calls(OVERLAPPING)[name]
    if first.is_floating_point():
        first = torch.stack((first.detach(), first.detach() * 2 - 1))
    else:
        first = torch.stack((first, first.flip(0)))
    mapped = torch.vmap(lambda value: operator(value, *rest))(first)
    apart = [operator(value, *rest) for value in first]
    for i, part in enumerate(mapped if isinstance(mapped, tuple) else (mapped,)):
        assert torch.equal(part, torch.stack([a[i] if isinstance(a, tuple) else a for a in apart]))


def test_meta_tensors_have_the_shapes():
    x = torch.empty(2, 3, 7, 9, device="meta")
    y, switch = ops.max_pool_switch(x, 3, 2, 1)
    assert (y.shape, y.device.type, switch.dtype) == ((2, 3, 4, 5), "meta", torch.uint8)
    assert ops.unpool_switch(y, switch, 3, 2, 1).shape == (2, 3, 7, 9)


X = torch.randn(1, 2, 6, 6)
Y, SWITCH = ops.max_pool_switch(X, 2, 2)
WRONG = {
    "kernel_h is 0, but must be positive": lambda: ops.max_pool_switch(X, (0, 2), 2),
    "stride_w is -1, but must be positive": lambda: ops.max_pool_switch(X, 2, (1, -1)),
    "pad_h is 2, but must be at least 0 and smaller than kernel_h, which is 2": lambda: ops.pool_sum(X, 2, 2, 2),
    "pad_w is -1, but": lambda: ops.pool_sum(X, 2, 2, (0, -1)),
    "kernel_h is 9, larger than the input's height 6 plus twice pad_h 1": lambda: ops.max_pool_switch(X, 9, 1, 1),
    "window 2 along the height would start at 6 with no input in it, as the height is 6": lambda: ops.max_pool_switch(
        X, 2, 3, output_size=3
    ),
    "kernel is (1, 2, 3), but must be one integer or two": lambda: ops.max_pool_switch(X, (1, 2, 3), 2),
    "kernel (16, 16) has 256 places, but a byte switch counts at most 255": lambda: ops.max_pool_switch(
        torch.randn(1, 1, 16, 16), 16, 1
    ),
    "x is torch.int64, but must be one of torch.float32": lambda: ops.max_pool_switch(X.long(), 2, 2),
    "x has shape (2, 6, 6), but must have 4 axes": lambda: ops.max_pool_switch(X[0], 2, 2),
    "switch has shape (1, 2, 3, 2), but must have (1, 2, 3, 3)": lambda: ops.unpool_switch(Y, SWITCH[..., :2], 2, 2),
    "switch is torch.int64, but must be torch.uint8": lambda: ops.unpool_switch(Y, SWITCH.long(), 2, 2),
    "switch is on meta, but the first tensor is on cpu": lambda: ops.unpool_switch(Y, SWITCH.to("meta"), 2, 2),
    "the width of the plane is -3, but must be positive": lambda: ops.unpool_switch(Y, SWITCH, 2, 2, 0, (6, -3)),
    "window 2 along the width would start at 4": lambda: ops.unpool_switch(Y, SWITCH, 2, 2, 0, (6, 4)),
    "position (0, 2) is outside the kernel (2, 2)": lambda: ops.unpool_fixed(Y, 2, 2, position=(0, 2)),
    "index[0, 1, 0, 0] is 36, outside the plane of 6x6": lambda: ops.unpool_index(
        Y, torch.tensor([0, 36]).view(1, 2, 1, 1).expand(1, 2, 3, 3), (6, 6)
    ),
    "mask[0, 0, 0, 1] is 0 (GLOBAL), outside its window: kernel (2, 2)": lambda: ops.mask_to_switch(
        torch.zeros(1, 1, 1, 3), 2, 2, 0, (2, 6)
    ),
    "dtype is torch.int32": lambda: ops.unpool_weights(SWITCH, 2, 2, dtype=torch.int32),
    "dtype is 'float', but must be a torch.dtype": lambda: ops.unpool_weights(SWITCH, 2, 2, dtype="float"),
    "kernel is 2.5, but must be one integer or two": lambda: ops.pool_sum(X, 2.5, 2),
    "stride is 'ab', but must be one integer or two": lambda: ops.pool_sum(X, 2, "ab"),
    "output_size is (3.0, 3), but must be one integer or two": lambda: ops.pool_sum(X, 2, 2, output_size=(3.0, 3)),
    "x is a list, but must be a tensor": lambda: ops.pool_average([1.0], 2, 2),
    "switch is a list, but must be a tensor": lambda: ops.unpool_switch(Y, [0], 2, 2),
    "index is torch.uint8, but must be torch.int64": lambda: ops.pool_index(X, SWITCH),
    "switch has shape (1, 1, 3, 3), but must have (1, 2, 3, 3)": lambda: ops.pool_switch(X, SWITCH[:, :1], 2, 2),
}
W = ((2, 2), (2, 2), (0, 0))
UNDERNEATH = torch.ops.pycaffe_compat
WRONG_UNDERNEATH = {
    "gate is torch.float64, but must be torch.float32": lambda: UNDERNEATH.unpool_switch(
        Y, SWITCH, *W, (6, 6), Y.double()
    ),
    "gate has shape (1, 2, 3, 2), but must have (1, 2, 3, 3)": lambda: UNDERNEATH.pool_sum(
        X, *W, (3, 3), True, Y[..., :2]
    ),
    "kernel is (2, 2, 2), but must be one integer or two": lambda: UNDERNEATH.pool_sum(
        X, (2, 2, 2), *W[1:], (3, 3), True, None
    ),
    "pad_h is 2, but must be at least 0 and smaller than kernel_h": lambda: UNDERNEATH.max_pool_switch(
        X, *W[:2], (2, 0), (3, 3), False
    ),
    "pad_w is -1, but": lambda: UNDERNEATH.max_pool_switch(X, *W[:2], (0, -1), (3, 3), False),
    "the number of windows along the width is 0": lambda: UNDERNEATH.pool_sum(X, *W, (3, 0), True, None),
    "window 1 along the height would start at 9": lambda: UNDERNEATH.pool_switch(
        X, SWITCH[:, :, :2], W[0], (9, 2), W[2], None
    ),
    "kernel (16, 16) has 256 places": lambda: UNDERNEATH.unpool_weights(
        SWITCH, (16, 16), (1, 1), (8, 8), (6, 6), torch.float32
    ),
    "stride is (0, 1), but must be positive": lambda: UNDERNEATH.pool_fixed(X, (0, 0), (0, 1), (3, 3), None),
    "all must be positive": lambda: UNDERNEATH.unpool_fixed(Y, (0, 0), (1, 1), (0, 3), None),
    "offset is (0, 0, 0), but must be": lambda: UNDERNEATH.unpool_fixed(Y, (0, 0, 0), (1, 1), (3, 3), None),
}


@pytest.mark.parametrize("message", WRONG | WRONG_UNDERNEATH)
def test_errors_name_the_argument_and_both_values(backend, message):
    with pytest.raises(ops.OperatorError, match=re.escape(message)):
        (WRONG | WRONG_UNDERNEATH)[message]()


# Some of each operator, without those of values, which a compiled graph does not have.
@pytest.mark.parametrize("message", [each for each in WRONG if "index[" not in each and "mask[" not in each][::3])
def test_the_same_errors_while_compiling(message):
    torch.compiler.reset()
    with pytest.raises(ops.OperatorError, match=re.escape(message)):
        torch.compile(WRONG[message], backend="eager")()


def test_the_same_errors_for_fake_tensors():
    with torch._subclasses.FakeTensorMode() as mode:
        y, switch = mode.from_tensor(Y), mode.from_tensor(SWITCH)
        with pytest.raises(ops.OperatorError, match=r"switch has shape \(1, 2, 3, 2\), but must have"):
            UNDERNEATH.unpool_switch(y, switch[..., :2], *W, (6, 6), None)


@pytest.mark.parametrize(("window", "value"), (((2, 2, 0), 4), ((2, 2, 1), 0), ((3, 2, 0), 254)))
def test_a_switch_outside_its_window(backend, window, value):
    y = torch.randn(1, 2, 3, 3)
    switch = torch.full((1, 2, 3, 3), 255, dtype=torch.uint8)
    switch[0, 1, 0, 0] = value
    plane = ops.unpooled_size((3, 3), *window)
    for call in (
        lambda: ops.unpool_switch(y, switch, *window),
        lambda: ops.unpool_switch_normalized(y, switch, *window),
        lambda: ops.unpool_weights(switch, *window),
        lambda: ops.pool_switch(torch.randn(1, 2, *plane), switch, *window),
    ):
        with pytest.raises(ops.OperatorError, match=rf"switch\[0, 1, 0, 0\] is {value}, outside its window"):
            call()
