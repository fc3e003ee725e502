"""Nets, solvers and the pycaffe interface on a GPU: what they give on the CPU, as far as cuDNN rounds alike."""

import copy

import cv2
import numpy as np
import pytest
import torch
from google.protobuf import text_format

from pycaffe_compat import pycaffe
from pycaffe_compat.net import Net
from pycaffe_compat.proto import caffe_pb2
from pycaffe_compat.solver.loop import Solver
from pycaffe_compat.solver.runner import GraphRunner

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")

DEMO = "prototxt/demo/swwae_all_deploy.prototxt"
SOLVER = """
base_lr: 0.01 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 max_iter: 10 random_seed: 1 snapshot_prefix: "%s"
test_iter: 2 test_interval: 1000 test_initialization: false
net_param {
  layer {
    name: "data" type: "DummyData" top: "data" top: "label"
    dummy_data_param {
      shape { dim: 8 dim: 3 dim: 20 dim: 20 } shape { dim: 8 }
      data_filler { type: "constant" value: 0.5 } data_filler { type: "constant" value: 1 }
    }
  }
  layer {
    name: "conv" type: "Convolution" bottom: "data" top: "conv"
    convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } }
  }
  layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
  layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: MAX kernel_size: 3 stride: 2 } }
  layer {
    name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
    inner_product_param { num_output: 4 weight_filler { type: "xavier" } }
  }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
}
"""


@pytest.fixture(autouse=True)
def exact():
    """TF32 rounds to 10 bits, which is enough to move a switch."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@pytest.fixture
def demo(repository):
    torch.manual_seed(0)
    net = Net(repository / DEMO, "TRAIN", device="cpu").eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return net


@pytest.fixture
def repository(request):
    return request.config.rootpath


def test_a_net_and_its_gradients(demo):
    batch = {"data": torch.randn(1, 1, 32, 32), "label": torch.ones(1, 1, 1, 1)}
    results = []
    for net in (demo, copy.deepcopy(demo).cuda()):
        objective, _ = net.objective({name: value.to(net.device) for name, value in batch.items()})
        objective.backward()
        assert objective.device == net.device
        results.append((objective, [p.grad for p in net.parameters()]))
    (loss, gradients), (on_gpu, gradients_on_gpu) = results
    torch.testing.assert_close(on_gpu.cpu(), loss, rtol=1e-4, atol=1e-5)
    for have, want in zip(gradients_on_gpu, gradients, strict=True):
        assert (have is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(have.cpu(), want, rtol=1e-3, atol=1e-4 * float(want.abs().max()))


@pytest.mark.parametrize(
    "options",
    (
        {},
        {"channels_last": True},
        {"amp": "bfloat16"},
        {"amp": "bfloat16", "channels_last": False},
        {"amp": "float16"},
        {"cuda_graph": True},
        {"cuda_graph": True, "amp": "float16"},
    ),
    ids=str,
)
def test_a_solver_trains_snapshots_and_goes_on(tmp_path, options):
    param = text_format.Parse(SOLVER % (tmp_path / "net"), caffe_pb2.SolverParameter())
    losses: list[float] = []
    state = ""
    for _ in range(2):
        solver = Solver(param, device="cuda", runner=lambda net: GraphRunner(net, **options))
        if state:
            solver.restore(state)
        solver.step(5)
        losses.append(float(solver.loss))
        _, state = solver.snapshot()
        scores = solver.test(0)
        assert all(np.isfinite(score).all() for score in scores.values())
        solver.close()
    assert losses[1] < losses[0] < 1.5


@pytest.mark.parametrize("iter_size", (1, 3))
def test_replayed_passes_train_as_eager_ones(tmp_path, iter_size):
    """Bit for bit: capturing takes nothing from the random numbers and leaves the parameters alone."""
    losses = []
    for cuda_graph in (False, True):
        param = text_format.Parse(SOLVER % (tmp_path / "net"), caffe_pb2.SolverParameter())
        param.iter_size = iter_size
        solver = Solver(param, device="cuda", runner=lambda net, g=cuda_graph: GraphRunner(net, cuda_graph=g))
        losses.append([])
        for _ in range(6):
            solver.step(1)
            losses[-1].append(float(solver.loss))
        solver.close()
    assert losses[0] == losses[1]


def test_the_numpy_face(repository):
    made = []
    image = np.random.default_rng(0).standard_normal((1, 1, 32, 32)).astype(np.float32)
    try:
        for set_mode in (pycaffe.set_mode_cpu, pycaffe.set_mode_gpu):
            set_mode()
            net = pycaffe.Net(str(repository / DEMO), pycaffe.TEST)
            for i, (_, blobs) in enumerate(net.params.items()):
                for blob in blobs:
                    blob.data[...] = 0.1 * np.random.default_rng(i).standard_normal(blob.data.shape)
            net.blobs["data"].data[...] = image
            out = net.forward()
            net.blobs["dec:data"].diff[...] = 1
            net.backward(start="dec:conv1_1")
            made.append((out, net.blobs["dec:conv1_1"].diff.copy(), net.blobs["conv1_2/pool"].data.copy()))
    finally:
        pycaffe.set_mode_cpu()
    (out, diff, pooled), (out_gpu, diff_gpu, pooled_gpu) = made
    assert np.abs(diff).max() > 0
    np.testing.assert_allclose(pooled_gpu, pooled, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(diff_gpu, diff, rtol=1e-3, atol=1e-4)
    for name in out:
        np.testing.assert_allclose(out_gpu[name], out[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("device_transform", (False, True))
def test_batches_that_are_brought_ahead_are_those_of_the_cpu(tmp_path, device_transform):
    """The copy of the next batch runs beside the work on this one, on a stream of its own."""
    rng = np.random.default_rng(0)
    for i in range(7):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 256, (60, 70, 3), dtype=np.uint8))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/{i}.png {i}\n" for i in range(7)))
    text = f'''layer {{ name: "data" type: "ImageData" top: "data" top: "label"
        transform_param {{ crop_size: 50 mirror: true mean_value: 100.3 scale: 0.017 }}
        image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 16 shuffle: true }} }}'''
    drawn = {}
    for device in ("cpu", "cuda"):
        net = Net(text_format.Parse(text, caffe_pb2.NetParameter()), "TRAIN", device=device)
        net.sources["data"].seed = 3
        net.transform_on_device(device_transform)
        drawn[device] = []
        for _ in range(12):
            batch = net.draw()
            assert all(value.device.type == device for value in batch.values())
            busy = torch.rand(2000, 2000, device=device)
            for _ in range(1 if device == "cpu" else 20):
                busy = busy @ busy
            drawn[device].append({name: value.clone() for name, value in batch.items()})
        assert net.sources["data"].state()["position"] == 12 * 16
        net.close()
    for on_cpu, on_gpu in zip(drawn["cpu"], drawn["cuda"], strict=True):
        assert all(torch.equal(on_cpu[name], on_gpu[name].cpu()) for name in ("data", "label"))
