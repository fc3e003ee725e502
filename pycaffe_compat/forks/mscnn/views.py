"""What a net sees of a scene: its picture, mirrored, resized, scaled and cut, and the boxes with it.

Sources: zhaoweicai/mscnn, image_gt_data_layer.cpp, and zhaoweicai/cascade-rcnn, detection_data_layer.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ...data.datum import decode_image
from ...data.image_list import read_file, resize
from ...data.window_file import nearest_integer
from ...errors import DataError, prefixed
from .scenes import Scene, Size

NOISE = 10  # pixels that a picture is moved at most, at random
ENLARGED = 1.5  # a picture that grows by more is cut first
CONTEXT = 1.2  # to this part of what will be seen

MIRROR, BOX, ACROSS, DOWN, SCALED, SCALE, STRETCHED, STRETCH, SIDE, NOISE_X, NOISE_Y, TEMPLATE, COLOURS, WORDS = range(
    14
)


class View(NamedTuple):
    """A picture in memory, H×W×3, and the boxes (n, 4) and other regions (m, 4) that belong to it."""

    picture: np.ndarray
    boxes: np.ndarray
    others: np.ndarray

    @property
    def size(self) -> Size:
        """Height and width of the picture."""
        return self.picture.shape[0], self.picture.shape[1]

    def moved(self, factor: Sequence[float], shift: Sequence[float]) -> View:
        """Scale boxes and regions by ``factor`` and add ``shift``, x and y each; the picture stays."""
        by, add = np.array([*factor] * 2, np.float32), np.array([*shift] * 2, np.float32)
        return self._replace(boxes=self.boxes * by + add, others=self.others * by + add)

    def mirrored(self) -> View:
        """Left for right."""
        width = self.picture.shape[1]
        turned = (
            np.column_stack((width - x[:, 2], x[:, 1], width - x[:, 0], x[:, 3])) for x in (self.boxes, self.others)
        )
        return View(np.ascontiguousarray(self.picture[:, ::-1]), *turned)

    def resized(self, size: Size) -> View:
        """Of another size.

        Raises:
            DataError: a side would have no pixel.
        """
        have = self.size
        if size == have:
            return self
        if min(size) < 1:
            raise DataError(f"would be resized to {size[0]} × {size[1]} pixels (height × width)")
        return self._replace(picture=resize(self.picture, size)).moved((size[1] / have[1], size[0] / have[0]), (0, 0))


def open_scene(scene: Scene, file: Callable[[str], bytes] = read_file, check: bool = False) -> View:
    """Read and decode the picture of a scene.

    Args:
        check: whether its size must be the one that the window file says.

    Raises:
        MissingFileError, DataError: it is missing, or does not decode, or has another size.
    """
    data = file(scene.image)
    with prefixed(scene.image):
        view = View(decode_image(data, True), scene.boxes, scene.others)
        if check and view.size != scene.size:
            have, said = (" × ".join(map(str, size)) for size in (view.size, scene.size))
            raise DataError(f"is {have} pixels (height × width), but the window file says {said}")
        return view


class Cut(NamedTuple):
    """What is shown of a picture: where it begins in the batch's picture (left, top), and how wide and high it is."""

    left: int
    top: int
    width: int
    height: int


def share(word: int) -> float:
    """A number in [0, 1) of a random word."""
    return (word >> 11) * 2.0**-53


def choose_centre(view: View, size: Size, words: Sequence[int]) -> tuple[float, float, int | None]:
    """The point to have in the middle, x and y: that of a box, and which; or where there is none, any.

    Args:
        size: of what will be cut.
    """
    if len(view.boxes):
        box = words[BOX] % len(view.boxes)
        x1, y1, x2, y2 = view.boxes[box].tolist()
        return (x1 + x2) / 2, (y1 + y2) / 2, box
    have, want = view.size[::-1], size[::-1]
    x, y = (
        words[at] % (h - w + 1) + w / 2 if h >= w else h / 2
        for at, h, w in zip((ACROSS, DOWN), have, want, strict=True)
    )
    return x, y, None


def rescaled(view: View, factor: tuple[float, float], centre: tuple[float, float]) -> tuple[View, tuple[float, float]]:
    """Scale a picture by ``factor``, x and y, and return it with where its centre came to lie.

    One that grows much is cut around its centre first.

    Raises:
        DataError: a side would have no pixel.
    """
    if factor == (1, 1):
        return view, centre
    if max(factor) > ENLARGED:
        have = view.size[::-1]
        cut = [min(nearest_integer(CONTEXT * h / f), h) for h, f in zip(have, factor, strict=True)]
        left, top = (
            max(nearest_integer(c - w * 0.5), 0) - max(max(nearest_integer(c - w * 0.5), 0) + w - h, 0)
            for c, w, h in zip(centre, cut, have, strict=True)
        )
        part = view.picture[top : top + cut[1], left : left + cut[0]]
        view = view._replace(picture=part).moved((1, 1), (-left, -top))
        centre = centre[0] - left, centre[1] - top
    rows, columns = view.size
    size = nearest_integer(rows * factor[1]), nearest_integer(columns * factor[0])
    if min(size) < 1:
        raise DataError(f"would be scaled to {size[0]} × {size[1]} pixels (height × width)")
    view = view._replace(picture=resize(view.picture, size)).moved(factor, (0, 0))
    return view, (centre[0] * factor[0], centre[1] * factor[1])


def placed(view: View, size: Size, centre: Sequence[float], words: Sequence[int]) -> tuple[View, Cut]:
    """Cut a picture to ``size`` around a centre, or lay a smaller one in the middle: not far from there, at random."""
    parts, begins, lengths, shift = [], [], [], []
    for have, want, c, word in zip(view.size[::-1], size[::-1], centre, (words[NOISE_X], words[NOISE_Y]), strict=True):
        noise, start, begin = word % (2 * NOISE) - NOISE, 0, 0
        if have < want:
            begin = min(max(nearest_integer((want - have) / 2) + noise, 0), want - have)
        elif have > want:
            start = min(max(nearest_integer(c) + noise - nearest_integer(want / 2), 0), have - want)
        length = min(have, want)
        parts.append(slice(start, start + length))
        begins.append(begin)
        lengths.append(length)
        shift.append(begin - start)
    return view._replace(picture=view.picture[parts[1], parts[0]]).moved((1, 1), shift), Cut(*begins, *lengths)
