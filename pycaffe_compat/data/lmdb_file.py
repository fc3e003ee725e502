"""The pages of an LMDB's data file, read in key order without the library's lock.

The package ``lmdb`` opens a file only once in a process: nobody could read a database here that a script has open, or open
one that a net reads. Caffe's programs do both. Writing is the library's.

Source: LMDB 0.9, data format 1, of a 64-bit little-endian machine.
"""

from __future__ import annotations

import bisect
import mmap
import struct
from typing import NamedTuple

from ..errors import DataError

MAGIC, VERSION = 0xBEEFC0DE, 1
BRANCH, LEAF = 1, 2  # flags of a page
BIG, OTHER = 1, 6  # flags of a record: its value has pages of its own; it is a database, or holds sorted duplicates
NONE = (1 << 64) - 1  # the root of an empty tree
HEAD = struct.Struct("<QHHHH")  # number, padding, flags, end of the pointers, begin of the nodes
META = struct.Struct("<IIQQ 48x IHHQQQQQ QQ")  # what page 0 or 1 holds; the 48 bytes are the tree of free pages
NODE = struct.Struct("<HHHH")  # size of the value or page (two halves), flags (or its third part), size of the key
PAGE_SIZE, POINTER, NUMBER, PAIR = (struct.Struct(f"<{kind}") for kind in ("I", "H", "Q", "II"))
DEEPEST = 32  # levels of a tree, as in LMDB


class Tree(NamedTuple):
    """What a meta page says: its transaction, the last page, and the main tree's root and number of records."""

    transaction: int
    last: int
    root: int
    entries: int


class FormatError(DataError):
    """The file is no LMDB of this format; ``newer``: it is one of another."""

    newer = False


