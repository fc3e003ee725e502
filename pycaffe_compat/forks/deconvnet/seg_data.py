"""ImageSegData and WindowSegData, as DeconvNet's Caffe has them (HyeonwooNoh/caffe, image_seg_data_layer.cpp and others)."""

from __future__ import annotations

from ...layers.base import register
from ...layers.label_map_data import SegmentationSource

_OTHER_LAYERS = frozenset({"has_label", "max_labels", "other_object_label"})


@register("ImageSegData", fork="deconvnet")
class ImageSegData(SegmentationSource):
    """Images and label maps of a list, cropped and mirrored alike, label maps resized to the nearest pixels.

    ``label_type`` says what a line has beside the image: the path of a label map (PIXEL), one label (IMAGE), or nothing.
    """

    inert_options = _OTHER_LAYERS


@register("WindowSegData", fork="deconvnet")
class WindowSegData(SegmentationSource):
    """Windows of images and of their label maps: lines as of ImageSegData, and the corners x1, y1, x2, y2.

    A window is resized to ``new_height`` × ``new_width``. Outside its image it is black, its label map ``ignore_label``.
    """

    inert_options = _OTHER_LAYERS
    windows = True
