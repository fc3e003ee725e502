"""The report of a run folder: what was trained, how it ended, and the training curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import CaffeError
from .curves import LOSS, Point, read_points
from .figures import save_figure
from .filters import filters_figure, read_filters
from .page import Page
from .stages import Stage

Chains = Mapping[str, Sequence[Stage]]


def write_report(folder: str, manifest: Mapping[str, Any], chains: Chains, weights: str) -> list[str]:
    """Write ``report.md``, ``report.html`` and, with matplotlib, ``curves.png`` and ``filters.png`` into a run folder.

    Args:
        folder: the run folder.
        manifest: its ``run.json``.
        chains: the stages of each variant.
        weights: the caffemodel of step 1.

    Returns:
        The paths of the files.

    Raises:
        CaffeError: a file cannot be written.
    """
    stages = {os.path.basename(os.path.dirname(each.solver)): each for chain in chains.values() for each in chain}
    points = {name: read_points(stage.curve) for name, stage in stages.items()}
    page = Page(f"Training in the paper's steps: {', '.join(chains)}")
    configuration = manifest["configuration"]
    page.text(
        f"Weights of step 1: {configuration['weights']}. Images of {'x'.join(map(str, manifest['image_shape']))}, multiplied by "
        f"{manifest['image_scale']:g} before they are compared with their reconstructions."
    )
    page.heading("How each step ended")
    page.text(
        "Total losses are averaged over the solver's average_loss; losses of single blobs are of the newest batch."
    )
    page.table(*_ends(stages, points))
    _loss_weights(page, manifest)
    paths = [os.path.join(folder, name) for name in ("report.md", "report.html")]
    picture = os.path.join(folder, "curves.png")
    page.heading("Training curves")
    if draw_curves(picture, points):
        page.picture(picture, "Losses and errors over iterations, a row for each step of the paper")
        page.text("Solid lines are of training batches, dashed ones with dots of the test data.")
        paths.append(picture)
    else:
        page.text(
            "Not drawn: that needs matplotlib (pip install matplotlib). The numbers are in curve.csv of each step."
        )
    _filters(page, paths, os.path.join(folder, "filters.png"), weights, chains)
    page.write_markdown(paths[0])
    page.write_html(paths[1])
    return paths


def _ends(stages: Mapping[str, Stage], points: Mapping[str, Sequence[Point]]) -> tuple[list[str], list[list[str]]]:
    """The last train loss and the last test scores of each stage, as a table."""
    rows = {name: {(each.phase, each.output): each for each in points[name]} for name in stages}
    outputs: dict[str, None] = {}
    for last in rows.values():
        outputs.update({output: None for phase, output in last if phase == "TEST"})
    header = ["step", "iterations", "train loss", *(f"test {output}" for output in outputs)]
    table = []
    for name, last in rows.items():
        cells = [last.get(("TRAIN", LOSS)), *(last.get(("TEST", output)) for output in outputs)]
        numbers = ["" if cell is None else f"{cell.value:.4g}" for cell in cells]
        table.append([name, str(stages[name].param().max_iter), *numbers])
    return header, table


def _loss_weights(page: Page, manifest: Mapping[str, Any]) -> None:
    weights = manifest.get("loss_weights")
    if not weights:
        return
    page.heading(f"Loss weights of step 4 (from {manifest['loss_weights_from']})")
    measured = manifest.get("measured", {})
    rows = []
    for name, weight in weights.items():
        size, rms = (measured[name]["size"], measured[name]["rms"]) if name in measured else ("", "")
        rows.append([name, f"{weight:g}", str(size), f"{rms:.4g}" if rms else ""])
    page.table(["blob", "weight", "values in it", "root mean square"], rows)


def _filters(page: Page, paths: list[str], picture: str, weights: str, chains: Chains) -> None:
    """Show the first layer's filters before and after step 4."""
    whole = {name: chain[-1].weights() for name, chain in chains.items() if chain[-1].step == 4}
    if not whole:
        return
    page.heading("Filters of the first layer, before and after step 4")
    try:
        before = read_filters(weights, title="before")
        after = [read_filters(path, before.layer, name) for name, path in whole.items()]
        filters_figure(picture, before, after)
    except CaffeError as error:
        page.text(f"Not drawn: {error}.")
        return
    page.picture(picture, "Filters before step 4, after it, and the difference")
    page.text(
        "0 is grey. A difference has a scale of its own, which its title says, with its norm relative to the filters'."
    )
    paths.append(picture)


def draw_curves(path: str, points: Mapping[str, Sequence[Point]]) -> bool:
    """Draw a row of charts for each step of the paper, a chart for each output, a line for each stage.

    Lines of TRAIN are solid, of TEST dashed with dots; accuracies are drawn as errors in percent.

    Args:
        path: the picture.
        points: of each stage, by its name, ``step2_…``.

    Returns:
        False where matplotlib is not installed or there is nothing to draw.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D
    except ImportError:
        return False
    steps: dict[str, dict[str, None]] = {}
    for name, found in points.items():
        steps.setdefault(name.split("_")[0], {}).update(dict.fromkeys(each.output for each in found))
    steps = {step: outputs for step, outputs in steps.items() if outputs}
    if not steps:
        return False
    columns = max(map(len, steps.values()))
    figure = Figure(figsize=(3.4 * columns, 2.9 * len(steps)), dpi=110, layout="constrained")
    grid = figure.subplots(len(steps), columns, squeeze=False)
    for row, (step, outputs) in zip(grid, steps.items(), strict=True):
        for axes in row[len(outputs) :]:
            axes.set_axis_off()
        lines = {name: found for name, found in points.items() if name.startswith(f"{step}_")}
        for axes, output in zip(row, outputs, strict=False):
            _draw_output(axes, output, lines)
            axes.set_title(f"step {step.removeprefix('step')}: {_title(output)}", fontsize=9)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
        names = [Line2D([], [], color=f"C{number}", label=name.partition("_")[2]) for number, name in enumerate(lines)]
        row[0].legend(handles=names, fontsize=7)
        row[0].set_xlabel("iteration", fontsize=8)
    save_figure(figure, path)
    return True


def _title(output: str) -> str:
    return f"error, % ({output})" if output.startswith("accuracy") else output


def _draw_output(axes: Any, output: str, lines: Mapping[str, Sequence[Point]]) -> None:
    values: list[float] = []
    for number, found in enumerate(lines.values()):
        for phase, style in (("TRAIN", "-"), ("TEST", ".--")):
            shown = [each for each in found if each.phase == phase and each.output == output]
            y = [100 * (1 - each.value) if output.startswith("accuracy") else each.value for each in shown]
            if shown:
                axes.plot([each.iteration for each in shown], y, style, color=f"C{number}", linewidth=1)
            values += y
    if values and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
