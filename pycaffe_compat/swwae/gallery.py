"""What is left of a reconstruction: a grid, a plot, tables, and one page with all of it and with what was run."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np
import torch

from .. import __version__
from ..errors import CaffeError
from ..files import atomic_path, sha256
from .curves import Point
from .figures import Column, Line, depth_figure, reconstruction_figure, require_matplotlib
from .page import Page
from .quality import require_scikit_image
from .reconstruct import Decoded, Reconstructions
from .report import draw_curves

GRID, PLOT, PAGE = "grid.png", "quality.png", "report.html"
QUALITY, PER_PICTURE = "quality.csv", "pictures.csv"
FILES = (GRID, PLOT, PAGE, QUALITY, PER_PICTURE)


def prepare_folder(folder: str, overwrite: bool = False) -> None:
    """Make the folder of a gallery, or see that nothing in it would be lost; before long work.

    Args:
        folder: where the files go.
        overwrite: let files of an earlier gallery be replaced. Other files are left alone either way.

    Raises:
        CaffeError: the folder holds files; it cannot be made; matplotlib or scikit-image is not installed.
    """
    require_matplotlib()
    require_scikit_image()
    try:
        os.makedirs(folder, exist_ok=True)
        there = sorted(os.listdir(folder))
    except OSError as error:
        raise CaffeError(f"cannot make the folder {folder}: {error.strerror}") from error
    if there and not overwrite:
        shown = ", ".join(there[:5]) + (" …" if len(there) > 5 else "")
        raise CaffeError(
            f"{folder} holds files already: {shown}. Choose another folder, or replace the files of an earlier call with "
            "--overwrite"
        )


def write_gallery(
    folder: str, found: Reconstructions, command: str, curves: Mapping[str, Mapping[str, Sequence[Point]]] | None = None
) -> list[str]:
    """Write the grid, the plot over depth, two tables and the page into ``folder``; return their paths.

    Args:
        folder: as :func:`prepare_folder` left it.
        found: the reconstructions.
        command: what was run, for the page.
        curves: the training curves of run folders, by folder and step.

    Raises:
        CaffeError: a file cannot be written.
    """
    path = {name: os.path.join(folder, name) for name in FILES}
    _write_csv(path[QUALITY], _quality_rows(found.columns))
    _write_csv(path[PER_PICTURE], _picture_rows(found))
    groups = _groups(found.columns)
    count = len(found.names)
    reconstruction_figure(
        path[GRID],
        found.originals,
        [(title, [Column(each.source.label, each.shown, _numbers(each)) for each in group]) for title, group in groups],
        f"Reconstructions; the numbers are means over {count} picture{'s' * (count > 1)}",
        measure="PSNR\nSSIM",
    )
    _plot(path[PLOT], found.columns)
    page = Page(f"Reconstructions: {', '.join(title for title, _ in groups)}")
    page.text(_about(found))
    page.picture(path[GRID], "Pictures and what each decoder makes of them")
    page.heading("Quality over depth")
    page.text(
        "PSNR in dB and SSIM (Wang et al., 2004), means over all pictures and their standard deviations. More is better: a "
        "perfect reconstruction has an infinite PSNR and the SSIM 1."
    )
    page.picture(path[PLOT], "PSNR and SSIM over the layers that are decoded from")
    page.table(*_table(found.columns))
    written = [path[name] for name in FILES]
    for number, (run, points) in enumerate((curves or {}).items(), 1):
        page.heading(f"Training curves of {run}")
        picture = os.path.join(folder, "curves.png" if number == 1 else f"curves_{number}.png")
        if draw_curves(picture, points):
            page.picture(picture, "Losses and errors over iterations, a row for each step of the paper")
            written.append(picture)
        else:
            page.text("There are none: the run has no curve.csv.")
    _what_was_run(page, found, command)
    page.write_html(path[PAGE])
    return written


def _groups(columns: Sequence[Decoded]) -> list[tuple[str, list[Decoded]]]:
    groups: dict[str, list[Decoded]] = {}
    for each in columns:
        groups.setdefault(each.title, []).append(each)
    return list(groups.items())


def _numbers(column: Decoded) -> str:
    return f"{column.psnr.mean():.1f}\n{'' if column.ssim is None else f'{column.ssim.mean():.2f}'}"


def _about(found: Reconstructions) -> str:
    height, width = found.size
    words = [f"{len(found.names):,} pictures of {height}x{width} pixels"]
    words += [f"{count:,} of them {kind}, converted" for kind, count in found.converted.items()]
    if len(found.names) > len(found.originals):
        words.append(f"the first {len(found.originals)} are shown")
    return (
        f"{', '.join(words)}. Each column decodes from one layer of the encoder; SWWAE gets the pooling switches, SAE does "
        "not."
    )


def _spread(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _quality_rows(columns: Sequence[Decoded]) -> Iterator[Sequence[object]]:
    yield (
        *("title", "layer", "blob", "label", "depth", "pictures"),
        *("psnr_mean", "psnr_std", "ssim_mean", "ssim_std"),
    )
    for each in columns:
        source = each.source
        ssim = ("", "") if each.ssim is None else tuple(f"{number:.5f}" for number in _spread(each.ssim))
        psnr = tuple(f"{number:.4f}" for number in _spread(each.psnr))
        yield (each.title, source.layer, source.blob, source.label, source.depth, len(each.psnr), *psnr, *ssim)


def _picture_rows(found: Reconstructions) -> Iterator[Sequence[object]]:
    yield ("picture", "title", "layer", "psnr", "ssim")
    for each in found.columns:
        for number, name in enumerate(found.names):
            ssim = "" if each.ssim is None else f"{each.ssim[number]:.5f}"
            yield (name, each.title, each.source.layer, f"{each.psnr[number]:.4f}", ssim)


def _write_csv(path: str, rows: Iterator[Sequence[object]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _plot(path: str, columns: Sequence[Decoded]) -> None:
    depths = {each.source.label: each.source.depth for each in columns}
    labels = sorted(depths, key=depths.__getitem__)
    charts: dict[str, dict[str, Line]] = {"PSNR, dB": {}, "SSIM": {}}
    for title, group in _groups(columns):
        names, dashed = [each.source.label for each in group], title.startswith("SAE")
        charts["PSNR, dB"][title] = Line(names, [float(each.psnr.mean()) for each in group], dashed)
        measured = [each.ssim for each in group if each.ssim is not None]
        if len(measured) == len(group):
            charts["SSIM"][title] = Line(names, [float(each.mean()) for each in measured], dashed)
    depth_figure(path, {measure: lines for measure, lines in charts.items() if lines}, labels, "decoded from")


def _table(columns: Sequence[Decoded]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for each in columns:
        psnr = "{:.2f} ± {:.2f}".format(*_spread(each.psnr))
        ssim = "" if each.ssim is None else "{:.3f} ± {:.3f}".format(*_spread(each.ssim))
        rows.append([f"{each.title} from {each.source.label}", each.source.blob, psnr, ssim])
    return ["decoder", "blob", "PSNR, dB", "SSIM"], rows


def _what_was_run(page: Page, found: Reconstructions, command: str) -> None:
    page.heading("What was run")
    page.code(command)
    nets = {each.trained: each.title for each in found.columns}
    hashes = {path: sha256(path) for each in nets for path in (each.net, *each.weights)}
    rows = [
        [title, trained.net, found.preparation[trained.net], ", ".join(trained.weights)]
        for trained, title in nets.items()
    ]
    page.table(["decoder", "net", "pictures", "weights"], rows)
    page.table(["file", "SHA-256"], [[path, digest] for path, digest in hashes.items()])
    versions = {
        "pycaffe_compat": __version__,
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
        "OpenCV": cv2.__version__,
        "scikit-image": require_scikit_image().__version__,
    }
    page.text(f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}.")
    shown = ", ".join(found.names[: len(found.originals)])
    page.text(f"Pictures shown: {shown}.")
