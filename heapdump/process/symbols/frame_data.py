"""Frame data of an x86 PDB: how each piece of code finds its caller, also without a frame pointer.

Two streams, named in the optional debug header of the DBI stream: FPO (slot 0, `FPO_DATA` of 16 bytes: locals,
parameters and pushed registers counted) and new FPO (slot 9, `FRAMEDATA` of 32 bytes: a program in the string table).
Source: winnt.h, cvinfo.h of microsoft-pdb; LLVM's DebugFrameDataSubsection (four bytes may stand before the records).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purepdb import PDB

_FPO_SLOT, _NEW_FPO_SLOT = 0, 9
_FPO, _FRAME_DATA = struct.Struct("<IIIHH"), struct.Struct("<6IHHI")
_USES_EBP = 1 << 12
_PLAIN = "$eip .raSearch ^ = $esp .raSearch 4 + ="
_SAVES_EBP = "$eip .raSearch ^ = $ebp $esp .cbCalleeParams + .cbSavedRegs + 8 - ^ = $esp .raSearch 4 + ="
"""Programs that say what `FPO_DATA` means: the second for functions that use ebp for something else and saved it."""

_LONGEST_PROGRAM = 1024


@dataclass(frozen=True, slots=True)
class FrameRecord:
    """How code finds its caller.

    Attributes:
        start: RVA of the code.
        end: RVA behind it.
        local_bytes: bytes of its local variables on the stack.
        parameter_bytes: bytes of its parameters on the stack.
        saved_bytes: bytes of the registers that it pushes.
        program: computes the caller's registers, in reverse Polish notation: `$eip .raSearch ^ =` sets eip to the word
            at `.raSearch`.
    """

    start: int
    end: int
    local_bytes: int
    parameter_bytes: int
    saved_bytes: int
    program: str


class FrameData:
    """The records of one PDB by RVA; of several that hold an RVA the one that starts last."""

    def __init__(self, records: list[FrameRecord]) -> None:
        """`records`: in any order."""
        self._records = sorted(records, key=lambda record: (record.start, -record.end))
        self._starts = [record.start for record in self._records]

    def at(self, rva: int) -> FrameRecord | None:
        """The record of the code at an RVA; None where the PDB says nothing of it."""
        i = bisect_right(self._starts, rva)
        return next((one for one in reversed(self._records[max(0, i - 8) : i]) if rva < one.end), None)


def read_frame_data(pdb: PDB) -> FrameData:
    """The records of both streams of an open PDB; none where the PDB has neither stream."""
    return FrameData([*_new(pdb), *_old(pdb)])


def _stream(pdb: PDB, slot: int) -> bytes:
    index = pdb.dbi.dbg_stream(slot)
    return pdb.msf.read_stream(index) if pdb.msf.is_valid_stream(index) else b""


def _new(pdb: PDB) -> Iterator[FrameRecord]:
    data = _stream(pdb, _NEW_FPO_SLOT)
    strings = pdb.string_table() if data else None
    if strings is None:
        return
    first = 4 if len(data) % _FRAME_DATA.size == 4 else 0
    for at in range(first, len(data) - _FRAME_DATA.size + 1, _FRAME_DATA.size):
        rva, size, locals_, parameters, _, name, _, saved, _ = _FRAME_DATA.unpack_from(data, at)
        program = strings.get(name) or ""
        if program and len(program) <= _LONGEST_PROGRAM:
            yield FrameRecord(rva, rva + size, locals_, parameters, saved, program)


def _old(pdb: PDB) -> Iterator[FrameRecord]:
    """Of the body of each function only: within the prologue the registers are not pushed yet."""
    data = _stream(pdb, _FPO_SLOT)
    for at in range(0, len(data) - _FPO.size + 1, _FPO.size):
        rva, size, locals_, parameters, bits = _FPO.unpack_from(data, at)
        prolog, registers = bits & 0xFF, bits >> 8 & 7
        program = _SAVES_EBP if bits & _USES_EBP else _PLAIN
        yield FrameRecord(rva + prolog, rva + size, 4 * locals_, 4 * parameters, 4 * registers, program)
