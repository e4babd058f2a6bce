"""Code of an image that NGEN or crossgen compiled for one runtime ("fragile"): from an RVA to the MethodDesc.

CoreLib of .NET Core 2.x and the assemblies of .NET Framework are such images; the runtime's structures lie in them.
The CLR header's ManagedNativeHeader leads to "NGE\\0"; its directories {u32 RVA, u32 size} at 64 and 72 are the Module
and the code manager's table. That begins with the directories of hot, other and cold code. The Module has a pointer to
an `NGenLayoutInfo`, which repeats them, so it proves itself (P is the size of a pointer):

    0 {start, size} of hot, other and cold code · 6P their RUNTIME_FUNCTIONs · 9P three u32 numbers of them ·
    then, aligned to P: two arrays of u32, the MethodDescs of hot and other code · two lookup tables and their two u32
    sizes · the array of cold code

A MethodDesc is an RVA whose low bit says that the method has handlers; 0 belongs to a funclet of the function before.
The part of a method that lies in cold code names its first function: on x86 by UnwindData (the high bit is a mark), on
x64 by the first of two u32 in the array of cold code. Source: corcompile.h, ceeload.h, codeman.cpp (.NET Core 2.1).
Measured in CoreLib of 2.1.8 (x86): all 28,353 functions name a MethodDesc; x64 is by the source.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.runtimes.dotnet.pe import MappedImage, native_header

_MAGIC = b"NGE\0"
_MODULE, _CODE_MANAGER = 64, 72
_MOST_WORDS, _MOST_FUNCTIONS = 1024, 1 << 22
_SECTION_COUNT = 3
_COLD = 2
_HAS_HANDLERS = 1
_INDEX_MARK = 0x80000000


@dataclass(frozen=True, slots=True)
class NativeMethod:
    """The method whose code holds an RVA.

    Attributes:
        descriptor: RVA of its MethodDesc.
        start: RVA of the function that holds the RVA.
        is_whole: True where that function is the method's main function; False for funclets and for cold code.
    """

    descriptor: int
    start: int
    is_whole: bool


@dataclass(frozen=True, slots=True)
class _CodeSection:
    """Hot, other or cold code, [start, end) as RVAs.

    `table`: RVA of its RUNTIME_FUNCTIONs. `begins`, `ends`: of each function, ascending. `unwinds`: their UnwindData.
    """

    start: int
    end: int
    table: int
    begins: Sequence[int]
    ends: Sequence[int]
    unwinds: Sequence[int]

    def index_at(self, rva: int) -> int | None:
        """The index of the function that holds an RVA; None for none."""
        i = bisect_right(self.begins, rva) - 1 if self.start <= rva < self.end else -1
        return i if i >= 0 and rva < self.ends[i] else None


@dataclass(frozen=True, slots=True)
class NativeImage:
    """The precompiled code of one image.

    Attributes:
        image: the image.
        sections: hot, other and cold code.
        descriptors: for each function in hot and in other code the RVA of its MethodDesc; bit 0: it has handlers.
        mains: for each function in cold code the RVA of the RUNTIME_FUNCTION of its method; 0 for the method of the
            function before.
    """

    image: MappedImage
    sections: tuple[_CodeSection, ...]
    descriptors: tuple[Sequence[int], ...]
    mains: Sequence[int]

    def function_at(self, rva: int) -> tuple[int, int, int] | None:
        """(begin, end, unwind data) of the function that holds an RVA."""
        for part in self.sections:
            i = part.index_at(rva)
            if i is not None:
                return part.begins[i], part.ends[i], part.unwinds[i]
        return None

    def method_at(self, rva: int) -> NativeMethod | None:
        """The method whose code holds an RVA; None in no function."""
        for number, part in enumerate(self.sections):
            i = part.index_at(rva)
            if i is None:
                continue
            if number == _COLD:
                return self._cold(part, i)
            first, descriptor = _last_set(self.descriptors[number], i)
            return NativeMethod(descriptor & ~_HAS_HANDLERS, part.begins[i], first == i) if descriptor else None
        return None

    def _cold(self, cold: _CodeSection, i: int) -> NativeMethod | None:
        _, main = _last_set(self.mains, i)
        width = 12 if self.image.is_wide else 8
        for part, descriptors in zip(self.sections[:_COLD], self.descriptors, strict=True):
            k, rest = divmod(main - part.table, width)
            if not rest and 0 <= k < len(descriptors) and descriptors[k]:
                return NativeMethod(descriptors[k] & ~_HAS_HANDLERS, cold.begins[i], is_whole=False)
        return None


def _last_set(values: Sequence[int], i: int) -> tuple[int, int]:
    """(its index, the value) of the last one that is not 0 up to `i`; (-1, 0) where all are."""
    k = min(i, len(values) - 1)
    while k >= 0 and not values[k]:
        k -= 1
    return (k, values[k]) if k >= 0 else (-1, 0)


def native_image(image: MappedImage) -> NativeImage | None:
    """The precompiled code of an image; None where it has none of this kind, or where the dump lacks its tables."""
    at = native_header(image, _MAGIC)
    header = image.read(at, _CODE_MANAGER + 8) if at else None
    if header is None:
        return None
    module, module_size, manager, _ = struct.unpack_from("<4I", header, _MODULE)
    directories = image.read(manager, 8 * _SECTION_COUNT)
    if directories is None:
        return None
    code = [struct.unpack_from("<II", directories, 8 * i) for i in range(_SECTION_COUNT)]
    wanted = [(image.base + rva if size else 0, size) for rva, size in code]
    if not any(size for _, size in code):
        return None
    found = (_layout(image, place, wanted) for place in _pointers(image, module, module_size))
    return next((one for one in found if one is not None), None)


def _pointers(image: MappedImage, rva: int, size: int) -> Iterator[int]:
    """The RVAs of this image that words of the Module lead to."""
    width = 8 if image.is_wide else 4
    for i in range(min(size // width, _MOST_WORDS)):
        value = image.space.try_integer(image.address(rva + i * width), width)
        if value is not None and image.base < value < image.base + image.size:
            yield value - image.base


def _layout(image: MappedImage, rva: int, wanted: list[tuple[int, int]]) -> NativeImage | None:
    """The tables of the NGenLayoutInfo at an RVA; None where there is none with this code."""
    p = 8 if image.is_wide else 4
    numbers_end = -(-(9 * p + 4 * _SECTION_COUNT) // p) * p
    data = image.read(rva, numbers_end + 5 * p + 8)
    if data is None:
        return None
    words = [int.from_bytes(data[i * p : i * p + p], "little") for i in range(9)]
    own = [(words[2 * i], words[2 * i + 1]) for i in range(_SECTION_COUNT)]
    if any(one[1] != two[1] or (two[1] and one != two) for one, two in zip(own, wanted, strict=True)):
        return None
    counts = struct.unpack_from("<3I", data, 9 * p)
    tables = [_rva(image, word) for word in words[6:]]
    sections = tuple(
        _part(image, _rva(image, start), size, table, count)
        for (start, size), table, count in zip(own, tables, counts, strict=True)
    )
    descs = [
        _rva(image, int.from_bytes(data[numbers_end + i * p : numbers_end + (i + 1) * p], "little")) for i in (0, 1)
    ]
    descriptors = tuple(_numbers(image, rva, len(part.begins)) for rva, part in zip(descs, sections, strict=False))
    cold = _rva(image, int.from_bytes(data[numbers_end + 4 * p + 8 : numbers_end + 5 * p + 8], "little"))
    return NativeImage(image, sections, descriptors, _mains(image, cold, sections[_COLD]))


def _rva(image: MappedImage, address: int) -> int:
    return address - image.base if image.base < address < image.base + image.size else 0


def _part(image: MappedImage, start: int, size: int, table: int, count: int) -> _CodeSection:
    """The functions of a part of the code; none where their table is not in the dump."""
    columns = 3 if image.is_wide else 2
    count = min(count, _MOST_FUNCTIONS, image.size // (4 * columns))
    data = image.read(table, 4 * columns * count) if table and count else None
    rows = np.frombuffer(data or b"", "<u4").reshape(-1, columns)
    begins = rows[:, 0]
    if len(begins) and not bool((begins[1:] >= begins[:-1]).all()):
        rows = rows[: int(np.argmax(begins[1:] < begins[:-1])) + 1]
        begins = rows[:, 0]
    ends = rows[:, 1] if image.is_wide else np.append(begins[1:], np.uint32(start + size))[: len(begins)]
    return _CodeSection(start, start + size, table, begins.tolist(), ends.tolist(), rows[:, columns - 1].tolist())


def _numbers(image: MappedImage, rva: int, count: int) -> Sequence[int]:
    data = image.read(rva, 4 * count) if rva and count else None
    return struct.unpack(f"<{count}I", data) if data else ()


def _mains(image: MappedImage, table: int, cold: _CodeSection) -> Sequence[int]:
    if not image.is_wide:
        return [unwind & ~_INDEX_MARK if unwind & _INDEX_MARK else 0 for unwind in cold.unwinds]
    return _numbers(image, table, 2 * len(cold.begins))[::2]