class DataFile:
    """A ``data.mdb``, mapped; values are views into the map.

    Attributes:
        entries: the number of records.

    Raises:
        FormatError: it is no LMDB, or one of another format.
        DataError: it is truncated.
    """

    def __init__(self, path: str, name: str) -> None:
        self.name = name
        with open(path, "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._view = memoryview(self._map)
        have = len(self._view)
        first = HEAD.size + META.size
        if have < first:
            raise FormatError(f"{name} is not an LMDB: its data.mdb has {have} bytes")
        magic, version = PAIR.unpack_from(self._view, HEAD.size)
        if (magic, version) != (MAGIC, VERSION):
            error = FormatError(f"{name} is not an LMDB of format {VERSION}")
            error.newer = magic == MAGIC
            raise error
        (self._size,) = PAGE_SIZE.unpack_from(self._view, HEAD.size + 24)  # the padding of the tree of free pages
        if not 256 <= self._size <= 1 << 16:
            raise FormatError(f"{name} is not an LMDB: its pages have {self._size} bytes")
        trees = [tree for page in (0, 1) if (tree := self._meta(page)) is not None]
        self.tree = max(trees)
        self.entries = self.tree.entries
        needed = (self.tree.last + 1) * self._size
        if have < needed:
            raise DataError(
                f"{name} is truncated: data.mdb has {have} bytes, but its header says {needed}; copy it again"
            )

    def _meta(self, page: int) -> Tree | None:
        begin = page * self._size + HEAD.size
        if begin + META.size > len(self._view):
            return None
        magic, version, _, _, _, _, _, _, _, _, entries, root, last, transaction = META.unpack_from(self._view, begin)
        return Tree(transaction, last, root, entries) if (magic, version) == (MAGIC, VERSION) else None

    def damaged(self, what: str) -> DataError:
        """Return (for the caller to raise) the error of a file that contradicts itself."""
        return DataError(f"{self.name} is damaged: {what}; copy or make it again")

    def page(self, number: int) -> tuple[int, int, int]:
        """Where page ``number`` of a tree begins, its flags, and how many nodes it has.

        Raises:
            DataError: the file is damaged.
        """
        begin = number * self._size
        if number > self.tree.last:
            raise self.damaged(f"it has no page {number}")
        _, _, flags, end, _ = HEAD.unpack_from(self._view, begin)
        nodes = (end - HEAD.size) // 2
        if flags & (BRANCH | LEAF) not in (BRANCH, LEAF) or not 0 < nodes <= (self._size - HEAD.size) // 2:
            raise self.damaged(f"page {number} does not belong to the tree of records")
        return begin, flags, nodes

    def node(self, begin: int, index: int) -> tuple[int, int, int, int]:
        """Node ``index`` of the page that begins there: where its key begins, the key's size, the node's number and flags.

        Raises:
            DataError: the file is damaged.
        """
        (offset,) = POINTER.unpack_from(self._view, begin + HEAD.size + 2 * index)
        if not HEAD.size <= offset <= self._size - NODE.size:
            raise self.damaged(f"page {begin // self._size} has no node {index}")
        low, high, flags, key = NODE.unpack_from(self._view, begin + offset)
        return begin + offset + NODE.size, key, low | high << 16, flags

    def child(self, begin: int, index: int) -> int:
        """The page that node ``index`` of the branch that begins there leads to."""
        _, _, low, high = self.node(begin, index)
        return low | high << 32

    def key(self, begin: int, index: int) -> bytes:
        """The key of node ``index`` of the page that begins there."""
        at, size, _, _ = self.node(begin, index)
        return bytes(self._view[at : at + size])

    def record(self, begin: int, index: int) -> tuple[bytes, memoryview]:
        """Key and value of record ``index`` of the leaf that begins there.

        Raises:
            DataError: the file is damaged, or is no database of Caffe's kind.
        """
        at, size, length, flags = self.node(begin, index)
        if flags & OTHER:
            raise DataError(
                f"{self.name} contains named databases or duplicate keys; Caffe's LMDBs have one value per key"
            )
        key, at = bytes(self._view[at : at + size]), at + size
        if flags & BIG:
            (number,) = NUMBER.unpack_from(self._view, at)
            if number > self.tree.last:
                raise self.damaged(f"it has no page {number}")
            at = number * self._size + HEAD.size
        if len(key) < size or at + length > len(self._view):
            raise self.damaged(f"the record {key!r} extends beyond the end of the file")
        return key, self._view[at : at + length]


class Cursor:
    """A place in a :class:`DataFile`, which goes forward in key order, or to a key."""

    def __init__(self, file: DataFile) -> None:
        self._file = file
        self._path: list[tuple[int, int, int]] = []  # of the branches, from the root: begin, nodes, the node taken
        self._begin = self._nodes = self._at = 0  # the same of the leaf

    def first(self) -> bool:
        """Go to the first record; False if there is none."""
        self._path = []
        if self._file.tree.root == NONE:
            return False
        self._descend(self._file.tree.root)
        return True

    def seek(self, key: bytes) -> bool:
        """Go to the first record whose key is not before ``key``; False if there is none."""
        self._path = []
        if self._file.tree.root == NONE:
            return False
        self._descend(self._file.tree.root, key)
        if self._at < self._nodes:
            return True
        self._at -= 1
        return self.next()

    def next(self) -> bool:
        """Go to the next record; False behind the last one."""
        self._at += 1
        if self._at < self._nodes:
            return True
        while self._path:
            begin, nodes, at = self._path.pop()
            if at + 1 < nodes:
                self._path.append((begin, nodes, at + 1))
                self._descend(self._file.child(begin, at + 1))
                return True
        return False

    def _descend(self, number: int, key: bytes = b"") -> None:
        """Go to the first record below a page whose key is not before ``key``, or behind the last one of its leaf."""
        while True:
            begin, flags, nodes = self._file.page(number)
            if flags & LEAF:
                self._begin, self._nodes, self._at = begin, nodes, self._before(begin, 0, nodes, key)
                return
            if len(self._path) >= DEEPEST:
                raise self._file.damaged("its tree has no leaves")
            # the first node of a branch stands for all keys before the second's, and has none of its own
            after = self._before(begin, 1, nodes, key)
            equal = after < nodes and self._file.key(begin, after) == key
            at = after if equal else after - 1
            self._path.append((begin, nodes, at))
            number = self._file.child(begin, at)

    def _before(self, begin: int, first: int, nodes: int, key: bytes) -> int:
        """The first node, from ``first`` on, of the page that begins there whose key is not before ``key``."""
        if not key:
            return first
        return bisect.bisect_left(range(nodes), key, lo=first, key=lambda index: self._file.key(begin, index))

    def record(self) -> tuple[bytes, memoryview]:
        """Key and value of the record here."""
        return self._file.record(self._begin, self._at)
