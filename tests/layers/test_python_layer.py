"""Python layers: in the module net and in the pycaffe interface, allowed and not, gradients, parameters, errors."""

import sys

import golden_layer as gl
import numpy as np
import pytest
import torch
import warm_start

import pycaffe_compat
from pycaffe_compat.errors import LayerError
from pycaffe_compat.layers import python_layer
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2, parse_text

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } } '


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    """Python layers may run; nothing of that is left behind."""
    monkeypatch.delenv(python_layer.VARIABLE, raising=False)
    monkeypatch.setattr(python_layer, "_allowed", False)
    python_layer.allow()


def python(layer, bottoms="x", tops="y", param_str="", name="", more=""):
    blobs = "".join(f'bottom: "{b}" ' for b in bottoms.split()) + "".join(f'top: "{t}" ' for t in tops.split())
    return (
        f'layer {{ name: "{name or layer}" type: "Python" {blobs} {more} '
        f'python_param {{ module: "user_layers" layer: "{layer}" param_str: \'{param_str}\' '
        "share_in_parallel: true } } "
    )


def net_of(text, phase="TRAIN", **options):
    return Net(parse_text(text, caffe_pb2.NetParameter), phase, **options)


def face_of(tmp_path, text, phase=pycaffe_compat.TRAIN):
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    return pycaffe_compat.Net(str(path), phase)


def test_not_allowed_unless_asked_for(monkeypatch):
    python_layer.allow(False)
    text = INPUT + python("Times", param_str="2")
    with pytest.raises(
        LayerError, match=r'"Times" \(Python\): runs the Python class user_layers.Times.*=1 .*allow\(\)'
    ):
        net_of(text)
    monkeypatch.setenv(python_layer.VARIABLE, "0")
    with pytest.raises(LayerError):
        net_of(text)
    monkeypatch.setenv(python_layer.VARIABLE, "1")
    net_of(text)


def test_refusal_runs_nothing(tmp_path):
    """The module is not even imported."""
    (tmp_path / "harm.py").write_text("raise SystemExit('was imported')")
    param = 'layer { name: "p" type: "Python" python_param { module: "harm" layer: "Layer" } }'
    code = (
        f"from pycaffe_compat.proto import caffe_pb2, parse_text; from pycaffe_compat.net import Net\n"
        f"try: Net(parse_text('''{param}''', caffe_pb2.NetParameter), 'TEST')\n"
        f"except Exception as error: print(type(error).__name__)"
    )
    done = warm_start.run("-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "LayerError", done.stderr


def test_forward_and_backward_in_the_module():
    net = net_of(INPUT + python("Times", "x", "a", "10") + python("Times", "a", "y", "3", name="second"))
    x = torch.randn(5, 3, requires_grad=True)
    y = net(x)["y"]
    torch.testing.assert_close(y, 30 * x)
    y.backward(torch.full_like(y, 2))
    torch.testing.assert_close(x.grad, torch.full_like(x, 60))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_loss_gradients_of_every_type(dtype):
    net = net_of(
        INPUT
        + INPUT.replace("in", "in2", 1).replace('"x"', '"t"')
        + python("Euclidean", "x t", "l", more="loss_weight: 0.5")
    )
    x, t = (torch.randn(2, 3).to(dtype).requires_grad_() for _ in range(2))
    objective, outputs = net.to(dtype).objective(x=x, t=t)
    assert outputs["l"].shape == (1,) and outputs["l"].dtype == dtype
    objective.backward()
    torch.testing.assert_close(outputs["l"][0].float(), ((x - t).float() ** 2).sum() / 4, atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(x.grad, ((x - t).float() / 4).to(dtype).detach())
    torch.testing.assert_close(t.grad, -x.grad)
    if dtype == torch.float64:
        assert torch.autograd.gradcheck(lambda x, t: net(x=x, t=t)["l"], (x, t))


def test_gradients_that_forward_wrote_are_there_in_backward(tmp_path):
    text = INPUT + python("GradientInForward", tops="l", more="loss_weight: 1")
    net = net_of(text)
    x = torch.randn(2, 3, requires_grad=True)
    net.objective(x=x)[0].backward()
    torch.testing.assert_close(x.grad, x.detach() - 2)
    torch.testing.assert_close(net.layers["GradientInForward"].blob(0).grad, -(x.detach() - 2).sum()[None])
    face = face_of(tmp_path, "force_backward: true " + text)
    for value in (5, 3):
        face.blobs["x"].data[...] = value
        face.forward()
        face.backward()
        np.testing.assert_array_equal(face.blobs["x"].diff, np.full((2, 3), value - 2))


def test_propagate_down_is_what_is_asked_for():
    net = net_of(INPUT + INPUT.replace("in", "in2", 1).replace('"x"', '"t"') + python("Euclidean", "x t", "l"))
    layer = net.layers["Euclidean"]
    x, t = torch.randn(2, 3), torch.randn(2, 3, requires_grad=True)
    net(x=x, t=t)["l"].backward(torch.ones(1))
    torch.testing.assert_close(t.grad, (t.detach() - x) / 2)
    assert not layer.bottom_blobs[0].diff.any()


def test_parameters_learn_and_are_filled_loaded_and_saved(tmp_path):
    net = net_of(INPUT + python("Affine"))
    assert [tuple(p.shape) for p in net.parameters()] == [(1,), (1,)]
    assert sorted(net.state_dict()) == ["Affine.blob0", "Affine.blob1"]
    weight, bias = net.layers["Affine"].blobs
    assert weight.item() == 3 and bias.item() == 0
    x = torch.randn(4, 3, requires_grad=True)
    for passes in (1, 2):  # gradients of several passes add up
        x.grad = None
        y = net(x)["y"]
        torch.testing.assert_close(y, 3 * x)
        y.sum().backward()
        torch.testing.assert_close(weight.grad, x.detach().sum()[None] * passes)
        torch.testing.assert_close(bias.grad, torch.tensor([12.0]) * passes)
        torch.testing.assert_close(x.grad, torch.full_like(x, 3))
    with torch.no_grad():
        weight.fill_(5)
    torch.testing.assert_close(net(x)["y"], 5 * x)
    path = tmp_path / "w.caffemodel"
    net.save(path)
    again = net_of(INPUT + python("Affine"), weights=str(path))
    assert again.layers["Affine"].blobs[0].item() == 5


def test_gradients_of_an_older_pass():
    """Backward sees the bottoms of its own forward, though another pass came between."""
    net = net_of(INPUT + python("Affine"))
    x = torch.randn(2, 3)
    y = net(x)["y"]
    net(torch.randn(2, 3))
    y.sum().backward()
    torch.testing.assert_close(net.layers["Affine"].blobs[0].grad, x.sum()[None])


def test_in_place():
    text = INPUT + python("Times", "x", "y", "4") + python("Halve", "y", "y")
    x = torch.randn(2, 3, requires_grad=True)
    y = net_of(text)(x)["y"]
    torch.testing.assert_close(y, 2 * x)
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 2))
    direct = gl.build(
        'type: "Python" bottom: "x" top: "x" python_param { module: "user_layers" layer: "Halve" }', (2, 3)
    )
    kept = x.detach().clone()
    direct(x)
    assert torch.equal(x, kept)


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_data_layer_makes_a_new_batch_each_pass(phase):
    net = net_of(python("Counter", "", "data phase", '{"a": 1}') + python("Times", "data", "y", "2"), phase)
    assert net.blob_shapes["data"] == (1, 2) and net.blob_shapes["phase"] == ()
    for i in range(3):
        outputs = net()
        assert torch.equal(outputs["y"], torch.full((1 + i, 2), 2.0 * i))
        assert outputs["phase"].item() == caffe_pb2.Phase.Value(phase)
    assert net.layers["Counter"].python.options == {"a": 1}
    assert str(net.layers["Counter"].python.phase) == phase  # what Faster R-CNN's ProposalLayer reads


