"""Figures of reconstructions: rows of images with what each decoder makes of them, and their quality over depth."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import CaffeError
from ..files import atomic_path
from ..packages import require_package

GAP = 0.3  # between the groups, in images
SIDE, HEAD, FOOT = 0.15, 0.95, 0.45  # inches
SMALL, LARGE = 0.95, 1.4  # inches, the width of an image of up to SMALL_EDGE pixels, and of more
SMALL_EDGE = 64


class Column(NamedTuple):
    """A column of the figure: its title, the images, and what stands below them (by default their error)."""

    name: str
    images: np.ndarray
    below: str = ""


class Line(NamedTuple):
    """A line of a chart: values over labels of the horizontal axis."""

    labels: Sequence[str]
    values: Sequence[float]
    dashed: bool = False


def require_matplotlib() -> Any:
    """Return matplotlib's ``Figure``.

    Raises:
        CaffeError: matplotlib is not installed.
    """
    return require_package("matplotlib.figure", "figures need matplotlib", "matplotlib").Figure


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a matplotlib ``Figure``; the ending of ``path`` says the format.

    Raises:
        CaffeError: the format is unknown, or the file cannot be written.
    """
    formats = figure.canvas.get_supported_filetypes()
    if os.path.splitext(path)[1].lstrip(".").lower() not in formats:
        raise CaffeError(f"{os.fspath(path)}: the file name's ending must be one of {', '.join(sorted(formats))}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, facecolor="white")


def rms_error(images: np.ndarray, originals: np.ndarray) -> float:
    """The root mean square difference of two arrays of pixels."""
    return float(np.sqrt(np.mean((images.astype(np.float64) - originals) ** 2)))


def reconstruction_figure(
    path: str | os.PathLike[str],
    originals: np.ndarray,
    groups: Sequence[tuple[str, Sequence[Column | tuple[str, np.ndarray]]]],
    title: str,
    measure: str = "error",
) -> None:
    """Write a picture with a row an image: the original, then for each group its reconstructions, one a column.

    Under each column stands the root mean square error of its pixels, unless the column says something else.

    Args:
        path: the picture; its ending says the format.
        originals: (n, channels, height, width), 0 to 1; 1 channel is grey, 3 are BGR.
        groups: for each the title, and its columns: the title and the images, shaped like ``originals``.
        title: above it all.
        measure: what stands below the originals: what the numbers under the columns are.

    Raises:
        CaffeError: matplotlib is not installed, the format is unknown, or the file cannot be written.
    """
    rows = len(originals)
    widths = [1.0]
    for _, columns in groups:
        widths += [GAP, *[1.0] * len(columns)]
    inches = SMALL if max(originals.shape[2:]) <= SMALL_EDGE else LARGE
    width = inches * sum(widths) + 2 * SIDE
    height = inches * originals.shape[2] / originals.shape[3] * rows + HEAD + FOOT
    figure = require_matplotlib()(figsize=(width, height), dpi=160)
    edges = {"left": SIDE / width, "right": 1 - SIDE / width, "top": 1 - HEAD / height, "bottom": FOOT / height}
    grid = figure.add_gridspec(rows, len(widths), width_ratios=widths, wspace=0.06, hspace=0.06, **edges)
    sharpness = "nearest" if max(originals.shape[2:]) <= SMALL_EDGE else "antialiased"
    at = 0
    for heading, columns in (("", [Column("input", originals, measure)]), *groups):
        for offset, (name, images, below) in enumerate(Column(*each) for each in columns):
            for row in range(rows):
                axes = figure.add_subplot(grid[row, at + offset])
                axes.imshow(_picture(images[row]), cmap="gray", vmin=0, vmax=1, interpolation=sharpness)
                axes.set_axis_off()
                if row == 0:
                    axes.set_title(name, fontsize=9, pad=4)
            below = below or f"{rms_error(images, originals):.3f}"
            box = grid[rows - 1, at + offset].get_position(figure)
            figure.text(
                (box.x0 + box.x1) / 2, box.y0 - 0.07 / height, below, ha="center", va="top", fontsize=8, color="0.4"
            )
        if heading:
            left, right = grid[0, at].get_position(figure).x0, grid[0, at + len(columns) - 1].get_position(figure).x1
            y = 1 - (HEAD - 0.3) / height
            figure.text((left + right) / 2, y, heading, ha="center", va="bottom", fontsize=10, weight="bold")
        at += len(columns) + 1
    figure.text(0.5, 1 - 0.14 / height, title, ha="center", va="top", fontsize=12)
    save_figure(figure, path)


def depth_figure(
    path: str | os.PathLike[str], charts: Mapping[str, Mapping[str, Line]], labels: Sequence[str], xlabel: str
) -> None:
    """Write a picture with a chart for each measure, and in it a line for each title over the layers.

    Args:
        path: the picture; its ending says the format.
        charts: for each measure its lines by title.
        labels: of the horizontal axis, in order.
        xlabel: what they are.

    Raises:
        CaffeError: matplotlib is not installed, the format is unknown, or the file cannot be written.
    """
    figure = require_matplotlib()(figsize=(5.2 * len(charts), 3.6), dpi=130, layout="constrained")
    places = {label: number for number, label in enumerate(labels)}
    for axes, (measure, lines) in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts.items(), strict=True):
        for number, (title, line) in enumerate(lines.items()):
            x = [places[label] for label in line.labels]
            axes.plot(x, line.values, "o--" if line.dashed else "o-", color=f"C{number}", label=title, markersize=4)
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlabel(xlabel)
        axes.set_ylabel(measure)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path)


def _picture(image: np.ndarray) -> np.ndarray:
    """(channels, height, width) as what matplotlib shows: grey, or RGB from BGR."""
    clipped = np.clip(image, 0, 1)
    return clipped[0] if len(clipped) == 1 else clipped[::-1].transpose(1, 2, 0)
