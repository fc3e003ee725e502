"""The ground truth of pictures: rows of labels as AnnotatedData makes them (weiliu89/caffe, branch ssd, bbox_util.cpp)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...layers.base import Layer
from ...tables import dims

ROW = 8  # image, label, instance, xmin, ymin, xmax, ymax, difficult
LEFT_OUT = -(2**31)  # a label that no file can mean


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
            f"difficult), not of {dims(label.shape)}"
        )
    return label.detach().reshape(-1, ROW)


def check_background(layer: Layer, table: Tensor, labels: Tensor, background: int, what: str = "labels") -> None:
    """Check that no row of an image has the label of the background.

    Args:
        table: rows that begin with the image and a label.
        labels: the labels of the rows, as they are read.
        what: the rows' name.

    Raises:
        LayerError: one has.
    """
    if bool((bad := (table[:, 0].long() != -1) & (labels == background)).any()):
        leaves = ". NVIDIA's Caffe, --fork nvidia, leaves such rows out" if what == "labels" else ""
        raise layer.error(
            f"{row_in_words(table, bad, what)} has label {background}, which is background_label_id: no box may have it{leaves}"
        )


def read_truth(
    layer: Layer,
    table: Tensor,
    images: int,
    labels: Callable[[Tensor], Tensor],
    background: int,
    classes: int | None,
    difficult: bool,
) -> Truth:
    """The boxes of a blob of labels by image; rows of images that the batch has not are skipped, as in the fork.

    Args:
        table: of :func:`labels_table`.
        images: N.
        labels: how labels are read: floats to int64, :data:`LEFT_OUT` for boxes that are left out.
        background: the label that no box may have.
        classes: how many labels there are; None for any.
        difficult: whether boxes that are marked difficult count.

    Raises:
        LayerError: a box has the label of the background or none of the classes.
    """
    device, table = table.device, table.cpu()  # a handful of rows, whose number shapes what follows
    image, names = table[:, 0].long(), labels(table[:, 1])
    check_background(layer, table, names, background)
    used = (image >= 0) & (image < images) & (names != LEFT_OUT)
    if not difficult:
        used &= table[:, 7].long() == 0
    if classes is not None and bool((bad := used & ((names < 0) | (names >= classes))).any()):
        raise layer.error(
            f"{row_in_words(table, bad)} has a label that is not a class: there are {classes} (num_classes), 0 to {classes - 1}"
        )
    image, names, corners = image[used], names[used], table[used, 3:7]
    numbers = image.bincount(minlength=images)
    most = max(1, int(numbers.max()) if images else 1)
    order = image.argsort(stable=True)
    image = image[order]
    place = torch.arange(len(image)) - (numbers.cumsum(0) - numbers)[image]
    found = Truth(
        corners.new_zeros(images, most, 4),
        names.new_zeros(images, most),
        torch.zeros(images, most, dtype=torch.bool),
    )
    found.boxes[image, place] = corners[order]
    found.labels[image, place] = names[order]
    found.exists[image, place] = True
    return Truth(*(each.to(device) for each in found))


def row_in_words(table: Tensor, bad: Tensor, what: str = "labels") -> str:
    """Say which row of a table is the first of the ``bad``, and what it holds."""
    at = int(bad.nonzero()[0])
    return f"row {at} of the {what} ({', '.join(f'{number:g}' for number in table[at].tolist())})"
