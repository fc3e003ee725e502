"""What the tables say: errors over seeds, paired differences, the paper's claims one by one, and the section of docs/results.md.

The rules of judgement were written before the first run. A difference is taken seed by seed; a claim *holds* where the 95 %
confidence interval of its mean (Student's t over seeds) lies on the claim's side of 0, *does not hold* where it lies on the
other side, and else *inconclusive*. Nothing is corrected for several claims being looked at.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from config import KINDS, OBJECTIVES, VARIANTS, Config, Size
from scipy import stats
from table import tables

from pycaffe_compat.errors import DataError
from pycaffe_compat.swwae.figures import Line, depth_figure

sys.path.insert(0, str(Path(__file__).parents[1]))
from results_page import write_section

BASELINE, PRETRAINED = "baseline", "step1"
NAMES = {PRETRAINED: "VGG after step 1", BASELINE: "VGG, trained on"} | {
    name: name.upper()
    .replace("_", "-")
    .replace("FIRST", "first")
    .replace("ALL", "all")
    .replace("LAYERWISE", "layerwise")
    for name in VARIANTS
}
Errors = dict[tuple[str, int, str, str, str], float]


def draw(config: Config, results: Path, docs: Path, chosen: tuple[float, float] | None) -> None:
    """Draw the chart and write the section of results.md from the tables.

    Raises:
        DataError: there are no results yet.
    """
    found = tables(results)
    errors: Errors = {
        (row["size"], row["seed"], row["variant"], row["data"], row["mode"]): 100 * row["wrong"] / row["images"]
        for row in found.errors.rows()
    }
    if not errors or chosen is None:
        raise DataError(f"{results} has no errors to draw yet")
    convolutions = accumulate(count for count, _ in config.stages)
    pooling = {depth: number for number, depth in enumerate(convolutions, 1)}
    quality = {
        (row["seed"], row["kind"], pooling[row["depth"]]): (row["psnr"], row["ssim"])
        for row in found.reconstruction.rows()
    }
    (docs / "figures").mkdir(parents=True, exist_ok=True)
    if quality:
        draw_quality(docs / "figures" / "cifar10_quality.png", config, quality)
    write_section(docs / "results.md", "cifar10", section(config, errors, quality, found.times.rows(), chosen))


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """The mean of paired differences and the half width of its 95 % confidence interval; infinite for fewer than two."""
    if len(differences) < 2:
        return statistics.fmean(differences), math.inf
    spread = statistics.stdev(differences) / math.sqrt(len(differences))
    return statistics.fmean(differences), float(stats.t.ppf(0.975, len(differences) - 1)) * spread


def judge(differences: Sequence[float], wanted: int) -> str:
    """What differences say of a claim that they are positive (``wanted`` 1) or negative (-1)."""
    if len(differences) < 2:
        return "inconclusive"
    mean, half = interval(differences)
    if abs(mean) <= half:
        return "inconclusive"
    return "holds" if mean * wanted > 0 else "does not hold"


def shown(differences: Sequence[float]) -> str:
    """A mean difference with its confidence interval, in points."""
    mean, half = interval(differences)
    return f"{mean:+.2f}" if math.isinf(half) else f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"


def paired(errors: Errors, size: str, first: Sequence[str], second: Sequence[str], data: str, mode: str) -> list[float]:
    """The mean error of the variants ``first`` less that of ``second``, for each seed that has all of them."""
    found = []
    for seed in sorted({key[1] for key in errors if key[0] == size}):
        keys = [[(size, seed, name, data, mode) for name in names] for names in (first, second)]
        if all(key in errors for each in keys for key in each):
            a, b = (statistics.fmean(errors[key] for key in each) for each in keys)
            found.append(a - b)
    return found


def section(
    config: Config,
    errors: Errors,
    quality: dict[tuple[int, str, int], tuple[float, float]],
    times: list[dict[str, Any]],
    chosen: tuple[float, float],
) -> Iterator[str]:
    """The lines of the section of docs/results.md."""
    yield "## CIFAR-10: does reconstruction make a better classifier?"
    yield ""
    yield from what_was_run(config, times, chosen)
    for name, size in config.sizes.items():
        yield ""
        yield from table(config, errors, name, size)
    yield ""
    yield "### The paper's claims"
    yield ""
    yield (
        "Differences are in percentage points of error (in SSIM in the last two rows), paired by seed, with the 95 % confidence "
        "interval of their mean in brackets. A claim *holds* or *does not hold* if the interval excludes 0; otherwise the result "
        "is *inconclusive*. There is no correction for testing several claims: one in twenty such intervals misses by chance."
    )
    yield ""
    yield "| claim | size | found | |"
    yield "| --- | --- | --- | --- |"
    for name in config.sizes:
        yield from claims(errors, name)
    yield from depth_claim(config, quality)
    if quality:
        yield ""
        yield "![PSNR and SSIM of reconstructions for each pooling](figures/cifar10_quality.png)"
        yield ""
        yield (
            "Test images and their reconstructions from each pooling, for one seed. The encoder is fixed, and the decoders are "
            "trained for the image only (steps 2 and 3). SAE loses location and detail with each pooling; SWWAE keeps both:"
        )
        yield ""
        yield "![Test images, decoded from each pooling by SAE and by SWWAE](../experiments/cifar10/results/grid.png)"
    yield ""
    yield (
        "Made by `experiments/cifar10/run.py`. The numbers, the configuration and the time for each part are in "
        "`experiments/cifar10/results/`."
    )


def what_was_run(config: Config, times: list[dict[str, Any]], chosen: tuple[float, float]) -> Iterator[str]:
    """What, how long, and on what."""
    stages = "; ".join(f"{count} of {width} channels" for count, width in config.stages)
    hours = sum(row["seconds"] for row in times) / 3600
    on = sorted({f"{row['machine']}, {row['threads']} thread{'s' * (row['threads'] != '1')}" for row in times})
    yield (
        f"The classifier is a VGG for {config.crop}×{config.crop} crops of CIFAR-10's 32×32 images (3×3 convolutions: {stages}; "
        f"a pooling after each group; a hidden layer of {config.hidden[0]}). It is trained (step 1), and then trained with each "
        "of the six decoders in the paper's steps 2 to 4. The baseline is the VGG without a decoder, trained for as many further "
        "iterations as step 4, at the same rates, on the same batches. "
        f"Everything took {hours:.1f} process hours on {' and on '.join(on)} (several processes at a time, beside other work)."
    )
    yield ""
    rate, strength = chosen
    rates, strengths = (", ".join(f"{each:g}" for each in tried) for tried in (config.rates, config.strengths))
    yield (
        f"Two values were tuned at the size {config.chosen_on}, with {len(config.choice_seeds)} separate seeds, on "
        f"{config.validation:,} of the 50,000 training images that no net was trained on: step 4's rate ({rate:g} of {rates}, "
        f"with the baseline) and the strength of the reconstruction losses ({strength:g} of {strengths}, with "
        f"{' and '.join(NAMES[each] for each in config.chosen_with)}). Epochs, widths and the other rates are fixed, and our own "
        "choice. A seed sets the training images, initial weights, order, crops and dropout."
    )


def table(config: Config, errors: Errors, name: str, size: Size) -> Iterator[str]:
    """The errors of each variant at a size."""
    seeds = [seed for seed in size.seeds if any(key[:2] == (name, seed) for key in errors)]
    yield f"### {name.capitalize()}: {size.images:,} training images"
    yield ""
    whole = [seed for seed in seeds if all((name, seed, each, "test", "crop") in errors for each in NAMES)]
    if len(whole) < len(size.seeds):
        yield f"**Not finished:** {len(whole)} of {len(size.seeds)} seeds are done with all variants."
        yield ""
    if not seeds:
        return
    yield "Errors in percent, mean ± standard deviation over seeds:"
    yield ""
    yield "| | seeds | train | test, single crop | test, convolution | test, single crop, minus the baseline's |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for variant, title in NAMES.items():
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (of, _, each, data, mode), error in errors.items():
            if (of, each) == (name, variant):
                found[data, mode].append(error)
        if not found:
            continue
        cells = [
            mean_and_deviation(found[key]) for key in (("train", "crop"), ("test", "crop"), ("test", "convolution"))
        ]
        differences = paired(errors, name, [variant], [BASELINE], "test", "crop")
        last = shown(differences) if differences and variant != BASELINE else ""
        yield f"| {title} | {len(found['test', 'crop'])} | {' | '.join(cells)} | {last} |"


def mean_and_deviation(values: Sequence[float]) -> str:
    """As ``25.31 ± 0.42``."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation}"


