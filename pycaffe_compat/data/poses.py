"""Batches of pictures of people, changed at random, and of maps of where their joints and limbs are.

Source: cpm_data_transformer.cpp of CMU-Perceptual-Computing-Lab/caffe_train, and data_transformer.cpp of shihenw/caffe. The
records are theirs: Datums whose first three channels are a picture, the next one numbers about the people in it, and others
masks.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import DataError, prefixed
from . import draws
from .batches import Shape, Shard
from .database import Database
from .datum import datum_to_array, parse_datum
from .loader import Buffers, Job

CREATE = "training/genLMDB.py of the pose estimation's repository makes such a database"
GREY, KNOWN = 128, 255  # around a picture, and around its mask
HIDDEN, OUTSIDE, UNMARKED = 0, 2, 3  # of a joint; 1 is one that can be seen
_WORDS = 6  # random numbers for a picture
_FAR = 4.6052  # where a hill is lower than 1/100
_LIMB = np.float32(0.125)  # limbs are drawn for maps with this many places a pixel, whatever the stride, as in the fork
_LARGEST = 1 << 14  # a side of a resized picture


@dataclass(frozen=True)
class Skeleton:
    """What joints of a record become.

    Attributes:
        first, second: the joints of the record that each joint lies between; empty for those of the record as they are.
        right, left: the joints that mirroring exchanges.
        limbs: pairs of joints.
    """

    first: Sequence[int] = ()
    second: Sequence[int] = ()
    right: Sequence[int] = ()
    left: Sequence[int] = ()
    limbs: Sequence[tuple[int, int]] = ()


@dataclass
class Person:
    """Where somebody is, x and y; the scale; and x, y, and what is known of each joint."""

    place: np.ndarray
    scale: float
    joints: np.ndarray
    seen: np.ndarray

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> Person:
        """The person where all places have gone through ``move``, which takes and returns (n, 2)."""
        return Person(move(self.place[None])[0], self.scale, move(self.joints), self.seen)


@dataclass(frozen=True)
class PoseOptions:
    """What is done to pictures.

    Attributes:
        size: height and width of what is cut out.
        stride: pixels for a place of the maps.
        scale: the share of pictures that are resized at random, and by how much, least and most.
        target: the scale that a person gets otherwise.
        degrees, reach, mirrored: the most degrees to turn by; pixels to miss a person by; the share that is mirrored.
        sigma: of the hill at a joint, in pixels.
        tiles, limit: of CLAHE, which spreads brightness; 0 tiles for none.
        grey: make pictures grey.
        joints: how many a record has.
        self_marks: whether a joint of the first person can be unmarked.
    """

    size: tuple[int, int]
    stride: int
    scale: tuple[float, float, float]
    target: float
    degrees: float
    reach: float
    mirrored: float
    sigma: float
    tiles: int
    limit: int
    grey: bool
    joints: int
    self_marks: bool


Fill = Callable[[np.ndarray, np.ndarray, "list[Person]", "np.ndarray | None"], None]


class PoseReader:
    """Batches of pictures and maps of the records of an LMDB, in key order, starting over at the end.

    Args:
        path: the database.
        batch_size: how many pictures a batch has.
        options, skeleton: what is done to them.
        channels: how many a record may have.
        masked: whether channel 4 is a mask.
        tops: the channels of pictures and of maps; 0 for those of the record.
        fill: called with a picture, C×H×W, whose channels from the fourth on are 0, its maps, all 0, the people, and the mask
            or None; it fills in the rest.

    Raises:
        MissingFileError, DataError: the database or its first record cannot be used.
    """

    def __init__(
        self,
        path: str,
        batch_size: int,
        options: PoseOptions,
        skeleton: Skeleton,
        channels: tuple[int, int],
        masked: bool,
        tops: tuple[int, int],
        fill: Fill,
    ) -> None:
        self.batch_size = batch_size
        self._options, self._skeleton, self._channels, self._masked = options, skeleton, channels, masked
        with prefixed("data_param.source"):
            self._database = Database(path, CREATE)
        item = self._database.read(0)
        with prefixed(self._name(item)):
            planes, _ = self.read(item[1])
        self._tops = tops[0] or len(planes), tops[1]
        self._fill = fill
        self._pictures, self._maps = Buffers(), Buffers()

    def __len__(self) -> int:
        return len(self._database)

    def _name(self, item: tuple[bytes, memoryview]) -> str:
        return f'record "{item[0].decode(errors="backslashreplace")}" of {self._database.path}'

    def shapes(self) -> list[Shape]:
        """Return the shapes of pictures and maps."""
        height, width = self._options.size
        stride = self._options.stride
        pictures, maps = self._tops
        return [
            (self.batch_size, pictures, height, width),
            (self.batch_size, maps, height // stride, width // stride),
        ]

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        """Return the arrays of the batch at ``position`` and the jobs that fill them."""
        positions = shard.positions(position, self.batch_size)
        shares = (draws.words(shard.seed, positions, _WORDS) >> np.uint64(11)) * 2.0**-53
        shapes = self.shapes()
        pictures, maps = self._pictures.take(*shapes[0]), self._maps.take(*shapes[1])
        items = [self._database.read(int(at)) for at in positions]

        def fill(i: int) -> None:
            with prefixed(self._name(items[i])):
                planes, people = self.read(items[i][1])
                picture, mask, people = self.changed(planes, people, shares[i])
            pictures[i, :3] = (picture.transpose(2, 0, 1).astype(np.float32) - GREY) / 256
            pictures[i, 3:] = 0
            maps[i] = 0
            self._fill(pictures[i], maps[i], people, mask)

        return [pictures, maps], [functools.partial(fill, i) for i in range(self.batch_size)]

    def read(self, value: memoryview) -> tuple[np.ndarray, list[Person]]:
        """Return the channels of a record, C×H×W bytes, and its people, the one that it is about first.

        Raises:
            DataError: it is no such record.
        """
        record = parse_datum(value)
        if record.encoded or not len(record.data):
            raise DataError("holds no bytes of picture, people and masks, one channel after the other")
        planes = datum_to_array(record)
        least, most = self._channels
        if not least <= len(planes) <= most:
            raise DataError(f"has {len(planes)} channels; expected {least}{f' to {most}' if most > least else ''}")
        return planes, read_people(planes[3], self._options.joints, self._options.self_marks)

    def changed(
        self, planes: np.ndarray, people: list[Person], shares: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, list[Person]]:
        """Return a picture (H, W, 3) of the final size, its mask, and where the people are in it; ``shares`` are random."""
        options = self._options
        picture = _recoloured(np.ascontiguousarray(planes[:3].transpose(1, 2, 0)), options)
        images = [(picture, GREY)]
        if self._masked:
            images.append((np.ascontiguousarray(planes[4]), KNOWN))
        people = [self._posed(person) for person in people]
        images, people = _resized(images, people, options, shares[:2])
        images, people = _turned(images, people, (2 * shares[2] - 1) * options.degrees)
        images, people = _cut(images, people, options, shares[3:5])
        if shares[5] <= options.mirrored:
            images = [(np.ascontiguousarray(image[:, ::-1]), around) for image, around in images]
            people = [self._mirrored(person) for person in people]
        return images[0][0], images[1][0] if self._masked else None, people

    def _posed(self, person: Person) -> Person:
        """A person with the joints of the skeleton."""
        first, second = list(self._skeleton.first), list(self._skeleton.second)
        if not first:
            return person
        seen = np.stack([person.seen[first], person.seen[second]])
        both = (seen != HIDDEN).all(0).astype(int)
        if self._options.self_marks:
            both[(seen == UNMARKED).any(0)] = UNMARKED
        both[(seen == OUTSIDE).any(0)] = OUTSIDE
        joints = (person.joints[first] + person.joints[second]) * np.float32(0.5)
        return Person(person.place, person.scale, joints, both)

    def _mirrored(self, person: Person) -> Person:
        width = self._options.size[1]
        flipped = person.moved(lambda places: np.stack([width - 1 - places[:, 0], places[:, 1]], 1))
        ones, others = list(self._skeleton.right), list(self._skeleton.left)
        order = np.arange(len(flipped.joints))
        order[ones + others] = order[others + ones]
        return Person(flipped.place, flipped.scale, flipped.joints[order], flipped.seen[order])


def read_people(plane: np.ndarray, joints: int, marks: bool) -> list[Person]:
    """Return the people described by a channel's bytes, row by row: the one that the record is about, then others.

    Args:
        plane: H×W bytes.
        joints: how many each has.
        marks: whether 3 says that a joint of the first person is not marked.

    Raises:
        DataError: the rows are too few or too short for them, or hold numbers that are none.
    """
    height, width = plane.shape
    others = int(plane[2, 1]) if height > 2 and width > 1 else 0
    rows, columns = 9 + 4 * others if others else 8, max(15, 4 * joints, 4 * others)
    if height < rows or width < columns:
        raise DataError(
            f"has a fourth channel of {height}×{width} bytes; {others + 1} people with {joints} joints (np_in_lmdb) take {rows} "
            f"rows of {columns}"
        )

    def floats(row: int, count: int, start: int = 0) -> np.ndarray:
        return np.frombuffer(plane[row, start : start + 4 * count].tobytes(), "<f4").astype(np.float32)

    size = np.trunc(floats(1, 2))[::-1]

    def person(place: np.ndarray, scale: float, row: int, first: bool) -> Person:
        places = np.stack([floats(row, joints), floats(row + 1, joints)], 1) - 1  # the first pixel was number 1
        known = floats(row + 2, joints)
        seen = (known != 0).astype(int)
        unmarked = (known == UNMARKED) if first and marks else np.zeros_like(seen, bool)
        outside = ((places < 0) | (places >= size)).any(1)
        seen[outside] = OUTSIDE
        seen[unmarked] = UNMARKED
        return Person(place - 1, scale, places, seen)

    people = [person(floats(3, 2), float(floats(4, 1)[0]), 5, True)]
    for p in range(others):
        scale = float(floats(8 + others, 1, 4 * p)[0])
        people.append(person(floats(8 + p, 2), scale, 9 + others + 3 * p, False))
    numbers = np.concatenate([people[0].place, size, [people[0].scale], *(each.joints.ravel() for each in people)])
    if not np.isfinite(numbers).all() or people[0].scale <= 0:
        raise DataError(
            f"has a person of scale {people[0].scale:g} at {', '.join(f'{x:g}' for x in people[0].place)}; all numbers must "
            "be finite, and the scale above 0"
        )
    return people


Images = list[tuple[np.ndarray, int]]


def _recoloured(picture: np.ndarray, options: PoseOptions) -> np.ndarray:
    if options.tiles:
        lab = cv2.cvtColor(picture, cv2.COLOR_BGR2Lab)
        clahe = cv2.createCLAHE(options.limit, (options.tiles, options.tiles))
        lab[..., 0] = clahe.apply(np.ascontiguousarray(lab[..., 0]))
        picture = cv2.cvtColor(lab, cv2.COLOR_Lab2BGR)
    if options.grey:
        picture = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return picture


def _resized(
    images: Images, people: list[Person], options: PoseOptions, shares: np.ndarray
) -> tuple[Images, list[Person]]:
    share, least, most = options.scale
    factor = np.float32(1)
    if shares[0] <= share:
        factor = np.float32((most - least) * shares[1] + least)
    scale = np.float32(options.target / people[0].scale) * factor
    height, width = images[0][0].shape[:2]
    if scale * min(height, width) < 0.5 or scale * max(height, width) > _LARGEST:
        raise DataError(f"would be resized by {scale:g} from {height}×{width} pixels: look at the scale of its person")
    images = [
        (cv2.resize(image, None, fx=float(scale), fy=float(scale), interpolation=cv2.INTER_CUBIC), around)
        for image, around in images
    ]
    return images, [person.moved(lambda places: places * scale) for person in people]


def _turned(images: Images, people: list[Person], degrees: float) -> tuple[Images, list[Person]]:
    height, width = images[0][0].shape[:2]
    middle = (width / 2, height / 2)
    matrix = cv2.getRotationMatrix2D(middle, degrees, 1)
    corners = cv2.boxPoints((middle, (width, height), degrees))
    low, high = np.floor(corners.min(0)), np.ceil(corners.max(0))
    size = (high - low + 1).astype(int)
    matrix[:, 2] += size / 2 - middle
    images = [
        (
            cv2.warpAffine(
                image,
                matrix,
                (int(size[0]), int(size[1])),
                flags=cv2.INTER_CUBIC,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(around,) * 3,
            ),
            around,
        )
        for image, around in images
    ]
    return images, [
        person.moved(lambda places: (places @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)) for person in people
    ]


def _cut(images: Images, people: list[Person], options: PoseOptions, shares: np.ndarray) -> tuple[Images, list[Person]]:
    miss = np.trunc((shares - 0.5) * 2 * options.reach).astype(np.float32)
    centre = np.rint(people[0].place + miss).astype(int)
    height, width = options.size
    left, top = centre - (width // 2, height // 2)
    cut = []
    for image, around in images:
        whole = np.full((height, width, *image.shape[2:]), around, np.uint8)
        rows = slice(max(top, 0), max(min(top + height, image.shape[0]), 0))
        columns = slice(max(left, 0), max(min(left + width, image.shape[1]), 0))
        part = image[rows, columns]
        if part.size:
            down, across = rows.start - top, columns.start - left
            whole[down : down + part.shape[0], across : across + part.shape[1]] = part
        cut.append((whole, around))
    offset = -np.array([left, top], np.float32)
    return cut, [person.moved(lambda places: places + offset) for person in people]


def add_hill(plane: np.ndarray, centre: np.ndarray, stride: int, sigma: float) -> None:
    """Add a hill of height 1 around ``centre``, x and y in pixels, to a map; what is above 1 becomes 1."""
    start = np.float32(stride / 2 - 0.5)
    x = start + np.arange(plane.shape[1], dtype=np.float32) * stride - centre[0]
    y = start + np.arange(plane.shape[0], dtype=np.float32) * stride - centre[1]
    exponent = ((x * x)[None] + (y * y)[:, None]) / (2 * np.float32(sigma) ** 2)
    plane += np.where(exponent > _FAR, 0, np.exp(-exponent)).astype(np.float32)
    np.minimum(plane, 1, out=plane)


def draw_limb(planes: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    """Write the direction from one joint to another, both in pixels, at most a place away from the line, into maps (2, H, W)."""
    a, b = one * _LIMB, other * _LIMB
    length = math.hypot(*(b - a))
    if not length > 0:
        return
    towards = ((b - a) / np.float32(length)).astype(np.float32)
    low, high = np.minimum(a, b) - 1, np.maximum(a, b) + 1
    first = np.maximum(_rounded(low), 0)
    last = np.minimum(_rounded(high), (planes.shape[2], planes.shape[1]))
    x, y = np.arange(first[0], last[0]), np.arange(first[1], last[1])[:, None]
    near = np.abs((x - a[0]) * towards[1] - (y - a[1]) * towards[0]) <= 1
    for plane, step in zip(planes, towards, strict=True):
        part = plane[first[1] : max(last[1], first[1]), first[0] : max(last[0], first[0])]
        part[near] = step


def _rounded(places: np.ndarray) -> np.ndarray:
    """Halves away from 0."""
    return np.trunc(places + np.copysign(0.5, places)).astype(int)
