"""What the data layers of MS-CNN and Cascade R-CNN share: how their options are checked, and the shapes that they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...data.window_file import nearest_integer
from ...layers.base import Shape
from ...layers.data_layers import BatchSource
from .scenes import Size
from .truth import COLUMNS


class SceneData(BatchSource):
    """The base class of layers that read a window file of pictures with boxes. Its first option field is the layer's own.

    Attributes:
        own_scale: the layer's own options have the ``scale`` of pixels, not ``transform_param``.
    """

    own_scale: ClassVar[bool] = False

    def check_transform(self, param: Any) -> None:
        """Check that ``transform_param`` sets only fields that the fork supports, and that ``scale`` is where it belongs.

        Raises:
            LayerError: it sets another one, or ``scale`` is elsewhere.
        """
        own = self.option_fields()[0]
        if not self.own_scale and getattr(param, own).HasField("scale"):
            raise self.error(f"does not support {own}.scale; give transform_param.scale")
        supported = {"mean_value", "mirror"} | (set() if self.own_scale else {"scale"})
        other = [field.name for field, _ in param.transform_param.ListFields() if field.name not in supported]
        if other == ["scale"]:
            raise self.error(f"does not support transform_param.scale; give {own}.scale")
        if other:
            raise self.error(
                f"does not support transform_param.{other[0]}; it supports only {', '.join(sorted(supported))}"
            )

    def check_tops(self, maps: int, boxes: bool) -> None:
        """Check that there are as many tops as the options say.

        Raises:
            LayerError: there are not.
        """
        want = 1 + maps + boxes
        if self.n_tops != want:
            raise self.error(
                f"has {self.n_tops} tops, but makes {want}: pictures, {maps} maps"
                f"{' and boxes' if boxes else ''} (output_gt_boxes)"
            )


def given_size(options: Any, name: str) -> Size | None:
    """``NAME_height`` and ``NAME_width``, if both are given."""
    both = f"{name}_height", f"{name}_width"
    if not all(map(options.HasField, both)):
        return None
    return getattr(options, both[0]), getattr(options, both[1])


def truth_shapes(batch: int, size: Size, strides: Sequence[int], columns: int) -> list[Shape] | None:
    """The shapes of pictures, a map for each stride, and one box of ``columns`` numbers; None for a stride below 1."""
    if min(strides, default=1) < 1:
        return None
    maps = [(batch, COLUMNS, *(nearest_integer(side / stride) for side in size)) for stride in strides]
    return [(batch, 3, *size), *maps, (1, columns, 1, 1)]
