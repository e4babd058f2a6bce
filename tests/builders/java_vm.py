"""A Java virtual machine as its own tables describe it: jvm.dll with exports, vmStructs, classes, a heap of objects.

In: objects and compiled methods. Out: a process with them, and the truth. Offsets are chosen here, on purpose not those
of any release: a reader that knows a release fails. Nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal

from tests.builders.process import ProcessBuilder

JVM, JVM_BYTES = 0x7FF860000000, 0x20000
EXPORTS = 0x4000
DATA = JVM_BYTES - 0x2000
TABLES, HEAP, CODE = 0x290000000000, 0x90000000, 0x2A0000000000
TABLE_BYTES = 0x40000
REGION = 0x4000
NARROW_BASE = TABLES
METASPACE, CARDS = 0x2B0000000000, 0x2C0000000000

Collector = Literal["G1", "Serial", "Parallel", "other"]
FIELDS: dict[tuple[str, str], tuple[str, int]] = {
    ("CollectedHeap", "_reserved"): ("MemRegion", 0x18), ("MemRegion", "_start"): ("HeapWord*", 8),
    ("MemRegion", "_word_size"): ("size_t", 0), ("oopDesc", "_metadata._compressed_klass"): ("narrowKlass", 8),
    ("oopDesc", "_metadata._klass"): ("Klass*", 8), ("Klass", "_layout_helper"): ("jint", 0x14),
    ("Klass", "_name"): ("Symbol*", 0x20), ("Symbol", "_length"): ("u2", 2), ("Symbol", "_body"): ("u1", 8),
    ("G1CollectedHeap", "_hrm"): ("HeapRegionManager", 0x80), ("HeapRegionManager", "_regions"): ("G1HeapRegionTable", 0x28),
    ("G1HeapRegionTable", "_base"): ("address", 8), ("G1HeapRegionTable", "_length"): ("size_t", 0x10),
    ("HeapRegion", "_bottom"): ("HeapWord*", 8), ("HeapRegion", "_top"): ("HeapWord*", 0x18),
    ("HeapRegion", "_end"): ("HeapWord*", 0x10), ("HeapRegion", "_type"): ("HeapRegionType", 0x20),
    ("HeapRegionType", "_tag"): ("uint", 4), ("SerialHeap", "_young_gen"): ("DefNewGeneration*", 0x60),
    ("SerialHeap", "_old_gen"): ("TenuredGeneration*", 0x68), ("DefNewGeneration", "_eden_space"): ("ContiguousSpace*", 0x10),
    ("DefNewGeneration", "_from_space"): ("ContiguousSpace*", 0x18), ("DefNewGeneration", "_to_space"): ("ContiguousSpace*", 0x20),
    ("TenuredGeneration", "_the_space"): ("ContiguousSpace*", 0x30), ("ContiguousSpace", "_bottom"): ("HeapWord*", 0),
    ("ContiguousSpace", "_top"): ("HeapWord*", 8), ("ContiguousSpace", "_end"): ("HeapWord*", 0x10),
    ("PSYoungGen", "_eden_space"): ("MutableSpace*", 0x10), ("PSYoungGen", "_from_space"): ("MutableSpace*", 0x18),
    ("PSYoungGen", "_to_space"): ("MutableSpace*", 0x20), ("PSOldGen", "_object_space"): ("MutableSpace*", 0x30),
    ("MutableSpace", "_bottom"): ("HeapWord*", 0), ("MutableSpace", "_top"): ("HeapWord*", 8),
    ("MutableSpace", "_end"): ("HeapWord*", 0x10), ("Thread", "_tlab"): ("ThreadLocalAllocBuffer", 0x40),
    ("ThreadLocalAllocBuffer", "_top"): ("HeapWord*", 8), ("ThreadLocalAllocBuffer", "_end"): ("HeapWord*", 0x10),
    ("ThreadsList", "_threads"): ("JavaThread**", 8), ("ThreadsList", "_length"): ("uint", 0),
    ("GrowableArrayBase", "_len"): ("int", 4), ("GrowableArray<int>", "_data"): ("int*", 8),
    ("CodeHeap", "_memory"): ("VirtualSpace", 8), ("CodeHeap", "_segmap"): ("VirtualSpace", 0x28),
    ("CodeHeap", "_log2_segment_size"): ("int", 4), ("VirtualSpace", "_low"): ("char*", 8), ("VirtualSpace", "_high"): ("char*", 0),
    ("CodeBlob", "_name"): ("const char*", 0), ("CodeBlob", "_code_offset"): ("int", 8), ("nmethod", "_method"): ("Method*", 0x10),
    ("Method", "_constMethod"): ("ConstMethod*", 0), ("Method", "_code"): ("nmethod*", 8),
    ("ConstMethod", "_constants"): ("ConstantPool*", 8), ("ConstMethod", "_name_index"): ("u2", 2),
    ("ConstantPool", "_pool_holder"): ("InstanceKlass*", 8), ("ClassLoaderData", "_klasses"): ("Klass*", 8),
    ("ClassLoaderData", "_next"): ("ClassLoaderData*", 0x10), ("Klass", "_next_link"): ("Klass*", 0x28),
    ("InstanceKlass", "_constants"): ("ConstantPool*", 0x30), ("CardTableBarrierSet", "_card_table"): ("CardTable*", 0x18),
    ("CardTable", "_byte_map"): ("CardValue*", 8), ("CardTable", "_byte_map_size"): ("size_t", 0x10),
}  # fmt: skip
CONSTANTS = {"HeapRegionType::EdenTag": 2, "HeapRegionType::StartsHumongousTag": 12, "HeapRegionType::ContinuesHumongousTag": 13, "HeapRegionType::OldMask": 16}  # fmt: skip
SIZES = {"ConstantPool": 0x18, "HeapBlock": 16}
STRIDES = {"Struct": 0x40, "Type": 0x20, "IntConstant": 0x18, "LongConstant": 0x18}
MEMBERS = {
    "StructEntryTypeName": 8, "StructEntryFieldName": 0, "StructEntryTypeString": 0x10, "StructEntryIsStatic": 0x18,
    "StructEntryOffset": 0x20, "StructEntryAddress": 0x28, "TypeEntryTypeName": 0, "TypeEntrySize": 8,
    "IntConstantEntryName": 8, "IntConstantEntryValue": 0,
}  # fmt: skip


@dataclass
class JavaVmBuilder:
    """A VM with one heap. Objects go to eden, or with `old` to the old generation."""

    collector: Collector = "G1"
    objects: dict[str, tuple[int, int]] = field(default_factory=dict)
    _data: bytearray = field(default_factory=lambda: bytearray(0x10))
    _klasses: dict[str, int] = field(default_factory=dict)
    _spaces: dict[str, bytearray] = field(default_factory=lambda: {"eden": bytearray(), "old": bytearray()})
    _methods: list[tuple[str, str]] = field(default_factory=list)
    unused: int = 0
    metaspace: bool = False
    ring: bool = False

    def _put(self, data: bytes) -> int:
        """The address of bytes in the tables' memory."""
        self._data += bytes(-len(self._data) % 8)
        at = len(self._data)
        self._data += data
        return TABLES + at

    def _words(self, size: int, words: dict[int, int]) -> int:
        data = bytearray(size)
        for offset, value in words.items():
            struct.pack_into("<Q", data, offset, value & 0xFFFFFFFFFFFFFFFF)
        return self._put(bytes(data))

    def _symbol(self, text: str) -> int:
        return self._put(struct.pack("<HHI", 0, len(text), 0) + text.encode() + bytes(8))

    def _klass(self, symbol: str, helper: int) -> int:
        if symbol not in self._klasses:
            data = bytearray(0x40)
            struct.pack_into("<i", data, 0x14, helper)
            struct.pack_into("<Q", data, 0x20, self._symbol(symbol))
            self._klasses[symbol] = self._put(bytes(data))
        return self._klasses[symbol]

    def instance(self, symbol: str, size: int, *, count: int = 1, old: bool = False) -> None:
        """Add objects of a class; `symbol` as the VM writes it, `size` in bytes."""
        klass = self._klass(symbol, size)
        head = struct.pack("<QI", 1, klass - NARROW_BASE).ljust(size, b"\x07")
        self._spaces["old" if old else "eden"] += head * count
        self._count(symbol, count, size)

    def array(self, symbol: str, element_bytes: int, length: int, *, old: bool = False) -> None:
        """Add an array."""
        helper = -(1 << 31) | 16 << 16 | element_bytes.bit_length() - 1
        size = -(-(16 + element_bytes * length) // 8) * 8
        head = struct.pack("<QII", 1, self._klass(symbol, helper) - NARROW_BASE, length)
        self._spaces["old" if old else "eden"] += head.ljust(size, b"\x07")
        self._count(symbol, 1, size)

    def _count(self, symbol: str, count: int, size: int) -> None:
        before = self.objects.get(symbol, (0, 0))
        self.objects[symbol] = (before[0] + count, before[1] + count * size)

    def method(self, owner: str, name: str) -> int:
        """Add a compiled method; an address in its code."""
        self._methods.append((owner, name))
        return CODE + 0x400 * (len(self._methods) - 1) + 0x150

    def add_to(self, process: ProcessBuilder) -> list[tuple[int, bytes]]:
        """Puts the VM into a process. Returns what to write over the module's header page and data afterwards."""
        code = self._code()
        statics = {
            ("Universe", "_collectedHeap"): self._heap(), ("CompressedKlassPointers", "_base"): NARROW_BASE,
            ("CompressedKlassPointers", "_shift"): 0, ("ThreadsSMRSupport", "_java_thread_list"): self._threads(),
            ("Abstract_VM_Version", "_s_vm_release"): self._put(b"25.0.2+10".ljust(240, b"\0")), **self._code_heap(),
            **(self._parallel() if self.collector == "Parallel" else {}), **(self._native() if self.metaspace else {}),
        }  # fmt: skip
        if self.metaspace:
            process.region(METASPACE, 0x1000).memory(METASPACE, bytes(0x1000))
            process.region(METASPACE + 0x1000, 0xF000, state="MEM_RESERVE", allocation_base=METASPACE)
            process.region(CARDS, 0x1000).memory(CARDS, bytes(0x1000))
        words = self._tables({name: JVM + DATA + 0x1000 + 8 * i for i, name in enumerate(statics)})
        process.module(JVM, JVM_BYTES, r"C:\jdk\bin\server\jvm.dll").memory(JVM + EXPORTS, _exports(list(words)))
        process.region(TABLES, TABLE_BYTES).memory(TABLES, bytes(self._data).ljust(TABLE_BYTES, b"\0"))
        process.region(HEAP, 8 * REGION).region(CODE, 0x1000, protect=0x40).memory(CODE, code)
        for i, name in enumerate(("eden", "old")):
            process.memory(HEAP + i * 4 * REGION, bytes(self._spaces[name]).ljust(4 * REGION, b"\0"))
        values = [*words.values()]
        patches = [(JVM + 0x98 + 112, struct.pack("<2I", EXPORTS, 0x2000))]
        patches += [(JVM + DATA + 8 * i, struct.pack("<Q", value)) for i, value in enumerate(values)]
        return patches + [(JVM + DATA + 0x1000 + 8 * i, struct.pack("<Q", v)) for i, v in enumerate(statics.values())]

    def _tables(self, statics: dict[tuple[str, str], int]) -> dict[str, int]:
        """Export → value: the tables, and how to read them."""
        rows = [(owner, name, kind, 0, offset, 0) for (owner, name), (kind, offset) in FIELDS.items()]
        rows += [(owner, name, "x", 1, 0, address) for (owner, name), address in statics.items()]
        structs, types, constants = bytearray(), bytearray(), bytearray()
        for owner, name, kind, is_static, offset, address in rows:
            texts = (self._text(name), self._text(owner), self._text(kind))
            structs += struct.pack("<6Q", *texts, is_static, offset, address).ljust(STRIDES["Struct"], b"\0")
        for name, size in SIZES.items():
            types += struct.pack("<2Q", self._text(name), size).ljust(STRIDES["Type"], b"\0")
        for name, value in CONSTANTS.items():
            constants += struct.pack("<2Q", value, self._text(name)).ljust(STRIDES["IntConstant"], b"\0")
        end = bytes(0x40)
        out = {
            "gHotSpotVMStructs": self._put(bytes(structs) + end), "gHotSpotVMTypes": self._put(bytes(types) + end),
            "gHotSpotVMIntConstants": self._put(bytes(constants) + end),
        }  # fmt: skip
        out |= {f"gHotSpotVM{kind}EntryArrayStride": stride for kind, stride in STRIDES.items()}
        return out | {f"gHotSpotVM{member}Offset": offset for member, offset in MEMBERS.items()}

    def _text(self, text: str) -> int:
        return self._put(text.encode() + b"\0")

    def _space(self, name: str, start: int) -> int:
        return self._words(0x18, {0: start, 8: start + len(self._spaces[name]), 0x10: start + 4 * REGION})

    def _heap(self) -> int:
        """The CollectedHeap: a reservation of 8 regions, eden in the first four, the old generation behind them."""
        own: dict[int, int] = {0x18: 8 * REGION // 8, 0x20: HEAP}
        if self.collector == "Serial":
            empty = self._words(0x18, {0: HEAP, 8: HEAP, 0x10: HEAP})
            own[0x60] = self._words(0x40, {0x10: self._space("eden", HEAP), 0x18: empty, 0x20: empty})
            own[0x68] = self._words(0x40, {0x30: self._space("old", HEAP + 4 * REGION)})
        if self.collector == "G1":
            regions = [*self._regions("eden", HEAP, 2), *self._regions("old", HEAP + 4 * REGION, 16)]
            own[0x80 + 0x28 + 8] = self._put(struct.pack(f"<{len(regions)}Q", *regions))
            own[0x80 + 0x28 + 0x10] = len(regions)
        return self._words(0x100, own)

    def _regions(self, name: str, start: int, tag: int) -> list[int]:
        """Objects that reach over the end of a region make it and the following ones humongous."""
        size = len(self._spaces[name])
        is_large = size > REGION
        out = []
        for i in range(4):
            low = start + i * REGION
            top = min(low + REGION, max(low, start + size))
            kind = (12 if i == 0 else 13) if is_large and top > low else tag
            out.append(self._words(0x30, {8: low, 0x18: top, 0x10: low + REGION, 0x20: kind << 32}))
        return out

    def _native(self) -> dict[tuple[str, str], int]:
        """Two class loaders with half of the classes each, linked; their constants in metaspace; a card table."""
        klasses = [*self._klasses.values()]
        halves = klasses[: len(klasses) // 2], klasses[len(klasses) // 2 :]
        loader = 0
        for half in halves:
            last = half[0] if self.ring and half else 0
            for klass, following in zip(half, [*half[1:], last], strict=True):
                struct.pack_into("<2Q", self._data, klass - TABLES + 0x28, following, METASPACE + 0x40)
            loader = self._words(0x20, {8: half[0] if half else 0, 0x10: loader})
        table = self._words(0x20, {8: CARDS, 0x10: 8 * REGION // 512})
        return {
            ("ClassLoaderDataGraph", "_head"): loader, ("BarrierSet", "_barrier_set"): self._words(0x20, {0x18: table}),
            ("PerfMemory", "_start"): CARDS + 0x800, ("PerfMemory", "_end"): CARDS + 0x1000,
        }  # fmt: skip

    def _parallel(self) -> dict[tuple[str, str], int]:
        empty = self._words(0x18, {0: HEAP, 8: HEAP, 0x10: HEAP})
        young = self._words(0x40, {0x10: self._space("eden", HEAP), 0x18: empty, 0x20: empty})
        old = self._words(0x40, {0x30: self._space("old", HEAP + 4 * REGION)})
        return {("ParallelScavengeHeap", "_young_gen"): young, ("ParallelScavengeHeap", "_old_gen"): old}

    def _threads(self) -> int:
        """One thread, whose allocation buffer ends `unused` bytes behind the last object of eden."""
        top = HEAP + len(self._spaces["eden"]) - self.unused
        thread = self._words(0x60, {0x48: top, 0x50: top + self.unused})
        return self._words(0x10, {0: 1, 8: self._put(struct.pack("<Q", thread))})

    def leave_unused(self, size: int) -> None:
        """End eden with the rest of an allocation buffer that holds remains of older objects."""
        some = next(iter(self._klasses.values()))
        self._spaces["eden"] += (struct.pack("<QI", 1, some - NARROW_BASE) + bytes(4)) * (size // 16)
        self.unused = size

    def _code(self) -> bytes:
        code = bytearray(0x1000)
        for i, (owner, name) in enumerate(self._methods):
            blob = CODE + 0x400 * i + 16
            pool = self._words(0x28, {8: self._klass(owner, 16), 0x18 + 8: self._symbol(name)})
            constant = self._put(struct.pack("<HHIQ", 0, 1, 0, pool))
            method = self._put(struct.pack("<2Q", constant, blob))
            text = self._put(b"nmethod".ljust(240, b"\0"))
            struct.pack_into("<3Q", code, 0x400 * i + 16, text, 0x20, method)
        return bytes(code)

    def _code_heap(self) -> dict[tuple[str, str], int]:
        """One code heap; blocks of 0x400 bytes, segments of 0x80."""
        marks = bytes(range(8)) * len(self._methods)
        heap = bytearray(0x40)
        struct.pack_into("<I", heap, 4, 7)
        struct.pack_into("<2Q", heap, 8, CODE + len(marks) * 0x80, CODE)
        struct.pack_into("<2Q", heap, 0x28, 0, self._put(marks.ljust(64, b"\xff")))
        array = self._put(struct.pack("<IIQ", 0, 1, self._put(struct.pack("<Q", self._put(bytes(heap))))))
        return {
            ("CodeCache", "_heaps"): array, ("CodeCache", "_low_bound"): CODE, ("CodeCache", "_high_bound"): CODE + 0x1000,
        }  # fmt: skip


def _exports(names: list[str]) -> bytes:
    """An export directory at EXPORTS; name i stands for the i-th word of the module's data."""
    data = bytearray(0x2000)
    order = sorted(names)
    tables = (EXPORTS + 0x100, EXPORTS + 0x300, EXPORTS + 0x500)
    struct.pack_into("<6I", data, 0x10, 1, len(names), len(names), *tables)
    at = 0x600
    for i, name in enumerate(order):
        struct.pack_into("<I", data, 0x100 + 4 * i, DATA + 8 * names.index(name))
        struct.pack_into("<I", data, 0x300 + 4 * i, EXPORTS + at)
        struct.pack_into("<H", data, 0x500 + 2 * i, i)
        data[at : at + len(name) + 1] = name.encode() + b"\0"
        at += len(name) + 1
    return bytes(data)
