"""Plot training logs: loss, accuracy or learning rate, over iterations or seconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DataError, nearest
from ..packages import require_package
from ..swwae.figures import save_figure
from .logs import ITERS, RATE, SECONDS, TEST_NET, Row, TrainingLog, read_log
from .options import Parser, command


@dataclass(frozen=True)
class Chart:
    """One of Caffe's chart types. ``what`` is part of the name of an output, ``over`` the column of the x axis."""

    title: str
    test: bool
    what: str
    over: str


CHARTS = [
    Chart(f"{title} vs. {name}", test, what, over)
    for title, test, what in (
        ("Test accuracy", True, "acc"),
        ("Test loss", True, "loss"),
        ("Train learning rate", False, RATE),
        ("Train loss", False, "loss"),
    )
    for name, over in (("Iters", ITERS), ("Seconds", SECONDS))
]
EPILOG = """
chart types:
{charts}

examples:
  %(prog)s 6 loss.png train.log
  %(prog)s 0 accuracy.pdf sgd.log adam.log          # one line per log
  %(prog)s 0 top5.png train.log --output accuracy-top5

The chart shows the first output whose name contains "acc" or "loss", unless --output names another. The train loss comes from
the lines "Iteration N, loss = …".
"""


def plot_training_log(chart_type: int, picture: str, logs: Sequence[str], output: str = "") -> None:
    """Plot one line for each log and each test net; the ending of ``picture`` chooses the format.

    Args:
        chart_type: Caffe's number, an index into :data:`CHARTS`.
        picture: the file to write.
        logs: paths of training logs.
        output: the output to plot; ``""`` finds one by the type of the chart.

    Raises:
        MissingFileError, DataError: a log is missing, is not one, or has no data for this chart.
        CaffeError: matplotlib is not installed, the format is unknown, or the file cannot be written.
    """
    chart = CHARTS[chart_type]
    matplotlib = require_package("matplotlib.figure", "charts need matplotlib", "matplotlib")
    figure = matplotlib.Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for path in logs:
        for label, column, rows in _lines(chart, path, read_log(path), output):
            marker = "o" if len(rows) < 20 else ""  # a line of one point is not seen
            axes.plot([row[chart.over] for row in rows], [row[column] for row in rows], marker=marker, label=label)
    axes.set_title(chart.title)
    axes.set_xlabel(chart.over)
    axes.set_ylabel(chart.title.split(" vs. ")[0])
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, picture)


def _lines(chart: Chart, path: str, log: TrainingLog, output: str) -> list[tuple[str, str, list[Row]]]:
    """Return label, column and rows of each line of the chart that comes from this log."""
    rows = log.test if chart.test else log.train if output else log.losses
    names = list(dict.fromkeys(name for row in rows for name in row if name not in (ITERS, SECONDS, TEST_NET)))
    if output and output not in names:
        where = "test" if chart.test else "train"
        raise DataError(f'{path} has no {where} output "{output}"{nearest(output, names)}; it has {", ".join(names)}')
    column = output or next((name for name in names if chart.what.lower() in name.lower()), "")
    if not column:
        have = f"its outputs are {', '.join(n for n in names if n != RATE)}" if rows else "it has none of its lines"
        raise DataError(f"{path} has nothing for the chart {chart.title}: {have}")
    found = {int(row.get(TEST_NET, 0)): None for row in rows if column in row}
    base = os.path.basename(path)
    return [
        (
            f"{base} {column}" + (f" (test net #{net})" if len(found) > 1 else ""),
            column,
            [row for row in rows if column in row and int(row.get(TEST_NET, 0)) == net],
        )
        for net in found
    ]


def run(argv: list[str]) -> None:
    """Run the command with these arguments."""
    charts = "\n".join(f"  {number}: {chart.title}" for number, chart in enumerate(CHARTS))
    parser = Parser(__doc__, EPILOG.format(charts=charts))
    parser.add_argument("chart_type", type=int, choices=range(len(CHARTS)), metavar="CHART_TYPE", help="0 to 7")
    parser.add_argument("picture", metavar="PICTURE", help="the file to write: .png, .pdf, .svg, …")
    parser.add_argument("logs", nargs="+", metavar="LOG", help="what `caffe train` wrote to standard error")
    parser.add_argument("--output", default="", metavar="NAME", help="the output of the net to plot")
    args = parser.parse_args(argv)
    plot_training_log(args.chart_type, args.picture, args.logs, args.output)
    print(f"{args.picture}: {CHARTS[args.chart_type].title}, {len(args.logs)} logs")


main = command("plot_training_log", run)
