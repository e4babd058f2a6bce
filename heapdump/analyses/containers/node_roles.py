"""The kinds of containers whose elements are blocks, and what a block can be in one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class NodeKind(IntEnum):
    """A kind of container whose elements are blocks."""

    LIST = 1
    TREE = 2
    HASH = 3
    DEQUE = 4
    QHASH = 5
    QMAP = 6
    MFC_LIST = 7
    MFC_MAP = 8
    B_TREE = 9

    @property
    def words(self) -> str:
        """Its name in the library."""
        return _WORDS[self]


class Role(IntEnum):
    """The part of a block in a container."""

    NODE = 0
    BUCKETS = 1
    SLOTS = 2
    BLOCK = 3
    PROXY = 4
    HEAD = 5

    @property
    def words(self) -> str:
        """The word for it."""
        return ("node", "buckets", "map of blocks", "block", "proxy", "head")[self]


_WORDS = (
    "", "std::list", "std::map or set", "std::unordered_map or set", "std::deque", "QHash", "QMap", "CList (MFC)",
    "CMap (MFC)", "BTreeMap (Rust)",
)  # fmt: skip


@dataclass(frozen=True)
class ProvenContainers:
    """c containers of one kind, (c,) int64 each, and their m blocks.

    Attributes:
        owner: the node of the graph that each is a member of, -1 - area of a root.
        offset: bytes from the start of the owner.
        kind: of all of them.
        head: the first node, of a deque the block of its pointers, of Qt the block of its head.
        count: elements; 0 where they are not counted.
        members: (m,) int64 nodes.
        of: (m,) int64 the container that each belongs to, an index below c.
        role: (m,) uint8 `Role`.
    """

    owner: NDArray[np.int64]
    offset: NDArray[np.int64]
    kind: NodeKind
    head: NDArray[np.int64]
    count: NDArray[np.int64]
    members: NDArray[np.int64]
    of: NDArray[np.int64]
    role: NDArray[np.uint8]

    def __len__(self) -> int:
        """The number of containers."""
        return len(self.owner)
