"""LargeMarginInnerProduct: L-Softmax (happynear/caffe-windows, largemargin_inner_product_layer.cpp)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...layers.registry import register
from ..sphereface.margin_inner_product import MarginInnerProduct, psi

EPS = 1e-9


@register("LargeMarginInnerProduct", fork="happynear")
class LargeMarginInnerProduct(MarginInnerProduct):
    """As MarginInnerProduct, but for weights of any length: ``|w| |x| psi(m a)`` at the label.

    The weights stay as they are, and the gradients are the true ones.
    """

    options = ("largemargin_inner_product_param",)

    def before(self, weight: Tensor) -> Tensor:
        return weight

    def scores(self, x: Tensor, weight: Tensor, classes: Tensor, mix: Tensor) -> Tensor:
        products = F.linear(x, weight)
        own = products.gather(1, classes)
        lengths = (x.norm(dim=1) * weight[classes.flatten()].norm(dim=1))[:, None]
        mixed = (lengths * psi(own / (lengths + EPS), self.margin) + mix * own) / (1 + mix)
        return products.scatter(1, classes, mixed)
