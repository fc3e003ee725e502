"""Modules of PyTorch as nets of Caffe: operators, whole nets as their papers have them, names, and what is refused."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from exported_nets import CLASSIFIER, build_net
from torch import Tensor, nn

from pycaffe_compat.errors import CaffeError, NetError
from pycaffe_compat.export import Normalised, program_to_caffe, to_caffe, to_source
from pycaffe_compat.net import Net
from pycaffe_compat.proto import read_net

EXACT = 1e-5


class Function(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.factor = nn.Parameter(torch.rand(6, 1, 1) + 0.5)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def of(function: Any) -> Function:
    """The module of a function of one value."""
    return Function(lambda self, *inputs: function(*inputs))


def randomised(module: nn.Module) -> nn.Module:
    """The module with statistics and factors that matter."""
    torch.manual_seed(0)
    for each in module.modules():
        if isinstance(each, (nn.BatchNorm2d, nn.BatchNorm1d)) and each.running_mean is not None:
            nn.init.uniform_(each.running_mean, -0.5, 0.5)
            nn.init.uniform_(each.running_var, 0.5, 1.5)
        if isinstance(each, nn.BatchNorm2d) and each.affine:
            nn.init.uniform_(each.weight, 0.5, 1.5)
            nn.init.uniform_(each.bias, -0.5, 0.5)
    return module


def written(module: nn.Module, folder: Path, *shapes: tuple[int, ...]) -> tuple[list[str], Any]:
    """Write a module; return the types of the layers but for Input, and what was found."""
    example = tuple(torch.rand(shape) + 0.1 for shape in shapes)
    found = to_caffe(randomised(module), example, folder / "net.prototxt", folder / "net.caffemodel")
    assert max(each.relative for each in found.differences) <= EXACT
    net = Net(str(folder / "net.prototxt"), "TEST", weights=[str(folder / "net.caffemodel")])
    assert not [n for n, layer in net.layers.items() if layer.blob_specs and n not in net.load_report.loaded]
    with torch.no_grad():
        wanted = module.eval()(*example)
        blobs, _ = net.run(dict(zip(found.inputs, example, strict=True)))
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for name, want in zip(found.outputs, wanted, strict=True):
        assert blobs[name].shape == want.shape == found.outputs[name]
        torch.testing.assert_close(blobs[name], want, rtol=1e-4, atol=1e-5, equal_nan=True)
    return [layer.type for layer in found.net.layer if layer.type != "Input"], found


PLANES = (1, 6, 9, 8)
OPERATORS = [
    (nn.Conv2d(6, 4, 3, stride=2, padding=1), PLANES, ["Convolution"]),
    (
        nn.Conv2d(6, 4, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1), groups=2, bias=False),
        PLANES,
        ["Convolution"],
    ),
    (nn.Conv2d(6, 4, 3, padding="same"), PLANES, ["Convolution"]),
    (nn.Conv1d(6, 4, 3), (1, 6, 9), ["Convolution"]),
    (nn.Conv3d(2, 4, (1, 2, 3)), (1, 2, 4, 5, 6), ["Convolution"]),
    (nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1), PLANES, ["Deconvolution"]),
    (nn.Sequential(nn.ZeroPad2d((1, 1, 2, 2)), nn.Conv2d(6, 4, 3, padding=1)), PLANES, ["Convolution"]),
    (nn.Linear(6, 4), (1, 6), ["InnerProduct"]),
    (nn.Linear(6, 4, bias=False), (1, 3, 6), ["InnerProduct"]),
    (nn.Sequential(nn.Flatten(), nn.Linear(432, 4)), PLANES, ["InnerProduct"]),
    (nn.BatchNorm2d(6, eps=1e-3), PLANES, ["BatchNorm", "Scale"]),
    (nn.BatchNorm2d(6, affine=False), PLANES, ["BatchNorm"]),
    (nn.BatchNorm2d(6, track_running_stats=False), PLANES, ["BatchNorm", "Scale"]),
    (nn.LocalResponseNorm(5, alpha=0.1, k=2.0), PLANES, ["LRN"]),
    (
        nn.Sequential(nn.ReLU(inplace=True), nn.LeakyReLU(0.1), nn.PReLU(6), nn.PReLU()),
        PLANES,
        ["ReLU"] * 2 + ["PReLU"] * 2,
    ),
    (nn.Sequential(nn.ELU(), nn.Sigmoid(), nn.Tanh(), nn.Softplus()), PLANES, ["ELU", "Sigmoid", "TanH", "BNLL"]),
    (nn.Sequential(nn.ReLU6(), nn.SiLU(), nn.Hardtanh(-0.5, 0.4)), PLANES, ["Clip", "Swish", "Clip"]),
    (nn.Hardswish(), PLANES, ["Power", "Clip", "Eltwise"]),
    (nn.Sequential(nn.SELU(), nn.Mish()), PLANES, ["ELU", "Power", "BNLL", "TanH", "Eltwise"]),
    (nn.Sequential(nn.Softplus(2), nn.LogSigmoid()), PLANES, ["Power", "BNLL", "Power"] * 2),
    (nn.Sequential(nn.ChannelShuffle(3), nn.Identity()), PLANES, ["Reshape", "Permute", "Reshape"]),
    (nn.Sequential(nn.Conv2d(6, 8, 1), nn.PixelShuffle(2)), PLANES, ["Convolution", "Reshape", "Permute", "Reshape"]),
    (
        nn.Sequential(nn.Dropout(0.3), nn.Softmax(dim=1), nn.LogSoftmax(dim=-1)),
        PLANES,
        ["Dropout", "Softmax", "Softmax", "Log"],
    ),
    (nn.MaxPool2d(3, stride=2, ceil_mode=True), PLANES, ["Pooling"]),
    (nn.MaxPool2d(3, stride=2, padding=1), (1, 6, 8, 8), ["Pooling"]),
    (nn.AvgPool2d((3, 2), stride=2, padding=1, ceil_mode=True), PLANES, ["Pooling"]),
    (nn.AdaptiveAvgPool2d(1), PLANES, ["Pooling"]),
    (nn.AdaptiveAvgPool2d((3, 4)), PLANES, ["Pooling"]),
    (nn.AdaptiveMaxPool2d((9, 8)), PLANES, []),
    (nn.UpsamplingNearest2d(scale_factor=2), PLANES, ["Deconvolution"]),
    (of(lambda x: 2 * x.abs() - 1), PLANES, ["AbsVal", "Power", "Power"]),
    (of(lambda x: (1 - x).exp().log() / 3), PLANES, ["Power", "Exp", "Log", "Power"]),
    (of(lambda x: -(x**2).sqrt()), PLANES, ["Power"] * 3),
    (of(lambda x: torch.add(x, x.relu(), alpha=-2) * x), PLANES, ["ReLU", "Eltwise", "Eltwise"]),
    (of(lambda x: torch.maximum(x, 1 - x)), PLANES, ["Power", "Eltwise"]),
    (of(lambda x: x * x.mean((2, 3), keepdim=True)), PLANES, ["Pooling", "Reshape", "Scale"]),
    (of(lambda x: F.adaptive_avg_pool2d(x, 1) + x), PLANES, ["Pooling", "Reshape", "Bias"]),
    (of(lambda x: x - 2 * x.mean((2, 3), keepdim=True)), PLANES, ["Pooling", "Power", "Power", "Reshape", "Bias"]),
    (of(lambda x: (x - 0.5).log().repeat(1, 2, 1, 3)), PLANES, ["Power", "Log", "Tile", "Tile"]),
    (nn.UpsamplingBilinear2d((17, 20)), PLANES, ["Interp"]),
    (of(lambda x: x.mean((2, 3))), PLANES, ["Pooling", "Flatten"]),
    (of(lambda x: x.sum((1, 2, 3))), PLANES, ["Reduction"]),
    (Function(lambda self, x: x * self.factor + self.factor), PLANES, ["Scale", "Bias"]),
    (of(lambda x: torch.cat([x[:, 1:3], x[:, 5:]], 1)), PLANES, ["Slice", "Silence"] * 2 + ["Concat"]),
    (of(lambda x: x[:, 2]), PLANES, ["Slice", "Silence", "Reshape"]),
    (of(lambda x: torch.cat(x.chunk(3, 1)[::-1], 2)), PLANES, ["Slice", "Concat"]),
    (
        of(lambda x: x.view(-1, 2, 3, 9, 8).transpose(1, 2).reshape(-1, 6, 9, 8)),
        PLANES,
        ["Reshape", "Permute", "Reshape"],
    ),
    (of(lambda x: x.permute(0, 2, 3, 1).flatten(1, 2)), PLANES, ["Permute", "Reshape"]),
]


@pytest.mark.parametrize(("module", "shape", "types"), OPERATORS, ids=[f"{i}-{o[2]}" for i, o in enumerate(OPERATORS)])
def test_operators(module, shape, types, tmp_path):
    made, found = written(module, tmp_path, shape)
    assert made == types and {each.batch for each in found.differences} == {1, 2}


class Block(nn.Module):
    """A residual block with a bottleneck."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        few = outputs // 4
        self.conv1, self.bn1 = nn.Conv2d(inputs, few, 1, bias=False), nn.BatchNorm2d(few)
        self.conv2, self.bn2 = nn.Conv2d(few, few, 3, stride, 1, bias=False), nn.BatchNorm2d(few)
        self.conv3, self.bn3 = nn.Conv2d(few, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
        y += x if self.shortcut is None else self.shortcut(x)
        return self.relu(y)


class Fire(nn.Module):
    """SqueezeNet's."""

    def __init__(self, inputs: int, few: int, each: int) -> None:
        super().__init__()
        self.squeeze, self.one, self.three = (
            nn.Conv2d(inputs, few, 1),
            nn.Conv2d(few, each, 1),
            nn.Conv2d(few, each, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class Inception(nn.Module):
    """GoogLeNet's."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = nn.Conv2d(inputs, 4, 1)
        self.branch2 = nn.Sequential(nn.Conv2d(inputs, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1))
        self.branch3 = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(inputs, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x)], 1).relu()


class Squeeze(nn.Module):
    """Squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.up(self.down(F.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()


def conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]


NETS = {
    "vgg": nn.Sequential(
        *conv(3, 4), *conv(4, 4), nn.MaxPool2d(2, 2), *conv(4, 8), nn.MaxPool2d(2, 2), nn.AdaptiveAvgPool2d(8), nn.Flatten(),
        nn.Linear(512, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5),
    ),
    "alexnet": nn.Sequential(
        nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(2, 2), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(),
        nn.Dropout(0.4), nn.Linear(200, 5), nn.Softmax(1),
    ),
    "resnet": nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(True), nn.MaxPool2d(3, 2, 1), Block(8, 16),
        Block(16, 16), Block(16, 24, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    ),
    "squeezenet": nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, ceil_mode=True), Fire(8, 2, 4), Fire(8, 2, 4), nn.Dropout(),
        nn.Conv2d(8, 5, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ),
    "googlenet": nn.Sequential(*conv(3, 8), Inception(8), nn.MaxPool2d(3, 2, ceil_mode=True), Inception(14), Squeeze(14)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_whole_nets(name, tmp_path):
    made, found = written(NETS[name], tmp_path, (1, 3, 32, 32))
    assert ("Flatten" in made) == (name in ("squeezenet", "alexnet"))  # InnerProduct flattens by itself
    names = {layer.name for layer in found.net.layer}
    if name == "resnet":
        assert {"4.conv1", "4.bn1", "4.bn1/scale", "4.relu", "4.shortcut.0", "4/add", "9"} <= names
        assert [note.partition(":")[0] for note in found.notes] == ["3"] and "round_mode: FLOOR" in found.notes[0]
        relu = next(layer for layer in found.net.layer if layer.name == "2")
        assert list(relu.top) == list(relu.bottom) == ["0"]
    else:
        assert not found.notes


def test_a_net_may_take_pictures_as_caffe_reads_them(tmp_path):
    pictures = Normalised((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    module = randomised(NETS["squeezenet"]).eval()
    paths = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    found = to_caffe(module, torch.zeros(1, 3, 32, 32), *paths, pictures=pictures)
    assert [layer.type for layer in found.net.layer][:3] == ["Input", "Scale", "Convolution"]
    rgb = torch.randint(0, 256, (2, 3, 32, 32)).float()
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (pictures.mean, pictures.std))
    with torch.no_grad():
        (have,) = Net(str(paths[0]), "TEST", weights=[str(paths[1])])(data=rgb.flip(1)).values()
        torch.testing.assert_close(have, module((rgb / 255 - mean) / std), rtol=1e-4, atol=1e-5)
    with pytest.raises(NetError, match="reads the image directly; with mean and std, only convolutions may"):
        to_caffe(nn.MaxPool2d(2), torch.zeros(1, 3, 8, 8), *paths, pictures=pictures)
    with pytest.raises(NetError, match="three numbers each, for one input N×3×H×W; its input is N×4×8×8"):
        to_caffe(nn.MaxPool2d(2), torch.zeros(1, 4, 8, 8), *paths, pictures=pictures)


def test_a_value_that_is_read_again_is_not_changed_in_place(tmp_path):
    def twice(x: Tensor) -> tuple[Tensor, ...]:
        y = x + 1
        z = F.dropout(y, training=False)
        return torch.relu(z), z.sigmoid(), y.clone().relu_() + y

    _, found = written(of(twice), tmp_path, PLANES)
    assert len(found.outputs) == 3 and not any(list(each.top) == list(each.bottom) for each in found.net.layer)


def test_several_inputs_keep_their_names(tmp_path):
    _, found = written(Function(lambda self, left, right: left + right), tmp_path, PLANES, PLANES)
    assert len(found.inputs) == 2 and all(shape == PLANES for shape in found.inputs.values())


def test_there_and_back(tmp_path):
    net = build_net(CLASSIFIER)
    to_source(net, tmp_path / "plain.py")
    module = runpy.run_path(str(tmp_path / "plain.py"))["load"]()
    to_caffe(module, torch.zeros(1, 3, 19, 17), tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    again = Net(str(tmp_path / "net.prototxt"), "TEST", weights=[str(tmp_path / "net.caffemodel")])
    assert [layer.type for layer in again.param.layer] == [layer.type for layer in net.param.layer]
    x = torch.randn(3, 3, 19, 17)
    with torch.no_grad():
        torch.testing.assert_close(again(data=x)["prob"], net(data=x)["prob"])


def test_folded_there_and_back_is_a_net_without_batch_normalisation(tmp_path):
    net = build_net(
        'input: "data" input_shape { dim: 1 dim: 3 dim: 9 dim: 9 }'
        'layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4 kernel_size: 3'
        '  bias_term: false weight_filler { type: "xavier" } } }'
        'layer { name: "bn" type: "BatchNorm" bottom: "c" top: "c" }'
        'layer { name: "scale" type: "Scale" bottom: "c" top: "c" scale_param { bias_term: true } }'
    )
    net.layers["bn"].running_mean.copy_(torch.arange(4.0))
    net.layers["bn"].running_var.copy_(torch.arange(1.0, 5.0))
    net.layers["bn"].scale_factor.fill_(2)
    to_source(net, tmp_path / "merged.py", fold=True)
    module = runpy.run_path(str(tmp_path / "merged.py"))["load"]()
    to_caffe(module, torch.zeros(1, 3, 9, 9), tmp_path / "merged.prototxt", tmp_path / "merged.caffemodel")
    merged = Net(str(tmp_path / "merged.prototxt"), "TEST", weights=[str(tmp_path / "merged.caffemodel")])
    assert [layer.type for layer in merged.param.layer] == ["Input", "Convolution"]
    x = torch.randn(2, 3, 9, 9)
    with torch.no_grad():
        torch.testing.assert_close(merged(x)["c"], net(x)["c"])


def test_programs(tmp_path):
    module = randomised(NETS["resnet"]).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "net.pt2")
    found = program_to_caffe(
        tmp_path / "net.pt2", tmp_path / "net.prototxt", tmp_path / "net.caffemodel", name="ResNet"
    )
    assert {each.batch for each in found.differences} == {2, 3} and read_net(
        str(tmp_path / "net.prototxt")
    ).name == "ResNet"
    norm = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LocalResponseNorm(3, 0.02, 0.7, 2.0), nn.Dropout(0.3)).eval()
    torch.export.save(torch.export.export(norm, (x,)), tmp_path / "norm.pt2")
    found = program_to_caffe(tmp_path / "norm.pt2", tmp_path / "norm.prototxt", tmp_path / "norm.caffemodel")
    assert [layer.type for layer in found.net.layer] == ["Input", "Convolution", "LRN", "Dropout"]
    (tmp_path / "no.pt2").write_bytes(b"no program")
    with pytest.raises(CaffeError, match=r"no\.pt2: not a program that torch\.export\.load reads"):
        program_to_caffe(tmp_path / "no.pt2", tmp_path / "a.prototxt", tmp_path / "a.caffemodel")


def test_a_module_of_one_batch_size(tmp_path):
    example = torch.rand(2, 6, 3, 3)
    found = to_caffe(of(lambda x: x.reshape(2, 54)), example, tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    assert found.notes == ["the module is valid only for the batch size of the example"] and len(found.differences) == 1


class Choosing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Unpooling(nn.Module):
    """Pools, and places the maxima where they were."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.pool, self.conv = nn.MaxPool2d(kernel, stride, return_indices=True), nn.Conv2d(6, 6, 1)
        self.unpool = nn.MaxUnpool2d(kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        y, places = self.pool(x)
        return self.unpool(self.conv(y), places, output_size=x.shape[2:])


def test_unpooling_is_depooling_by_switches(tmp_path):
    made, found = written(Unpooling(2, 2), tmp_path, (1, 6, 8, 10))
    assert made == ["Pooling", "Convolution", "Depooling"] and "SWWAE" in found.notes[0]


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return x * self.count


REFUSED = [
    (nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.GELU()), r"1 \(GELU\), 2 \(GELU\): no layer computes gelu"),
    (
        nn.Sequential(nn.Sequential(nn.AdaptiveAvgPool2d((4, 3)))),
        r"0\.0 \(AdaptiveAvgPool2d\): output_size 4×3 of planes of 9×8",
    ),
    (
        nn.AvgPool2d(3, padding=1, count_include_pad=False),
        "count_include_pad=False: Caffe's average counts the padding",
    ),
    (nn.MaxPool2d(3, dilation=2), "dilation 2×2; Caffe's Pooling has none"),
    (nn.Conv2d(6, 4, 2, padding="same"), "padding 'same' of windows of 2×2|pads by"),
    (nn.ConvTranspose2d(6, 4, 3, stride=2, output_padding=1), "output_padding 1×1"),
    (
        nn.Sequential(nn.ZeroPad2d(1), nn.MaxPool2d(2)),
        r"1 \(MaxPool2d\): reads data padded by 1×1; Caffe pads only in convolutions",
    ),
    (nn.ZeroPad2d((1, 0, 1, 0)), r"pads by \(1, 0, 1, 0\); Caffe's convolutions pad with zeros, equally on both sides"),
    (nn.ZeroPad2d(1), "its output data is padded"),
    (Unpooling(3, 2), "windows of 3×3 overlap"),
    (Unpooling(2, 2), "makes planes of 9×8 of those of 9×8; Depooling makes 8×8"),
    (nn.Upsample(scale_factor=2, mode="bilinear"), "bilinear without align_corners"),
    (nn.GroupNorm(2, 6), "no layer computes group_norm"),
    (of(lambda x: x + x[:, :1]), "combines N×6×9×8 and N×1×9×8, which no Caffe layer broadcasts"),
    (of(lambda x: x.argmax(1)), "PyTorch takes the first and Caffe's ArgMax the last"),
    (of(lambda x: x / x.sum(1, keepdim=True)), "reduces axes|divides by a value that depends on the input"),
    (Choosing(), r"Choosing: what it does depends on the values of its input.*test_to_caffe\.py"),
    (Counting(), "Counting: changes count as it runs, which no Caffe net does"),
    (nn.Linear(7, 2), "Linear does not run on inputs of shape 1×6×9×8: mat1 and mat2"),
    (of(lambda x: torch.ones(3)), "its output .* does not depend on its input"),
]


@pytest.mark.parametrize(("module", "message"), REFUSED)
def test_what_no_layer_does_is_named_before_anything_is_written(module, message, tmp_path, capfd):
    with pytest.raises(NetError, match=message):
        to_caffe(module, torch.rand(PLANES), tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    assert not list(tmp_path.iterdir()) and capfd.readouterr() == ("", "")


def test_a_net_that_differs_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr("pycaffe_compat.export.caffe_nets.write.TOLERANCE", -1)
    paths = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    with pytest.raises(CaffeError, match="nothing is written: the net's output relu differs"):
        to_caffe(of(torch.relu), torch.rand(PLANES), *paths)
    assert not list(tmp_path.iterdir())
    assert not to_caffe(of(torch.relu), torch.rand(PLANES), *paths, verify=False).differences


def test_the_module_stays_as_it_is(tmp_path):
    module = nn.Sequential(nn.BatchNorm2d(6), nn.Dropout()).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    to_caffe(module, torch.rand(PLANES), tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    assert module.training and all(p.requires_grad for p in module.parameters())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
