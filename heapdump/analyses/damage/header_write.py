"""A write over the header between two blocks: whether it ran on from the block before, or began before its own block.

In: the block before, the block of the header, the damaged bytes, memory. Out: the direction, and the first byte that
the write changed. The bytes between the end of the block before and the header tell the cases apart:

* They continue into the header (one byte repeated, text, pointers): the block before was overrun.
* The header is changed right behind that end: overrun as well, but for a single word, which may be a field of its own.
* They do not continue, or the header's first half is unchanged: the write began before its own block.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from heapdump.blocks.table import Block
from heapdump.memory.space import AddressSpace

_WORD, _HALF = 8, 4
_LOOK_BACK = 64
"""Bytes before the header that are compared with it, at most."""

_LOOK_AHEAD = 16
"""Bytes of the block behind the header that are compared with it."""

_TEXT = re.compile(rb"[\x20-\x7e\t\r\n]+")
_WIDE = re.compile(rb"(?:[\x20-\x7e]\0)+[\x20-\x7e]?|\0(?:[\x20-\x7e]\0)+[\x20-\x7e]?")


class Direction(Enum):
    """The direction of a write over a header: OVERRUN of the block before, or UNDERRUN of the header's own block."""

    OVERRUN = "overrun"
    UNDERRUN = "underrun"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class OverwrittenHeader:
    """A damaged header word and the blocks on both sides; all members are addresses.

    Attributes:
        end: behind the requested bytes of the block before; behind the entry of a free one.
        word: of the header word, which has 8 bytes.
        damage: of the first changed byte of the word; None where it is not known.
        user: of the user data of the header's own block.
    """

    end: int
    word: int
    damage: int | None
    user: int


@dataclass(frozen=True, slots=True)
class HeaderWrite:
    """A write over a header.

    Attributes:
        direction: where it came from.
        start: address of the first byte that it changed.
        evidence: why, in words.
    """

    direction: Direction
    start: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Memory, and the blocks on both sides of a header.

    Attributes:
        space: memory of the process.
        before: the block before the header.
        own: the block of the header; None where it has no row.
        is_pointer: True for an address of committed memory.
    """

    space: AddressSpace
    before: Block
    own: Block | None
    is_pointer: Callable[[int], bool]

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""
        return self.space.pointer_bytes


def judge_header_write(around: Surroundings, header: OverwrittenHeader) -> HeaderWrite:
    """The direction and the first byte of the write that damaged a header."""
    body = around.space.try_read(header.word, _WORD)
    if body is None:
        return HeaderWrite(Direction.OPEN, header.word, "the header is not in the dump")
    ahead = _ahead(around, header)
    continues = _continues(around, ahead, body, header)
    lead = (header.damage or header.word) - header.word
    if lead >= _HALF and not continues:
        return HeaderWrite(Direction.UNDERRUN, header.word + lead, f"the first {lead} bytes of the header are whole")
    if around.before.state == "free":
        return _after_free(header, ahead, continues=continues)
    if not ahead:
        return _adjacent(around, header, body)
    if continues:
        return HeaderWrite(Direction.OVERRUN, header.end, f"{continues} from {header.end:#x} on")
    ran_into = _common(around, body, _beyond(around, header))
    if ran_into in ("text", "UTF-16 text", "pointers") or (ran_into == "one byte repeated"):
        return HeaderWrite(Direction.OVERRUN, header.word + lead, f"{ran_into} on both sides of the block's start")
    gap = header.word - header.end
    return HeaderWrite(
        Direction.UNDERRUN,
        header.word + lead,
        f"the {gap} bytes between {header.end:#x} and the header do not look like it",
    )


def _after_free(header: OverwrittenHeader, ahead: bytes, *, continues: str) -> HeaderWrite:
    """A free block before the header: to blame only where the damage begins in its own bytes."""
    if continues and len(ahead) >= _WORD:
        return HeaderWrite(Direction.OVERRUN, header.word - len(ahead), f"{continues} from the freed bytes on")
    return HeaderWrite(Direction.OPEN, header.damage or header.word, "the block before is free")


def _adjacent(around: Surroundings, header: OverwrittenHeader, body: bytes) -> HeaderWrite:
    """Damage right behind the end of the block before: open where one word of its own was written."""
    tail = around.space.try_read(header.word - _WORD, _WORD) or b""
    sides = (_common(around, tail, body), _common(around, body, _beyond(around, header)))
    if all(side in ("", "zeros") for side in sides) and _is_lone_word(around, body):
        return HeaderWrite(Direction.OPEN, header.word, "one word, exactly between both blocks")
    return HeaderWrite(Direction.OVERRUN, header.end, "the damage begins where its bytes end")


def _is_lone_word(around: Surroundings, body: bytes) -> bool:
    """True where the header was replaced by a pointer to another place, or by two small numbers."""
    value = int.from_bytes(body[: around.pointer_bytes], "little")
    rest = body[around.pointer_bytes :]
    if around.is_pointer(value) and not any(rest):
        return not around.before.address <= value < around.before.end
    numbers = (int.from_bytes(body[:4], "little"), int.from_bytes(body[4:], "little"))
    return all(number < 0x10000 for number in numbers) and any(numbers)


def _ahead(around: Surroundings, header: OverwrittenHeader) -> bytes:
    """The bytes between the end of the block before and the header; of a free block its last bytes."""
    size = _LOOK_BACK if around.before.state == "free" else header.word - header.end
    size = min(max(size, 0), _LOOK_BACK)
    return around.space.try_read(header.word - size, size) or b""


def _beyond(around: Surroundings, header: OverwrittenHeader) -> bytes:
    return around.space.try_read(header.user, _LOOK_AHEAD) or b""


def _continues(around: Surroundings, ahead: bytes, body: bytes, header: OverwrittenHeader) -> str:
    """The words for contents that run from `ahead` into the header; "" where they do not."""
    if not ahead:
        return ""
    found = _common(around, ahead, body)
    if found or _TEXT.fullmatch(ahead) is None:
        return found
    # a string that ends with the first byte of the header
    return "text" if body[(header.damage or header.word) - header.word] == 0 and len(ahead) > 1 else ""


def _common(around: Surroundings, first: bytes, second: bytes) -> str:
    """The words for what two neighbouring runs of bytes have in common; "" for nothing."""
    if not first or not second:
        return ""
    if len(set(first[-_WORD:])) == 1 and _is_mostly(second[:_WORD], first[-1]):
        return "one byte repeated" if first[-1] else "zeros"
    text, following = _TEXT.fullmatch(first), _TEXT.match(second)
    if text and following and following.end() >= min(4, len(second)):
        return "text"
    if _is_wide(first, second):
        return "UTF-16 text"
    pointer = around.pointer_bytes
    if len(first) >= pointer and len(second) >= pointer:
        pair = int.from_bytes(first[-pointer:], "little"), int.from_bytes(second[:pointer], "little")
        if all(around.is_pointer(value) for value in pair):
            return "pointers"
    return ""


def _is_mostly(data: bytes, byte: int) -> bool:
    """True where the data begin with four such bytes, or are 8 of which one is another.

    Folklore: ntdll changes the checksum byte of a damaged header when it decodes it (recorded overruns of 9600 on).
    """
    return data[:4] == bytes([byte]) * 4 or (len(data) == _WORD and data.count(byte) >= _WORD - 1)


def _is_wide(first: bytes, second: bytes) -> bool:
    """True where the bytes of both together are UTF-16 text of ASCII characters, at either byte."""
    joined = first[-_WORD:] + second[:_WORD]
    return len(joined) >= _WORD and _WIDE.fullmatch(joined) is not None
