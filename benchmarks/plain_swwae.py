"""VGG-16 with the paper's SWWAE-all decoder as one would write it in PyTorch: what ours is measured against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
LOSS_WEIGHTS = {"data/scaled": 1e-4, "conv1_2": 1e-12, "conv2_2": 1e-12, "conv3_3": 1e-12, "conv4_3": 1e-10}
SCALE = 0.003921569


class PlainSWWAE(nn.Module):
    """The train net of ``prototxt/swwae_all_train_val.prototxt``.

    Args:
        classes: the number of classes.
        side: of the pictures, a multiple of 32.
    """

    def __init__(self, classes: int = 1000, side: int = 224) -> None:
        super().__init__()
        self.names: list[list[tuple[str, int, int]]] = []  # by stage: name, channels in and out
        channels = 3
        for stage, (depth, width) in enumerate(STAGES, 1):
            layers = []
            for i in range(1, depth + 1):
                layers.append((f"conv{stage}_{i}", channels, width))
                channels = width
            self.names.append(layers)
        self.convs = nn.ModuleDict(
            {name: nn.Conv2d(a, b, 3, padding=1) for stage in self.names for name, a, b in stage}
        )
        self.deconvs = nn.ModuleDict(
            {name: nn.ConvTranspose2d(b, a, 3, padding=1) for stage in self.names for name, a, b in stage}
        )
        self.fc6, self.fc7, self.fc8 = (
            nn.Linear(512 * (side // 32) ** 2, 4096),
            nn.Linear(4096, 4096),
            nn.Linear(4096, classes),
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, data: Tensor, label: Tensor) -> Tensor:
        """Return the objective for images ``(N, 3, side, side)`` and labels ``(N,)``."""
        x, poolings = data, []
        for stage in self.names:
            for name, _, _ in stage:
                x = F.relu(self.convs[name](x))
            x, index = F.max_pool2d(x, 2, 2, return_indices=True)
            poolings.append((x, index))
        scores = self.classify(x)
        objective = x.new_zeros(())
        for number, stage in reversed(list(enumerate(self.names))):
            x = F.max_unpool2d(x, poolings[number][1], 2, 2)
            for name, _, _ in reversed(stage):
                x = self.deconvs[name](x)
                if name != "conv1_1":
                    x = F.relu(x)
            target, loss = (
                (data * SCALE, "data/scaled")
                if number == 0
                else (poolings[number - 1][0], self.names[number - 1][-1][0])
            )
            objective = objective + LOSS_WEIGHTS[loss] * euclidean(x, target)
        return objective + F.cross_entropy(scores, label.long())

    def classify(self, x: Tensor) -> Tensor:
        """The scores of the classes from the last pooling."""
        x = self.dropout(F.relu(self.fc6(x.flatten(1))))
        return self.fc8(self.dropout(F.relu(self.fc7(x))))

    def load(self, state: dict[str, Tensor]) -> None:
        """Take the parameters of our net's ``state_dict``."""
        own = {}
        for key, value in state.items():
            layer, kind = key.rsplit(".", 1)
            if layer.startswith("dec:"):
                own[f"deconvs.{layer.removeprefix('dec:')}.{kind}"] = value
            else:
                own[f"convs.{layer}.{kind}" if layer.startswith("conv") else key] = value
        self.load_state_dict(own)


def euclidean(x: Tensor, target: Tensor) -> Tensor:
    """Caffe's EuclideanLoss: half of the squared distance, by image."""
    return F.mse_loss(x, target, reduction="sum") / (2 * x.shape[0])


def plain_optimizer(net: PlainSWWAE, lr: float) -> torch.optim.Optimizer:
    """SGD with Caffe's multipliers: biases learn twice as fast and do not decay."""
    weights = [p for name, p in net.named_parameters() if name.endswith("weight")]
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    groups = [{"params": weights}, {"params": biases, "lr": 2 * lr, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=5e-4)
