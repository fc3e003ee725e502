"""DenseCRF, as DeepLab's Caffe has it (xmyqsh/deeplab-v2, densecrf_layer.cpp and util/densecrf_pairwise.cpp).

Krähenbühl, Koltun: *Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials* (NIPS 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...errors import DataError
from ...layers.base import Layer, Shape, untraced
from ...layers.loss import FLT_MIN, precise
from ...layers.registry import register
from ...tables import dims
from ..crfasrnn.lattice import Lattice, colours, normalized, places

_CUT = 20  # the fork's exponential is 0 below e^-20


@register("DenseCRF", fork=("deeplab", "deeplab_v1", "pspnet"))
class DenseCRF(Layer):
    """Class probabilities after mean-field steps of a dense conditional random field; or their logarithms.

    Bottoms: scores (N, C, H, W), the sizes that images have of that (N, 1, 1, 2), the rest being padding, and the images
    (N, 3, H, W), if there are filters by colour. Each of ``max_iter`` steps adds to the scores the probabilities
    filtered by place (``pos_xy_std``, weight ``pos_w``) and by place and colour (``bi_xy_std``, ``bi_rgb_std``, ``bi_w``).
    ``output_probability: false`` makes logarithms. The padding of a top is 0. There is no gradient.
    """

    head = True
    bottoms = (2, 3)
    differentiable = (False,)

    def __init__(self, param: Any, bottom_shapes: Sequence[Shape]) -> None:
        super().__init__(param, bottom_shapes)
        options = param.dense_crf_param
        scores, sizes, *image = (tuple(shape) for shape in bottom_shapes)
        if len(scores) != 4 or sizes != (scores[0], 1, 1, 2) or image not in ([], [(scores[0], 3, *scores[2:])]):
            raise self.error(
                "needs scores (num, channels, height, width), sizes (num, 1, 1, 2) and, for filters by colour, images (num, 3, "
                f"height, width), but they have {', '.join(map(dims, bottom_shapes))}"
            )
        self.near = self._filters(options, "pos_xy_std", "pos_w")
        self.alike = self._filters(options, "bi_xy_std", "bi_rgb_std", "bi_w")
        if bool(image) != bool(self.alike):
            raise self.error(
                "needs both images, as a third bottom, and bi_w, bi_xy_std and bi_rgb_std, or none of them"
            )
        self.steps: int = options.max_iter
        self.logarithms = not options.output_probability

    def _filters(self, options: Any, *names: str) -> list[tuple[float, ...]]:
        values = [list(getattr(options, name)) for name in names]
        if len({len(each) for each in values}) > 1:
            raise self.error(f"dense_crf_param: {', '.join(names)} must be given equally often")
        if any(not value > 0 for each in values[:-1] for value in each):
            raise self.error(f"dense_crf_param: {' and '.join(names[:-1])} must be above 0")
        return list(zip(*values, strict=True))

    @torch.no_grad()
    @untraced
    def forward(self, scores: Tensor, sizes: Tensor, image: Tensor | None = None) -> Tensor:
        """Return probabilities, or their logarithms, in the shape of the scores.

        Raises:
            LayerError: an image is not finite or has no pixels, or the deviations are too small for its size.
        """
        top = torch.zeros_like(scores)
        if scores.is_meta:
            return top
        for n, (height, width) in enumerate(sizes.flatten(1).long().tolist()):
            if height >= scores.shape[2] and width >= scores.shape[3]:
                height, width = scores.shape[2:]
            height, width = min(height, scores.shape[2]), min(width, scores.shape[3])
            if height < 1 or width < 1:
                raise self.error(
                    f"the size of image {n} is {height} × {width} (height × width); it must be at least 1 × 1"
                )
            picture = None if image is None else image[n, :, :height, :width]
            share = self._infer(precise(scores[n, :, :height, :width]), picture)
            if self.logarithms:
                share = share.clamp(min=FLT_MIN).log()
            top[n, :, :height, :width] = share.T.reshape(-1, height, width).to(top.dtype)
        return top

    def _infer(self, scores: Tensor, image: Tensor | None) -> Tensor:
        """The probabilities, N × C, of the pixels of scores C×H×W."""
        height, width = scores.shape[1:]
        own = scores.flatten(1).T
        filters: list[tuple[float, Lattice, Tensor]] = []
        try:
            for std, weight in self.near:
                filters.append((weight, *normalized(places(height, width, std, scores.device))))
            for std, colour_std, weight in self.alike:
                assert image is not None
                filters.append((weight, *normalized(colours(image, std, colour_std))))
        except DataError as error:
            raise self.error(str(error)) from error
        share = _shares(own)
        for _ in range(self.steps):
            share = _shares(own + sum(weight * norm * lattice.filter(share) for weight, lattice, norm in filters))
        return share


def _shares(scores: Tensor) -> Tensor:
    """The softmax over classes, N × C, of which very small terms are 0."""
    below = scores - scores.amax(1, keepdim=True)
    terms = below.exp().masked_fill(below < -_CUT, 0)
    return terms / terms.sum(1, keepdim=True)
