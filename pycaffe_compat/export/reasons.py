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

_LATTICE = "it filters in a lattice that depends on the picture"
WHY: dict[type[Layer], str] = {  # for subclasses too
    DenseCRF: _LATTICE,
    DetectNetTransformation: "it changes pictures and makes labels for training",
    GlobalLSEMargin: "it takes the true labels",
    HardMining: "it chooses regions for training",
    MarginInnerProduct: "it takes the true labels; an InnerProduct of its weights has the scores of a trained net",
    MultiStageMeanfield: _LATTICE,
    ProposalTarget: "it takes the true boxes",
    PythonLayer: "it is a program of the net's own",
    ScaleTanH: "its scale depends on how many passes there were; a TanH after a Power has that of the last one",
    UniqueLabel: "it takes the true labels",
}
TRACED = "what it visits depends on values, which a trace would fix"


def why(kind: type[Layer]) -> str:
    """Why no target has a layer; an empty text where nothing is known."""
    return next((reason for each, reason in WHY.items() if issubclass(kind, each)), "")
