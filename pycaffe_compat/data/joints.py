"""Batches of pictures of people, and of maps that tell where their joints are."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import DataError, prefixed, require_file
from ..proto.kinds import LISTS, told_apart
from . import draws
from .batches import Shape, Shard
from .image_list import NUMBER, read_image, read_lines
from .loader import Buffers, Job

_FORM = "IMAGE X,Y,… CROP CLASS"
_SIGMA = 1.5  # of the hill at a joint, in places of a map
_INSIDE = 40  # of 255: what is brighter in a mask is of the person
_WORDS = 4  # random numbers for a picture


@dataclass(frozen=True)
class Person:
    """A line of a list: the path of a picture, and x and y of each joint."""

    path: str
    joints: np.ndarray


def read_joints(path: str | os.PathLike[str], picks: Sequence[int] = ()) -> list[Person]:
    """Read a list of pictures and joints, four words on each line; the last two are not used.

    Args:
        path: the list file.
        picks: which numbers of a line to take, counted from 1; all if empty.

    Raises:
        MissingFileError: there is no such file.
        DataError: a line has not the form, or other numbers of joints than the first. The message names file and line.
    """
    name = require_file(path, "list file")
    people: list[Person] = []
    with told_apart(name, LISTS, f'a list: a text file with a line "{_FORM}" for each picture'):
        for number, line in read_lines(name):
            words = line.split()
            numbers = words[1].split(",") if len(words) == 4 else []
            if not numbers or not all(NUMBER.fullmatch(each) for each in numbers):
                raise DataError(f'{name}:{number}: "{line[:80]}"; expected "{_FORM}", without spaces in a word')
            if picks and max(picks) > len(numbers):
                raise DataError(
                    f"{name}:{number}: has {len(numbers)} numbers, but labelinds asks for number {max(picks)}"
                )
            taken = [float(numbers[pick - 1]) for pick in sorted(set(picks))] if picks else list(map(float, numbers))
            if len(taken) % 2:
                raise DataError(f"{name}:{number}: has {len(taken)} numbers; x and y of each joint are expected")
            if people and len(taken) != people[0].joints.size:
                raise DataError(
                    f"{name}:{number}: has {len(taken)} numbers, but the first line {people[0].joints.size}; all need as many"
                )
            people.append(Person(words[0], np.array(taken, np.float32).reshape(-1, 2)))
        if not people:
            raise DataError(f'list file {name} is empty; expected a line "{_FORM}" for each picture')
    return people


@dataclass(frozen=True)
class JointOptions:
    """What is done to pictures and joints.

    Attributes:
        root: a prefix of every path; text, not a folder.
        crop: the side of what is cut from a picture.
        size: the side that this is resized to.
        map_size: the side of the maps.
        factor: pixels of a picture for 1 in the numbers of joints.
        scale: a factor of all values.
        at_random: cut at a random place, mirror half, and turn; else cut the middle.
        angle: the most degrees to turn by.
        swap: exchange joints when mirroring, in pairs.
        first_swapped: the first number of the first pair.
        masked: blacken what lies outside of the person.
    """

    root: str
    crop: int
    size: int
    map_size: int
    factor: float
    scale: float
    at_random: bool
    angle: float
    swap: bool
    first_swapped: int
    masked: bool


class JointReader:
    """Batches of pictures, N×3×S×S (RGB), and of maps, N×J×M×M, ``float32``, in the order of a list."""

    def __init__(self, people: Sequence[Person], batch_size: int, options: JointOptions) -> None:
        self.batch_size = batch_size
        self._people, self._options = people, options
        self._pictures, self._maps = Buffers(), Buffers()

    def __len__(self) -> int:
        return len(self._people)

    def shapes(self) -> list[Shape]:
        """Return the shapes of pictures and maps; the first picture must be there."""
        self.read(self._people[0])
        side, maps = self._options.size, self._options.map_size
        return [(self.batch_size, 3, side, side), (self.batch_size, len(self._people[0].joints), maps, maps)]

    def begin(self, shard: Shard, position: int) -> tuple[list[np.ndarray], list[Job]]:
        """Return the arrays of the batch at ``position`` and the jobs that fill them."""
        positions = shard.positions(position, self.batch_size)
        words = draws.words(shard.seed, positions, _WORDS).tolist()
        side, maps, joints = self._options.size, self._options.map_size, len(self._people[0].joints)
        pictures = self._pictures.take(self.batch_size, 3, side, side)
        hills = self._maps.take(self.batch_size, joints, maps, maps)

        def fill(i: int) -> None:
            person = self._people[int(positions[i]) % len(self._people)]
            picture, places = self.changed(self.read(person), person.joints, words[i])
            pictures[i] = picture.transpose(2, 0, 1)
            hills[i] = self.hills(places)

        return [pictures, hills], [functools.partial(fill, i) for i in range(self.batch_size)]

    def read(self, person: Person) -> np.ndarray:
        """Return a picture, H×W×3 (RGB), ``float32``, at least as large as the crop.

        Raises:
            MissingFileError, DataError: it or its mask is missing, does not decode, or is too low.
        """
        path, crop = self._options.root + person.path, self._options.crop
        with prefixed(f"picture {path}"):
            picture = read_image(path)[:, :, ::-1].astype(np.float32)
            if picture.shape[0] < crop:
                raise DataError(f"is {picture.shape[0]} pixels high, less than cropsize {crop}")
        if self._options.masked:
            path = f"{self._options.root}segs/{person.path}"
            with prefixed(f"mask {path}"):
                mask = read_image(path, color=False)
                if mask.shape != picture.shape[:2]:
                    raise DataError("is not as large as its picture")
            picture *= (mask > _INSIDE)[:, :, None]
        lacking = crop - picture.shape[1]
        return np.pad(picture, ((0, 0), (0, lacking), (0, 0))) if lacking > 0 else picture

    def changed(self, picture: np.ndarray, joints: np.ndarray, words: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return a picture cut, turned and resized, and where its joints are then; ``words`` are random."""
        options, joints = self._options, joints.copy()
        rows, columns = picture.shape[0] - options.crop, picture.shape[1] - options.crop
        top, left = rows // 2, columns // 2
        if options.at_random:
            if words[0] & 1:
                picture = picture[:, ::-1]
                joints[:, 0] = np.float32(picture.shape[1] / options.factor) - joints[:, 0]
                if options.swap:
                    joints = self._swapped(joints)
            top, left = words[1] % (rows + 1), words[2] % (columns + 1)
        picture = np.ascontiguousarray(picture[top : top + options.crop, left : left + options.crop])
        joints -= np.array([left, top], np.float32) / np.float32(options.factor)
        if options.at_random:
            angle = (2 * words[3] / 2**64 - 1) * options.angle
            middle = options.crop // 2
            matrix = cv2.getRotationMatrix2D((middle, middle), angle, 1)
            picture = cv2.warpAffine(picture, matrix, (options.crop, options.crop))
            joints = ((joints * options.factor) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32) / np.float32(
                options.factor
            )
        picture = cv2.resize(picture, (options.size, options.size)) * np.float32(options.scale)
        return picture, joints * np.float32(options.size / options.crop)

    def _swapped(self, joints: np.ndarray) -> np.ndarray:
        """Exchange the joints of each pair."""
        first = self._options.first_swapped // 2
        if (len(joints) - first) % 2:
            raise DataError(
                f"mirroring exchanges joints in pairs from joint {first + 1} on, but there are {len(joints)}; set "
                "flip_joint_labels: false, or dont_flip_first to fit"
            )
        pairs = joints[first:].reshape(-1, 2, 2)[:, ::-1].reshape(-1, 2)
        return np.concatenate([joints[:first], pairs])

    def hills(self, joints: np.ndarray) -> np.ndarray:
        """Return a map for each joint: 4 times the density of a normal distribution, by its distance in places."""
        options = self._options
        places = joints * np.float32(options.map_size / options.size) * np.float32(options.factor)
        at = np.arange(options.map_size)
        squares = (at[:, None] - places[:, 1, None, None]) ** 2 + (at - places[:, 0, None, None]) ** 2
        return 4 / (_SIGMA * np.sqrt(2 * np.pi)) * np.exp(-0.5 * squares / _SIGMA**2)
