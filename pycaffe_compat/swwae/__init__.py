"""The paper: Zhang, Lee, Lee, *Augmenting Supervised Neural Networks with Unsupervised Objectives for Large-scale Image
Classification*, ICML 2016.

A classification net is given a mirrored decoder: a stacked what-where autoencoder (``swwae``, the decoder gets the
pooling switches) or an ordinary stacked autoencoder (``sae``, fixed switches); both are trained together.
"""

from .decoder import KINDS, OBJECTIVES, Decoder, augment, reconstruction_net
from .nets import alexnet, vgg

__all__ = ["KINDS", "OBJECTIVES", "Decoder", "alexnet", "augment", "reconstruction_net", "vgg"]
