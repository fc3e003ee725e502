"""AnchorEmbeddingExtractor of OpenVINO's training toolbox (openvinotoolkit/training_toolbox_caffe, that layer's .cpp)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...layers.base import Layer, Shape
from ...layers.registry import register
from ...tables import dims

ANCHORS = 4
RECORD = 11  # numbers of a matched detection
ITEM, BOX, ANCHOR, TRACK, ACTION, X, Y = 0, slice(2, 6), 6, 7, 8, 9, 10  # where they stand in it


@register("AnchorEmbeddingExtractor", fork="openvino")
class AnchorEmbeddingExtractor(Layer):
    """The embeddings at the places of matched detections, and the labels of these.

    Bottoms: detections (1, 1, M, 11), each the item, label, xmin, ymin, xmax, ymax, anchor, track, action, and x and y of its
    place; for each of 4 anchors a map of embeddings (N, E, H, W), to which the gradient goes. A detection counts where its item
    is not negative and its action below ``num_valid_actions``, if that is given. Tops: embeddings (K, E), and labels (K), the
    number at ``label_src_pos`` of each. A third top has, by ``output_instance_weights``, 1 over the number of detections of the
    same item and track (K), or, by ``output_proposals``, the item and the box (K, 5). Where none counts, K is 1, the embedding 0,
    and the rest -1. K is known after a pass only.
    """

    options = ("embedding_extractor_param",)
    bottoms = (1 + ANCHORS, 1 + ANCHORS)
    tops = (2, 3)
    differentiable = (False, True)
    open_axes = (0,)
    traceable = False

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.embedding_extractor_param
        if options.num_anchors != ANCHORS:
            raise self.error(f"embedding_extractor_param.num_anchors: {options.num_anchors} must be {ANCHORS}")
        self.label: int = options.label_src_pos
        if not options.HasField("label_src_pos") or not 0 <= self.label < RECORD:
            raise self.error(
                f"embedding_extractor_param.label_src_pos must be given, from 0 to {RECORD - 1}, not {self.label}"
            )
        self.actions: int = options.num_valid_actions if options.HasField("num_valid_actions") else -1
        self.weighs, self.proposes = options.output_instance_weights, options.output_proposals
        if self.n_tops == 3 and self.weighs == self.proposes:
            raise self.error(
                "its third top needs one of embedding_extractor_param.output_instance_weights and output_proposals"
            )
        first = tuple(bottom_shapes[1])
        if len(first) != 4 or any(tuple(shape) != first for shape in bottom_shapes[2:]):
            raise self.error(
                "its maps of embeddings must have one shape (num, channels, height, width), not "
                f"{', '.join(dims(shape) for shape in bottom_shapes[1:])}"
            )

    def forward(self, detections: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        if detections.dim() != 4 or detections.shape[3] != RECORD:
            raise self.error(f"takes detections of shape 1×1×number×{RECORD}, not {dims(detections.shape)}")
        if detections.is_meta:
            return self._none(maps[0])
        records = detections.detach().reshape(-1, RECORD)
        whole = records.long()
        valid = whole[:, ITEM] >= 0
        if self.actions >= 0:
            valid &= whole[:, ACTION] < self.actions
        records, whole = records[valid], whole[valid]
        if not len(records):
            return self._none(maps[0])
        stacked = torch.stack(maps)
        for column, size, what in ((ANCHOR, 0, "anchor"), (ITEM, 1, "item"), (Y, 3, "row"), (X, 4, "column")):
            index, most = whole[:, column], stacked.shape[size]
            if bool(((index < 0) | (index >= most)).any()):
                raise self.error(f"a detection has {what} {index.max().item()}; there are {most}, from 0 on")
        embeddings = stacked[whole[:, ANCHOR], whole[:, ITEM], :, whole[:, Y], whole[:, X]]
        tops = (embeddings, whole[:, self.label].to(records.dtype))
        if self.n_tops == 2:
            return tops
        if self.proposes:
            return *tops, torch.cat((whole[:, [ITEM]].to(records.dtype), records[:, BOX]), 1)
        _, instance, number = (whole[:, TRACK] * 1000 + whole[:, ITEM]).unique(return_inverse=True, return_counts=True)
        return *tops, 1 / number[instance].to(records.dtype)

    def _none(self, like: Tensor) -> tuple[Tensor, ...]:
        """The tops where no detection counts."""
        tops = (like.new_zeros((1, like.shape[1])), like.new_full((1,), -1))
        if self.n_tops == 2:
            return tops
        return *tops, like.new_full((1, 5) if self.proposes else (1,), -1)
