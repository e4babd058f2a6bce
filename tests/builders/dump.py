"""Minidumps made to order: header, streams and memory, written byte by byte.

In: chained calls that say what the dump contains. Out: its bytes (`build`) or a sparse file (`write`), both
with the truth. Layouts are restated by hand on purpose (see `dump_streams`); nothing of the tool under test
is imported.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal, Self

from . import dump_streams as streams
from .dump_truth import (
    Arch,
    BuiltDump,
    DumpTruth,
    ExceptionTruth,
    MiscTruth,
    ModuleTruth,
    Pdb,
    RegionTruth,
    ThreadInfoTruth,
    ThreadTruth,
    UnloadedTruth,
    Version,
)

_Encoder = Callable[[], bytes]


class DumpBuilder:
    """A minidump in the making. Records, regions and memory ranges are written in the order of the calls."""

    def __init__(
        self,
        *,
        arch: Arch = "x64",
        os: tuple[int, int, int] = (10, 0, 19041),
        flags: int = 0x1826,
        timestamp: int = 1_700_000_000,
        memory_list: Literal["64", "32"] = "64",
    ) -> None:
        """Begin an empty dump; `flags` are MINIDUMP_TYPE bits, `timestamp` is seconds since 1970."""
        self.arch = arch
        self.os = os
        self._flags = flags
        self._timestamp = timestamp
        self._memory_list = memory_list
        self._modules: list[ModuleTruth] = []
        self._threads: list[ThreadTruth] = []
        self._regions: list[RegionTruth] = []
        self._memory: list[tuple[int, int, bytes | None]] = []
        self._exception: ExceptionTruth | None = None
        self._misc: MiscTruth | None = None
        self._unloaded: list[UnloadedTruth] = []
        self._names: list[tuple[int, str]] = []
        self._infos: list[ThreadInfoTruth] = []
        self._comments: list[tuple[str, bool]] = []
        self._raw: list[tuple[int, bytes]] = []
        self._dropped: set[int] = set()

    def module(
        self,
        base: int,
        size: int,
        path: str,
        *,
        version: Version | None = (10, 0, 19041, 508),
        timestamp: int = 0x5F000000,
        checksum: int = 0,
        pdb: Pdb | None = None,
    ) -> Self:
        """Add an image [base, base + size); `pdb` is (file name, 16 GUID bytes as stored, age)."""
        if pdb and len(pdb[1]) != 16:
            raise ValueError("a PDB identity has 16 GUID bytes")
        self._modules.append(ModuleTruth(base, size, path, version, timestamp, checksum, pdb))
        return self

    def thread(
        self,
        tid: int,
        teb: int,
        *,
        stack: tuple[int, int] = (0, 0),
        ip: int = 0,
        sp: int = 0,
        registers: dict[str, int] | None = None,
    ) -> Self:
        """Add a thread; `stack` is (address, size) of its used stack; a `memory` range may hold its bytes."""
        self._threads.append(ThreadTruth(tid, teb, stack, ip, sp, tuple((registers or {}).items())))
        return self

    def memory(self, address: int, data: bytes) -> Self:
        """Add one memory range with these bytes."""
        self._memory.append((address, len(data), bytes(data)))
        return self

    def zeros(self, address: int, size: int) -> Self:
        """Add one memory range of `size` zero bytes; `write` leaves a hole for it."""
        self._memory.append((address, size, None))
        return self

    def region(
        self,
        base: int,
        size: int,
        *,
        state: str = "MEM_COMMIT",
        type: str = "MEM_PRIVATE",
        protect: int = 0x04,
        allocation_base: int | None = None,
        allocation_protect: int = 0x04,
    ) -> Self:
        """Add a record of the memory map; free ones get the values VirtualQuery gives them."""
        if state == "MEM_FREE":
            self._regions.append(RegionTruth(base, size, state, "", 0x01, 0, 0))
            return self
        start = base if allocation_base is None else allocation_base
        shown = 0 if state == "MEM_RESERVE" else protect
        self._regions.append(RegionTruth(base, size, state, type, shown, start, allocation_protect))
        return self

    def exception(
        self,
        tid: int,
        code: int,
        address: int,
        parameters: Sequence[int] = (),
        *,
        flags: int = 0,
        ip: int = 0,
        sp: int = 0,
        registers: Mapping[str, int] | None = None,
    ) -> Self:
        """Set the exception record; `ip` defaults to `address`; `registers`: of its own context."""
        named = tuple((registers or {}).items())
        self._exception = ExceptionTruth(tid, code, address, tuple(parameters), flags, ip or address, sp, named)
        return self

    def misc(self, pid: int, *, create_time: int = 0, user_time: int = 0, kernel_time: int = 0, size: int = 24) -> Self:
        """Set the misc stream; `size` is 24, 44, 232, 832 or 1364 bytes."""
        self._misc = MiscTruth(pid, create_time, user_time, kernel_time, size)
        return self

    def unloaded(self, base: int, size: int, name: str, *, timestamp: int = 0) -> Self:
        """Add an unloaded image."""
        self._unloaded.append(UnloadedTruth(base, size, name, timestamp))
        return self

    def thread_name(self, tid: int, name: str) -> Self:
        """Name a thread."""
        self._names.append((tid, name))
        return self

    def thread_info(self, tid: int, *, start_address: int = 0, create_time: int = 0) -> Self:
        """Add a thread information record; `create_time` in 100 ns since 1601."""
        self._infos.append(ThreadInfoTruth(tid, start_address, create_time))
        return self

    def comment(self, text: str, *, wide: bool = False) -> Self:
        """Add a comment stream, ANSI (10) or wide (11)."""
        self._comments.append((text, wide))
        return self

    def stream(self, number: int, data: bytes) -> Self:
        """Add a raw stream; one of this number made by another call stays unless it is dropped."""
        self._raw.append((number, bytes(data)))
        return self

    def drop(self, number: int) -> Self:
        """Leave the builder's own stream of this number out; the memory bytes stay in the file."""
        self._dropped.add(number)
        return self

    def build(self) -> BuiltDump:
        """Return the dump's bytes and truth; ranges made by `zeros` are materialised."""
        file = BytesIO()
        truth = self._emit(file)
        data = file.getvalue()
        return BuiltDump(data.ljust(truth.size, b"\0"), truth)

    def write(self, path: Path) -> DumpTruth:
        """Write the dump to `path`; ranges made by `zeros` become holes and cost neither time nor disk."""
        with Path(path).open("wb") as file:
            truth = self._emit(file)
            file.truncate(truth.size)
        return truth

    def _emit(self, file: BinaryIO) -> DumpTruth:
        measured, _ = self._metadata(0)
        base = len(measured)
        metadata, numbers = self._metadata(base)
        file.write(metadata)
        position = base
        for _address, size, data in self._memory:
            if data is not None:
                file.seek(position)
                file.write(data)
            position += size
        return self._truth(numbers, position)

    def _truth(self, numbers: tuple[int, ...], size: int) -> DumpTruth:
        return DumpTruth(
            arch=self.arch,
            os=self.os,
            flags=self._flags,
            timestamp=self._timestamp,
            modules=tuple(self._modules),
            threads=tuple(self._threads),
            regions=tuple(self._regions),
            ranges=self._ranges(),
            exception=self._exception,
            misc=self._misc,
            unloaded=tuple(self._unloaded),
            thread_names=tuple(self._names),
            thread_infos=tuple(self._infos),
            comments=tuple(text for text, _wide in self._comments),
            streams=numbers,
            size=size,
        )

    def _ranges(self) -> tuple[tuple[int, int], ...]:
        return tuple((address, size) for address, size, _data in self._memory)

    def _metadata(self, memory_base: int) -> tuple[bytes, tuple[int, ...]]:
        """Header, directory and all streams but the memory itself, whose file position is `memory_base`."""
        count = sum(1 for _ in self._encoders(streams.Blob(0), 0))
        blob = streams.Blob(32 + 12 * count)
        directory = bytearray()
        numbers = []
        for number, encode in self._encoders(blob, memory_base):
            body = encode()
            directory += struct.pack("<III", number, len(body), blob.put(body))
            numbers.append(number)
        blob.put(b"", 8)
        # 0xA793 is the format's version, the upper half names the writer's
        header = struct.pack("<4sIIIIIQ", b"MDMP", 0x61B1A793, count, 32, 0, self._timestamp, self._flags)
        return header + bytes(directory) + bytes(blob.data), tuple(numbers)

    def _encoders(self, blob: streams.Blob, base: int) -> Iterator[tuple[int, _Encoder]]:
        locate = self._locator(base)
        own: list[tuple[int, bool, _Encoder]] = [
            (7, True, lambda: streams.system_info(blob, self.arch, self.os)),
            (15, self._misc is not None, lambda: streams.misc_info(self._misc) if self._misc else b""),
            (4, True, lambda: streams.modules(blob, self._modules)),
            (3, True, lambda: streams.threads(blob, self.arch, self._threads, locate)),
            (17, bool(self._infos), lambda: streams.thread_infos(self._infos)),
            (24, bool(self._names), lambda: streams.thread_names(blob, self._names)),
            (16, bool(self._regions), lambda: streams.regions(self._regions)),
            (14, bool(self._unloaded), lambda: streams.unloaded(blob, self._unloaded)),
            (6, self._exception is not None, lambda: self._exception_stream(blob)),
        ]
        for number, wanted, encode in own:
            if wanted and number not in self._dropped:
                yield number, encode
        yield from self._loose_encoders(base)

    def _loose_encoders(self, base: int) -> Iterator[tuple[int, _Encoder]]:
        for text, wide in self._comments:
            data = (
                text.encode("utf-16-le", "surrogatepass") + b"\0\0"
                if wide
                else text.encode("utf-8", "surrogatepass") + b"\0"
            )
            number = 11 if wide else 10
            if number not in self._dropped:
                yield number, partial(bytes, data)
        for number, data in self._raw:
            yield number, partial(bytes, data)
        if self._memory_list == "64" and 9 not in self._dropped:
            yield 9, lambda: streams.memory64(self._ranges(), base)
        if self._memory_list == "32" and 5 not in self._dropped:
            yield 5, lambda: streams.memory32(self._ranges(), base)

    def _exception_stream(self, blob: streams.Blob) -> bytes:
        return streams.exception(blob, self.arch, self._exception) if self._exception else b""

    def _locator(self, base: int) -> streams.Locate:
        positions = []
        for address, size, _data in self._memory:
            positions.append((address, size, base))
            base += size
        positions.sort()
        starts = [address for address, _size, _position in positions]

        def locate(start: int, size: int) -> int:
            i = bisect_right(starts, start) - 1
            if size == 0 or i < 0 or start + size > positions[i][0] + positions[i][1]:
                return 0
            position = positions[i][2] + start - positions[i][0]
            return position if position < 1 << 32 else 0

        return locate