def test_a_layer_without_tops_writes_its_blobs():
    net = net_of(INPUT + python("Keeper", tops=""))
    x = torch.randn(2, 3)
    assert net(x) == {}
    torch.testing.assert_close(net.layers["Keeper"].blobs[0], x, check_device=False)


def test_reshape_of_the_net_calls_the_layers():
    net = net_of(INPUT + python("Times", param_str="2"))
    net.reshape({"x": (7, 3)})
    assert net.blob_shapes["y"] == (7, 3)


def test_numpy_face(tmp_path):
    """What pycaffe's own tests of Python layers do."""
    text = 'force_backward: true input: "data" input_shape { dim: 10 dim: 9 dim: 8 } ' + "".join(
        python("Times", b, t, "10", name=t) for b, t in (("data", "one"), ("one", "two"), ("two", "three"))
    )
    net = face_of(tmp_path, text)
    net.blobs["data"].data[...] = 8
    net.forward()
    assert (net.blobs["three"].data == 8000).all()
    net.blobs["three"].diff[...] = 7
    net.backward()
    assert (net.blobs["data"].diff == 7000).all()
    net.blobs["data"].reshape(4, 4, 4, 4)
    net.forward()
    assert all(blob.data.shape == (4, 4, 4, 4) for blob in net.blobs.values())


def test_numpy_face_parameters(tmp_path):
    net = face_of(tmp_path, "force_backward: true " + INPUT + python("Affine"))
    net.blobs["x"].data[...] = 2
    net.forward()
    assert (net.blobs["y"].data == 6).all()
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert net.params["Affine"][0].diff[0] == 12 and net.params["Affine"][1].diff[0] == 6
    net.params["Affine"][0].data[...] = 7
    net.forward()
    assert (net.blobs["y"].data == 14).all()


