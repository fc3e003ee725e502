"""Pictures of a first layer's filters: before and after a training, and their difference."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UnknownNameError, WeightsError, nearest
from ..proto import read_weights
from ..tables import dims
from .figures import require_matplotlib, save_figure

PANEL = 2.6  # inches, the width of a panel of filters


@dataclass(frozen=True)
class Filters:
    """The filters of one layer in one file.

    Attributes:
        title: what figures call them.
        layer: the name of the layer.
        values: (filters, 1 or 3, height, width) float32; 3 channels are BGR.
    """

    title: str
    layer: str
    values: np.ndarray


def read_filters(weights: str, layer: str = "", title: str = "") -> Filters:
    """Return the filters of a layer that looks at pictures.

    Args:
        weights: a caffemodel.
        layer: its name; ``""`` for the first layer in the file whose filters have 1 channel or 3.
        title: what figures call them; ``""`` for the name of the file.

    Raises:
        UnknownNameError: there is no such layer. WeightsError: its weights cannot be shown as pictures, or the file has none
            that can.
    """
    stored = read_weights(weights)
    shapes = {name: stored.shapes(name)[0] for name in stored if stored.shapes(name)}
    fitting = [
        name for name, shape in shapes.items() if shape and len(shape) == 4 and shape[1] in (1, 3) and shape[2] > 1
    ]
    if layer and layer not in shapes:
        raise UnknownNameError(
            f'{weights} has no weights for a layer "{layer}"{nearest(layer, shapes)}; filters of 1 channel or 3 can be shown: '
            f"{', '.join(fitting) or 'none here'}"
        )
    if layer and layer not in fitting:
        raise WeightsError(
            f'{weights}: the weights of "{layer}" have the shape {dims(shapes[layer] or ())}; filters of 1 channel or 3 can be '
            f"shown: {', '.join(fitting) or 'none here'}"
        )
    if not fitting:
        raise WeightsError(f"{weights} has no filters of 1 channel or 3, which could be shown as pictures")
    name = layer or fitting[0]
    values = np.array(stored[name][0], np.float32)
    if not np.isfinite(values).all():
        raise WeightsError(f'{weights}: the weights of "{name}" are not finite numbers')
    return Filters(title or os.path.basename(weights), name, values)


def change(before: Filters, after: Filters) -> float:
    """Return the norm of the difference over the norm of ``before``.

    Raises:
        WeightsError: the shapes differ.
    """
    _require_same(before, after)
    norm = float(np.linalg.norm(before.values))
    return float(np.linalg.norm(after.values - before.values)) / norm if norm else math.inf


def filters_figure(path: str | os.PathLike[str], before: Filters, after: Sequence[Filters] = ()) -> None:
    """Write a picture of filters: those before, and for each later set a row with it and its difference to them.

    All sets have one scale: 0 is grey, the largest weight of all is fully light or dark. Differences have a scale of their
    own, which their titles say.

    Args:
        path: the picture; its ending says the format.
        before: the filters to compare with.
        after: filters of the same shape.

    Raises:
        WeightsError: the shapes differ.
        CaffeError: matplotlib is not installed, the format is unknown, or the file cannot be written.
    """
    for each in after:
        _require_same(before, each)
    rows = max(len(after), 1)
    columns = 3 if after else 1
    aspect = _tiled(before.values, 1).shape[0] / _tiled(before.values, 1).shape[1]
    figure = require_matplotlib()(
        figsize=(PANEL * columns, (PANEL * aspect + 0.45) * rows + 0.1), dpi=150, layout="constrained"
    )
    figure.get_layout_engine().set(wspace=0.08, hspace=0.06)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    most = max(float(np.abs(each.values).max()) for each in (before, *after)) or 1.0
    _show(grid[0, 0], before.values, most, f"{before.title}\n{before.layer}, ±{most:.3g}")
    for row, each in zip(grid, after, strict=False):
        relative = change(before, each)
        difference = each.values - before.values
        own = float(np.abs(difference).max())
        _show(row[1], each.values, most, f"{each.title}\n{each.layer}, ±{most:.3g}")
        _show(row[2], difference, own or 1.0, f"difference, ±{own:.3g}\n{relative:.1%} of the norm")
    save_figure(figure, path)


def _require_same(before: Filters, after: Filters) -> None:
    if before.values.shape != after.values.shape:
        raise WeightsError(
            f'the filters of "{before.layer}" in {before.title} have the shape {dims(before.values.shape)}, those of '
            f'"{after.layer}" in {after.title} {dims(after.values.shape)}: only the same can be compared'
        )


def _show(axes: Any, values: np.ndarray, most: float, title: str) -> None:
    axes.imshow(_tiled(values, most), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, fontsize=7)


def _tiled(values: np.ndarray, most: float) -> np.ndarray:
    """The filters side by side with a gap of one pixel, as grey or RGB from 0 to 1."""
    count, channels, height, width = values.shape
    across = math.ceil(math.sqrt(count))
    down = math.ceil(count / across)
    tiles = np.ones((down * across, channels, height + 1, width + 1), np.float32)
    tiles[:count, :, :height, :width] = np.clip(values / most / 2 + 0.5, 0, 1)
    image = tiles.reshape(down, across, channels, height + 1, width + 1).transpose(2, 0, 3, 1, 4)
    image = image.reshape(channels, down * (height + 1), across * (width + 1))[:, :-1, :-1]
    return image[0] if channels == 1 else image[::-1].transpose(1, 2, 0)