def claims(errors: Errors, size: str) -> Iterator[str]:
    """A row of the table for each claim about errors."""
    others = [f"{kind}_{objective}" for kind in KINDS for objective in ("all", "layerwise")]
    first = [f"{kind}_first" for kind in KINDS]
    by_kind = [[f"{kind}_{objective}" for objective in OBJECTIVES] for kind in KINDS]
    for claim, a, b, data, wanted in (
        ("the six variants make fewer test errors than the baseline", VARIANTS, [BASELINE], "test", -1),
        ("SWWAE makes fewer test errors than the baseline", by_kind[1], [BASELINE], "test", -1),
        ("SWWAE makes fewer test errors than SAE", by_kind[1], by_kind[0], "test", -1),
        ("`all` and `layerwise` make more training errors than `first`", others, first, "train", 1),
        ("`all` and `layerwise` make fewer test errors than `first`", others, first, "test", -1),
    ):
        differences = paired(errors, size, a, b, data, "crop")
        found = f"{shown(differences)}, {len(differences)} seeds" if differences else "no results yet"
        yield f"| {claim} | {size} | {found} | {judge(differences, wanted)} |"


def depth_claim(config: Config, quality: dict[tuple[int, str, int], tuple[float, float]]) -> Iterator[str]:
    """The rows about reconstruction over depth: SSIM, decoders from each pooling, the encoder of step 1 fixed."""
    last = len(config.stages)
    seeds = sorted({seed for seed, _, _ in quality})
    loss = {kind: [quality[seed, kind, 1][1] - quality[seed, kind, last][1] for seed in seeds] for kind in KINDS}
    decays = [sae - swwae for sae, swwae in zip(loss["sae"], loss["swwae"], strict=True)]
    deepest = [quality[seed, "swwae", last][1] - quality[seed, "sae", last][1] for seed in seeds]
    for claim, found in (
        ("from the first to the last pooling SAE's SSIM falls by more than SWWAE's", decays),
        ("from the last pooling SWWAE's SSIM is higher than SAE's", deepest),
    ):
        words = f"{shown(found)}, {len(found)} seeds" if found else "no results yet"
        yield f"| {claim} | {config.reconstructed_at} | {words} | {judge(found, 1)} |"


def draw_quality(path: Path, config: Config, quality: dict[tuple[int, str, int], tuple[float, float]]) -> None:
    """Draw PSNR and SSIM over the poolings, means over seeds."""
    labels = [f"pool{depth}" for depth in range(1, len(config.stages) + 1)]
    seeds = sorted({seed for seed, _, _ in quality})
    charts = {
        title: {
            kind.upper(): Line(
                labels,
                [
                    statistics.fmean(quality[seed, kind, depth][index] for seed in seeds)
                    for depth in range(1, len(labels) + 1)
                ],
                kind == "sae",
            )
            for kind in KINDS
        }
        for index, title in enumerate(("PSNR, dB", "SSIM"))
    }
    depth_figure(path, charts, labels, "decoded from")
