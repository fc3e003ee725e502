"""Heat maps of realtime pose estimation, and the labels of sequences and pictures."""

from __future__ import annotations

from ...forks.deeplab.labels import BiasChannel
from ...forks.rtpose.peaks import ImResize, Nms
from ...forks.textboxes_plus.ctc_decoder import CTCGreedyDecoder
from ..outline import Value
from ..registry import static, unsaid
from .helpers import peaks as helpers
from .layout import call, unless
from .writer import Several, Writer, writes


@writes(ImResize)
def resize(w: Writer, layer: ImResize, x: Value) -> str:
    static(layer, x, 2, 3)
    size = tuple(w.tops[0].shape[2:])
    items = x.shape[0] if layer.gap else 1
    borders = tuple(tuple(layer.pad(side, item) for side in x.shape[2:]) for item in range(items))
    return call(w.helper(helpers.mean_of_scales), x, size, borders)


@writes(Nms)
def peaks(w: Writer, layer: Nms, x: Value) -> str:
    static(layer, x, 2, 3)
    if min(x.shape[2:]) < 3 or not layer.most:
        raise unsaid(layer, f"planes of {x.shape[2]} × {x.shape[3]} have no peaks, or none is asked for")
    return call(w.helper(helpers.find_peaks), x, layer.parts, float(layer.threshold), layer.most)


@writes(CTCGreedyDecoder)
def best_path(w: Writer, layer: CTCGreedyDecoder, scores: Value, *others: Value) -> str | Several:
    if layer.judges:
        raise unsaid(layer, "it compares with the true sequences; leave out its third bottom and its last top")
    blank = unless(-1, layer.blank if layer.blank >= 0 else -1)
    y = call(w.helper(helpers.best_path), scores, *others[:1], blank=blank, merge=unless(True, layer.merges))
    return f"{y}[0]" if len(w.tops) == 1 else Several(y)


@writes(BiasChannel)
def bias_channel(w: Writer, layer: BiasChannel, scores: Value, label: Value) -> str:
    background, ignored = layer.background, tuple(sorted(set(layer.ignored)))
    if not layer.pixel:
        return call(w.helper(helpers.favour_labels), scores, label, layer.fg_bias, layer.bg_bias, ignored)
    everywhere = float(layer.bg_bias) if background is not None else None
    return call(w.helper(helpers.favour_places), scores, label, layer.fg_bias, background, everywhere, ignored=ignored)