@pytest.mark.parametrize(
    "kind, also", [("RuntimeError", RuntimeError), ("KeyError", KeyError), ("Unicode", ValueError)]
)
@pytest.mark.parametrize("method", ["setup", "reshape", "forward", "backward"])
def test_an_error_of_the_layer_names_it_and_keeps_its_traceback(kind, also, method):
    def run():
        net = net_of(INPUT + python("Raises", param_str=f"{method} {kind}"))
        net(torch.ones(2, 3, requires_grad=True))["y"].sum().backward()

    with pytest.raises(LayerError) as caught:
        run()
    assert isinstance(caught.value, also)
    message = str(caught.value)
    assert f'layer "Raises" (Python): {method} of user_layers.Raises failed' in message
    assert f"broken {method}" in message and "user_layers.py" in message and f'self._maybe("{method}")' in message
    assert isinstance(caught.value.__cause__, also)


@pytest.mark.parametrize(
    "old, new", [("yaml", r"yaml.load\(text\) is yaml.safe_load\(text\)"), ("xrange", "in Python 3, xrange is range")]
)
def test_an_error_of_code_for_python_2_says_what_it_is_today(old, new):
    with pytest.raises(LayerError, match=new):
        net_of(INPUT + python("OfPython2", param_str=old))


def test_no_backward_where_one_is_needed():
    net = net_of(INPUT + python("ForwardOnly"))
    net(torch.ones(2, 3))
    with pytest.raises(LayerError, match="ForwardOnly has no backward"):
        net(torch.ones(2, 3, requires_grad=True))["y"].sum().backward()


@pytest.mark.parametrize(
    "param, message",
    [
        ("", "needs python_param { module: … layer: … }"),
        ('module: "user_layers"', "needs python_param"),
        ('module: "layers/mine.py" layer: "A"', 'layers/mine.py is a path; give only its name, module: "mine"'),
        ('module: "no_such_module" layer: "A"', "no module named no_such_module; .* PYTHONPATH"),
        ('module: "user_layers" layer: "Tims"', r"has no class Tims \(did you mean Times"),
        ('module: "user_layers" layer: "NoLayer"', "not a subclass of pycaffe_compat.Layer"),
        ('module: "user_layers" layer: "np"', "not a subclass of pycaffe_compat.Layer"),
        ('module: "os" layer: "system"', "not a subclass of pycaffe_compat.Layer"),
        ('module: "wants_caffe" layer: "A"', "no module named caffe; run the program with python -m pycaffe_compat"),
        (
            'module: "no_such.module" layer: "A"',
            "no module named no_such; the folder of the module must be in PYTHONPATH",
        ),
        (
            'module: "lacks_one" layer: "A"',
            r"no module named no_such_yaml; .*lacks_one\.py imports it: install it, or add",
        ),
        (
            'module: "package.implicit" layer: "A"',
            r"in the folder of .*implicit\.py, which must import it as \.sibling in Python 3",
        ),
        ('module: "is_old" layer: "A"', r"(?s)importing is_old \(is it for Python 2\?\) failed: .*SyntaxError"),
        ('module: "is_broken" layer: "A"', "(?s)importing is_broken failed: ZeroDivisionError.*1 / 0"),
    ],
)
def test_bad_modules_and_classes(param, message, tmp_path, monkeypatch):
    (tmp_path / "wants_caffe.py").write_text("import caffe\n")
    (tmp_path / "lacks_one.py").write_text("import no_such_yaml\n")
    (tmp_path / "is_old.py").write_text("print 'old'\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "implicit.py").write_text("from sibling import A\n")
    (tmp_path / "package" / "sibling.py").write_text("")
    (tmp_path / "is_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "caffe", raising=False)
    with pytest.raises(LayerError, match=message):
        gl.build(f'type: "Python" python_param {{ {param} }}', (2, 3))


def test_blob_shapes():
    blob = python_layer.Blob((2, 3))
    blob.data[...] = np.arange(6).reshape(2, 3)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 3, 1, 1, 6)
    blob.reshape(3, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3], [4, 5]] and blob.diff.shape == (3, 2)
    blob.reshape(1)
    assert blob.data.tolist() == [0]
    blob.reshape()
    assert blob.data.shape == () and blob.count == 1
    with pytest.raises(ValueError, match="cannot have shape"):
        blob.reshape(-1, 2)


def test_python_filler_is_not_for_files():
    with pytest.raises(LayerError, match='unknown filler "python"'):
        gl.build('type: "InnerProduct" inner_product_param { num_output: 1 weight_filler { type: "python" } }', (2, 3))


def test_a_top_is_written_to_and_not_replaced(tmp_path):
    text = INPUT + python("Assigns", param_str="2")
    message = (
        r"forward of user_layers.Assigns failed: TypeError: \[0\] = … would replace the blob; .*\.data\[\.\.\.\] = …"
    )
    with pytest.raises(LayerError, match=message) as caught:
        net_of(text)(torch.ones(2, 3))
    assert isinstance(caught.value, TypeError)
    face = face_of(tmp_path, text)
    with pytest.raises(LayerError, match=message):
        face.forward()


@pytest.mark.parametrize("name, lacking", [("NoReshape", "reshape"), ("Empty", "reshape and no forward")])
def test_a_class_without_its_methods_is_refused(name, lacking):
    with pytest.raises(
        LayerError, match=rf"the class user_layers\.{name} has no method {lacking}; a Python layer needs"
    ):
        net_of(INPUT + python(name))
