"""Why some layers are not exported, or not to every target: what errors and the table of ``docs/export.md`` say."""

from __future__ import annotations

from ..forks.cascade_rcnn.hard_mining import HardMining
from ..forks.crfasrnn.mean_field import MultiStageMeanfield
from ..forks.deeplab.dense_crf import DenseCRF
from ..forks.deeplab.labels import UniqueLabel
from ..forks.happynear.global_margin import GlobalLSEMargin
from ..forks.hashnet.scale_tanh import ScaleTanH
from ..forks.mscnn.proposal_target import ProposalTarget
from ..forks.nvidia.detectnet import DetectNetTransformation
from ..forks.sphereface.margin_inner_product import MarginInnerProduct
from ..layers.base import Layer
from ..layers.python_layer import PythonLayer

_LATTICE = "it filters in a lattice that depends on the image"
WHY: dict[type[Layer], str] = {  # for subclasses too
    DenseCRF: _LATTICE,
    DetectNetTransformation: "it changes pictures and makes labels for training",
    GlobalLSEMargin: "it takes the true labels",
    HardMining: "it chooses regions for training",
    MarginInnerProduct: "it takes the true labels; an InnerProduct with its weights computes a trained net's scores",
    MultiStageMeanfield: _LATTICE,
    ProposalTarget: "it takes the true boxes",
    PythonLayer: "it runs Python code that comes with the net",
    ScaleTanH: "its scale depends on the number of passes so far; a Power and a TanH can replace it with the last scale",
    UniqueLabel: "it takes the true labels",
}
TRACED = "its control flow depends on values, which a trace would freeze"


def why(kind: type[Layer]) -> str:
    """Why no target has a layer; an empty text where nothing is known."""
    return next((reason for each, reason in WHY.items() if issubclass(kind, each)), "")
