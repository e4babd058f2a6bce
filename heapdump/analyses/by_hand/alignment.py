"""Instructions that end at an address, found backwards: instructions differ in length, so a start must be found first.

A decoding begins at each byte before the address. Decodings align themselves within some instructions: most of those
that meet the address go through the right instructions. So each instruction has as many votes as decodings go through
it, and of those that end at the same place the one with most votes wins.
"""

from __future__ import annotations

from heapdump.process.stacks.disassembly import LONGEST_INSTRUCTION, Instruction, decode, lengths

_PAGE, _FIRST_WEIGHT = 0x1000, 16
"""Where the code begins at a page, its first byte begins an instruction most likely, and counts more."""

_CALL_WEIGHT = 8
"""Factor of the votes of a call that ends at the asked address: most asked addresses are return addresses."""


def aligned_before(code: bytes, address: int, pointer_bytes: int, count: int) -> list[Instruction]:
    """At most `count` instructions, ascending, of which the last ends at an address. `code`: the bytes before it."""
    base, end = address - len(code), len(code)
    sizes = lengths(code, base, pointer_bytes)
    votes = _votes(sizes, _FIRST_WEIGHT if base % _PAGE == 0 else 1)
    found: list[Instruction] = []
    while len(found) < count:
        ending = [at for at in range(max(0, end - LONGEST_INSTRUCTION), end) if sizes[at] == end - at]
        candidates = [one for at in ending for one in decode(code[at:end], base + at, pointer_bytes)]
        if not candidates:
            break
        is_last = not found
        found.append(max(candidates, key=lambda one: _weight(one, votes[one.address - base], is_last=is_last)))
        end = found[-1].address - base
    return found[::-1]


def _weight(one: Instruction, votes: int, *, is_last: bool) -> tuple[int, int]:
    """Votes, those of a call several times; of equal ones the longer instruction."""
    return votes * (_CALL_WEIGHT if is_last and one.is_call else 1), len(one.data)


def _votes(sizes: list[int], first: int) -> list[int]:
    """For each byte the number of decodings, begun at any byte, that have an instruction there.

    The decoding that begins at the first byte counts `first` times.
    """
    votes = [first, *[1] * (len(sizes) - 1)]
    for at, size in enumerate(sizes):
        if size and at + size < len(sizes):
            votes[at + size] += votes[at]
    return votes
