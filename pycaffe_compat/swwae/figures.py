"""The reconstruction figure: rows of images, columns what each decoder makes of them."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..errors import CaffeError
from ..files import atomic_path

GAP = 0.3  # between the groups, in images
IMAGE, SIDE, HEAD, FOOT = 0.95, 0.15, 0.95, 0.45  # inches

Column = tuple[str, np.ndarray]


def rms_error(images: np.ndarray, originals: np.ndarray) -> float:
    """The root mean square difference of two arrays of pixels."""
    return float(np.sqrt(np.mean((images.astype(np.float64) - originals) ** 2)))


def reconstruction_figure(
    path: str | os.PathLike[str],
    originals: np.ndarray,
    groups: Sequence[tuple[str, Sequence[Column]]],
    title: str,
) -> None:
    """Write a picture with a row an image: the original, then for each group its reconstructions, one a column.

    Under each column stands the root mean square error of its pixels.

    Args:
        path: the picture; its ending says the format.
        originals: (n, channels, height, width), 0 to 1; 1 channel is grey, 3 are BGR.
        groups: for each the title, and its columns: the title and the images, shaped like ``originals``.
        title: above it all.

    Raises:
        CaffeError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CaffeError("figures need matplotlib: pip install matplotlib") from error
    rows = len(originals)
    widths = [1.0]
    for _, columns in groups:
        widths += [GAP, *[1.0] * len(columns)]
    width, height = IMAGE * sum(widths) + 2 * SIDE, IMAGE * rows + HEAD + FOOT
    figure = Figure(figsize=(width, height), dpi=160)
    edges = {"left": SIDE / width, "right": 1 - SIDE / width, "top": 1 - HEAD / height, "bottom": FOOT / height}
    grid = figure.add_gridspec(rows, len(widths), width_ratios=widths, wspace=0.06, hspace=0.06, **edges)
    at = 0
    for heading, columns in (("", [("input", originals)]), *groups):
        for offset, (name, images) in enumerate(columns):
            for row in range(rows):
                axes = figure.add_subplot(grid[row, at + offset])
                axes.imshow(_picture(images[row]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                axes.set_axis_off()
                if row == 0:
                    axes.set_title(name, fontsize=9, pad=4)
            below = f"{rms_error(images, originals):.3f}" if heading else "error"
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
    with atomic_path(path) as temporary:
        figure.savefig(temporary, facecolor="white")


def _picture(image: np.ndarray) -> np.ndarray:
    """(channels, height, width) as what matplotlib shows: grey, or RGB from BGR."""
    clipped = np.clip(image, 0, 1)
    return clipped[0] if len(clipped) == 1 else clipped[::-1].transpose(1, 2, 0)
