"""Blocks of the CRT's debug heap in words: source file and line, without a PDB (semantics.md §2.4)."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.crt_blocks import USES, CrtBlocks
from heapdump.memory.space import AddressSpace
from heapdump.wording import preview

_MOST_PATH = 260
_SHOWN = 16
_NOT_CRT = "not a block of the CRT's debug heap"
_IS_PATH = re.compile(rb"[\x20-\x7e\x80-\xff]+")


@dataclass(frozen=True, slots=True)
class CrtBlock:
    """One block of the CRT's debug heap.

    Attributes:
        address: address that the program got.
        size: bytes that the program requested.
        file: source file that allocated it; None where it is not recorded or readable.
        line: line in that file.
        request: number of the allocation.
        use: normal, CRT, ignored, client or free.
        subtype: of a client block; 0 for others.
        damage: a sentence for each changed guard, as the CRT prints it.
    """

    address: int
    size: int
    file: str | None
    line: int
    request: int
    use: str
    subtype: int
    damage: tuple[str, ...]

    @property
    def source(self) -> str:
        """`path(line)`, or the use of a block without a recorded file."""
        return f"{self.file}({self.line})" if self.file else f"{self.use} block without a recorded source"

    @property
    def words(self) -> str:
        """The line that _CrtDumpMemoryLeaks prints."""
        where = f"{self.file}({self.line}) : " if self.file else ""
        subtype = f", subtype {self.subtype:x}" if self.use == "client" else ""
        return f"{where}{{{self.request}}} {self.use} block at {self.address:#x}{subtype}, {self.size:,} bytes long"


def describe(space: AddressSpace, blocks: CrtBlocks) -> list[CrtBlock]:
    """The blocks with the names that they point to; each name is read once."""
    names: dict[int, str | None] = {0: None}
    out = []
    columns = (getattr(blocks, name).tolist() for name in ("user", "size", "file", "line", "request", "use", "guards"))
    for user, size, file, line, request, use, guards in zip(*columns, strict=True):
        if file not in names:
            names[file] = file_name(space, file)
        word = USES[use & 0xFFFF]
        places = [place for bit, place in ((1, "before"), (2, "after")) if guards & bit]
        damage = tuple(
            f"HEAP CORRUPTION DETECTED: {place} {word.capitalize()} block (#{request}) at {user:#x}" for place in places
        )
        out.append(CrtBlock(user, size, names[file], line, request, word, use >> 16, damage))
    return out


def file_name(space: AddressSpace, address: int) -> str | None:
    """The source file's path at an address; None where there is none."""
    for size in (_MOST_PATH, 64, 16):
        data = space.try_read(address, size)
        if data is not None:
            path, end, _ = data.partition(b"\0")
            return path.decode("latin-1") if end and _IS_PATH.fullmatch(path) else None
    return None


def by_source(space: AddressSpace, rows: NDArray[np.int64], blocks: CrtBlocks) -> tuple[NDArray[np.int64], list[str]]:
    """(group number of each row, (n,) int64 from 0; labels by number).

    A group for each file, line and use; group 0 has the rows that are no CRT debug blocks. `blocks`: the CRT debug
    blocks among `rows`, which ascend.
    """
    labels = {_NOT_CRT: 0}
    numbers = np.zeros(len(rows), np.int64)
    places = np.searchsorted(rows, blocks.row)
    keys = (
        np.stack([blocks.file.view(np.int64), blocks.line, blocks.use & 0xFFFF])
        if len(blocks)
        else np.empty((3, 0), np.int64)
    )
    _, first, inverse = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    examples = CrtBlocks(*(getattr(blocks, name)[first] for name in CrtBlocks.__slots__))
    of_key = np.array([labels.setdefault(block.source, len(labels)) for block in describe(space, examples)], np.int64)
    numbers[places] = of_key[inverse.reshape(-1)]
    return numbers, list(labels)


def data_line(space: AddressSpace, block: CrtBlock) -> str:
    """`Data: <ascii> hex`, as the CRT prints the first 16 bytes."""
    data = space.try_read(block.address, min(block.size, _SHOWN)) or b""
    return f"Data: <{preview(data)}> {data.hex(' ').upper()}"
