"""Which boxes stand for which ground truth, as in SSD's Caffe (weiliu89/caffe, branch ssd, bbox_util.cpp)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ...layers.base import Layer
from . import boxes as bx

LEAST_OVERLAP = 1e-6
UNMATCHED, LEFT_OUT = -1, -2
ROW = 8  # image, label, instance, xmin, ymin, xmax, ymax, difficult


class Truth(NamedTuple):
    """The ground truth of a batch, image by image.

    Attributes:
        boxes: (N, M, 4), M being the most that an image has, at least 1.
        labels: (N, M), int64.
        exists: (N, M), whether the image has that many.
    """

    boxes: Tensor
    labels: Tensor
    exists: Tensor


def label_id(number: int) -> int:
    """A label that a file holds as uint32, which the fork reads as int: 4294967295 is -1, no label at all."""
    return number - 2**32 if number >= 2**31 else number


def labels_table(layer: Layer, label: Tensor) -> Tensor:
    """The rows of a blob of labels (1, 1, G, 8) as (G, 8), on its device.

    Raises:
        LayerError: the blob has another shape.
    """
    if label.dim() != 4 or label.shape[:2] != (1, 1) or label.shape[3] != ROW:
        raise layer.error(
            f"needs labels of shape 1×1×G×{ROW}, a row for each true box (image, label, instance, xmin, ymin, xmax, ymax, "
            f"difficult), not of {'×'.join(map(str, label.shape))}"
        )
    return label.detach().reshape(-1, ROW)


def read_truth(
    layer: Layer,
    label: Tensor,
    images: int,
    background: int,
    classes: int | None,
    use_difficult: bool,
    merges: bool = False,
) -> Truth:
    """The boxes of a blob of labels by image; rows of images that the batch has not are skipped, as in the fork.

    Args:
        label: (1, 1, G, 8).
        images: N.
        background: the label that no box may have.
        classes: how many labels there are; None for any.
        use_difficult: whether boxes that are marked difficult count.
        merges: whether every label above 1 is read as 1.

    Raises:
        LayerError: the blob has another shape, or a box has the label of the background or none of the classes.
    """
    device = label.device
    table = labels_table(layer, label).cpu()  # a handful of rows, whose number shapes what follows
    image, labels = table[:, 0].long(), table[:, 1].long()
    if merges:
        labels = labels.clamp(max=1)
    if bool((bad := (image != -1) & (labels == background)).any()):
        raise layer.error(
            f"{row_in_words(table, bad)} has label {background}, which is background_label_id: no box may have it"
        )
    used = (image >= 0) & (image < images)
    if not use_difficult:
        used &= table[:, 7].long() == 0
    if classes is not None and bool((bad := used & ((labels < 0) | (labels >= classes))).any()):
        raise layer.error(
            f"{row_in_words(table, bad)} has a label that is no class: there are {classes} (num_classes), 0 to {classes - 1}"
        )
    image, labels, corners = image[used], labels[used], table[used, 3:7]
    numbers = image.bincount(minlength=images)
    most = max(1, int(numbers.max()) if images else 1)
    order = image.argsort(stable=True)
    image = image[order]
    place = torch.arange(len(image)) - (numbers.cumsum(0) - numbers)[image]
    found = Truth(
        corners.new_zeros(images, most, 4),
        labels.new_zeros(images, most),
        torch.zeros(images, most, dtype=torch.bool),
    )
    found.boxes[image, place] = corners[order]
    found.labels[image, place] = labels[order]
    found.exists[image, place] = True
    return Truth(*(each.to(device) for each in found))


def row_in_words(table: Tensor, bad: Tensor, what: str = "labels") -> str:
    """Say which row of a table is the first of the ``bad``, and what it holds."""
    at = int(bad.nonzero()[0])
    return f"row {at} of the {what} ({', '.join(f'{number:g}' for number in table[at].tolist())})"


def match(
    boxes: Tensor, truth: Tensor, exists: Tensor, threshold: float | None, inside_only: bool = False
) -> tuple[Tensor, Tensor]:
    """Which true box each of the boxes stands for, in groups that are independent of each other.

    First each true box takes, the largest overlap of all going first, the box that it overlaps most and that is free. Then
    each free box takes the true box that it overlaps most. Overlaps of 1e-6 or less are none.

    Args:
        boxes: (G, P, 4), or (1, P, 4) for the same in all groups.
        truth: (G, M, 4), M being 1 or more.
        exists: (G, M), whether there is such a true box.
        threshold: the least overlap of the second step; None leaves it out.
        inside_only: whether boxes that reach out of the picture are left out.

    Returns:
        The index of the true box, (G, P), or :data:`UNMATCHED`, or :data:`LEFT_OUT`; and the largest overlap of each box
        with a true one, (G, P).
    """
    overlap = bx.overlaps(boxes, truth)
    usable = (overlap > LEAST_OVERLAP) & exists[:, None]
    index = torch.full(overlap.shape[:2], UNMATCHED, device=overlap.device)
    if inside_only:
        outside = bx.cross_boundary(boxes).expand(index.shape)
        usable &= ~outside[..., None]
        index.masked_fill_(outside, LEFT_OUT)
    overlap = overlap.masked_fill_(~usable, 0)
    most, favourite = overlap.max(2)
    open_ = overlap.transpose(1, 2).contiguous()
    number = torch.arange(truth.shape[1], device=overlap.device)
    while True:
        # a pair that is the best for both is taken by whoever goes through all pairs from the largest overlap on
        best, place = open_.max(2)
        rival = open_.gather(2, place[:, None].expand_as(open_[..., : len(number)])).max(1).indices
        group, true = ((best > 0) & (rival == number)).nonzero(as_tuple=True)
        if not len(group):
            break
        place = place[group, true]
        index[group, place] = true
        open_[group, :, place] = 0
        open_[group, true] = 0
    if threshold is not None:
        takes = (most >= threshold) & (most > 0) & (index == UNMATCHED)
        index = torch.where(takes, favourite, index)
    return index, most
