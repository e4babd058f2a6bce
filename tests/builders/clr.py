"""A CLR in a process: its module, loader structures, code heap, managed heap, in the layout of one release.

In: types, methods and objects. Out: the dump, and the truth: method starts, objects. Layouts are restated by hand on
purpose (the runtime's sources, and what recordings showed); nothing of the tool under test is imported.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from . import clr_metadata as pe
from .dump import DumpBuilder
from .dump_truth import BuiltDump
from .process import ProcessBuilder

Release = Literal["2.1", "2.2", "3.1", "8", "10"]
_CLR, _LOADER, _CODE, _GC, _STACK = 0x10000000, 0x20000000, 0x30000000, 0x40000000, 0x50000000
_IMAGES = 0x18000000
LOADER = _LOADER
"""Address of the loader heap."""

_LOADER_BYTES, _CODE_BYTES, _CLR_BYTES, _SEGMENT_BYTES = 0x40000, 0x20000, 0x20000, 0x10000
_DATA_RVA, _EXPORT_RVA, _RESOURCE_RVA, _DESCRIPTOR_RVA = 0x4000, 0x1000, 0x2000, 0x8000
STUBS = _CODE + 0x1C000
"""Where the range of stubs begins, in releases that have a map of ranges."""

GENERATIONS = ("gen0", "gen1", "gen2", "large", "pinned")


@dataclass(frozen=True)
class Traits:
    """What differs between releases."""

    wide: bool
    token_bits: int
    relative: bool
    wide_token: bool
    desc_bytes: int
    mapped: bool
    source: Literal["resource", "table", "descriptor"]
    regions: bool
    pointed_nibbles: bool
    canonical_mark: int


TRAITS: dict[Release, Traits] = {
    "2.1": Traits(False, 14, True, False, 8, False, "resource", False, False, 2),
    "2.2": Traits(True, 14, True, False, 8, False, "resource", False, False, 2),
    "3.1": Traits(True, 14, False, False, 8, False, "resource", False, False, 2),
    "8": Traits(True, 12, False, False, 8, True, "table", True, False, 1),
    "10": Traits(True, 12, False, True, 16, True, "descriptor", True, True, 1),
}


@dataclass
class TypePart:
    """A type in memory: its MethodTable and EEClass, its MethodDescs, and what the metadata calls it."""

    table: int
    ee_class: int
    descs: list[int]
    base_size: int
    component: int
    fields: dict[str, int] = field(default_factory=dict)


class ClrBuilder:
    """A process with a CLR."""

    def __init__(self, release: Release, *, single_file: bool = False, loader_bytes: int = _LOADER_BYTES) -> None:
        """Begin with the runtime's module, one assembly-less loader heap and empty segments."""
        self.release, self.traits, self.single_file = release, TRAITS[release], single_file
        self.p = 8 if self.traits.wide else 4
        self.loader = bytearray(loader_bytes)
        self.code = bytearray(b"\xcc" * _CODE_BYTES)
        self.clr = bytearray(_CLR_BYTES)
        self.images: list[tuple[int, bytes]] = []
        self.objects: dict[str, bytearray] = {name: bytearray() for name in GENERATIONS}
        self._next = _LOADER + 0x1000
        self._next_code = _CODE + 0x40
        self._nibbles: list[int] = []
        self._sizes: list[int] = []
        self._images_of: list[tuple[pe.MetadataBuilder, int, bool]] = []
        self.free = self._free_type()
        self.segments: list[int] = []

    # --- loader heap

    def room(self, size: int) -> int:
        """Room in the loader heap, aligned."""
        at = self._next
        self._next += -(-size // 16) * 16
        return at

    def put(self, address: int, *words: int) -> None:
        """Words of a pointer's size in the loader heap."""
        for i, word in enumerate(words):
            at = address - _LOADER + i * self.p
            self.loader[at : at + self.p] = (word & ((1 << 8 * self.p) - 1)).to_bytes(self.p, "little")

    def put_bytes(self, address: int, data: bytes) -> None:
        """Bytes in the loader heap."""
        self.loader[address - _LOADER : address - _LOADER + len(data)] = data

    def text(self, value: str) -> int:
        """A zero-ended name."""
        at = self.room(len(value) + 1)
        self.put_bytes(at, value.encode())
        return at

    def _pointer(self, at: int, target: int) -> None:
        """A pointer that is relative to its place in releases that have such ones."""
        self.put(at, target - at if self.traits.relative else target)

    def assembly(self, metadata: pe.MetadataBuilder, *, flat: bool = False) -> int:
        """A Module of an assembly: the simple name at P; in 10 the image's base at C8."""
        module = self.room(0x100)
        self.put(module + self.p, self.text(metadata.name))
        base = _IMAGES + 0x100000 * len(self._images_of)
        self._images_of.append((metadata, base, flat))
        if self.release == "10":
            self.put(module + self.p, 0)
            self.put(module + 0xC8, base)
        return module

    def type(
        self, module: int, token: int, methods: Sequence[int] = (), *, base_size: int = 0, component: int = 0,
        fields: Sequence[tuple[int, int]] = (), canonical: TypePart | None = None, arguments: Sequence[int] = (),
        element: int = 0, flags: int = 0, parent: int = 0, override: int = 0,
    ) -> TypePart:  # fmt: skip
        """A MethodTable with its EEClass, MethodDescs of the tokens, and fields (token, offset).

        `override`: the type's own module, in an optional slot, where `module` is the one that loaded it.
        """
        p = self.p
        table = self.room(0x10 + 12 * p)
        ee_class = canonical.ee_class if canonical else self.room(0x10 + 6 * p)
        flags |= 0x80000000 | component if component else 0x10 if arguments else 0
        base = base_size or 3 * p
        row = token & 0xFFFFFF
        second = row << 8 if self.traits.wide_token else row << 16
        self.put_bytes(table, struct.pack("<IIII", flags, base, second, 0))
        self.put(table + 0x10, parent)
        self._pointer(table + 0x10 + p, module)
        field_at = table + 0x10 + 3 * p
        self.put(field_at, canonical.table | self.traits.canonical_mark if canonical else ee_class)
        if not canonical:
            self._pointer(ee_class + 2 * p, table)
        if arguments:
            own = self.room(p * len(arguments))
            self.put(own, *arguments)
            dictionary = self.room(4 * p) + p
            self.put_bytes(dictionary - 4, struct.pack("<HH", 1, len(arguments)))
            self._pointer(dictionary, own)
            self._pointer(table + 0x10 + 4 * p, dictionary)
        if element:
            self.put(table + 0x10 + 4 * p, element)
        if override:
            self._pointer(table + 0x10 + 6 * p, override)
        descs = self._chunk(table, ee_class, methods)
        self._fields(table, ee_class, fields)
        return TypePart(table, ee_class, descs, base, component)

    def type_desc(self, kind: int, element: int, *, template: int = 0) -> int:
        """The handle of a TypeDesc: `kind` as in signatures, the modified type, the MethodTable that arrays share."""
        p = self.p
        at = self.room(5 * p)
        self.put_bytes(at, struct.pack("<I", kind))
        if self.traits.mapped:
            self.put(at + 2 * p, element)
        else:
            self._pointer(at + p, template) if template else None
            self._pointer(at + 2 * p, element)
        return at | 2

    def _free_type(self) -> TypePart:
        """The MethodTable of free space: flags, base size, nothing else."""
        table = self.room(0x10 + 8 * self.p)
        self.put_bytes(table, struct.pack("<II", 0x80000001, 3 * self.p))
        return TypePart(table, 0, [], 3 * self.p, 1)

    def _chunk(self, table: int, ee_class: int, tokens: Sequence[int]) -> list[int]:
        if not tokens:
            return []
        p, size, bits = self.p, self.traits.desc_bytes, self.traits.token_bits
        head = 24 if p == 8 else 12
        chunk = self.room(head + size * len(tokens))
        self.put(chunk, table - chunk if self.traits.relative else table)
        self.put_bytes(chunk + 2 * p + 2, struct.pack("<H", (tokens[0] & 0xFFFFFF) >> bits))
        descs = []
        for i, token in enumerate(tokens):
            desc = chunk + head + i * size
            low = token & ((1 << bits) - 1)
            self.put_bytes(desc, struct.pack("<HBBHH", low, i * size // p, 0, i, 0))
            descs.append(desc)
        self._pointer(ee_class + 4 * p, chunk)
        return descs

    def _fields(self, table: int, ee_class: int, fields: Sequence[tuple[int, int]]) -> None:
        size = self.p + 8
        first = self.room(size * (len(fields) + 1))
        for i, (token, offset) in enumerate(fields):
            self._pointer(first + i * size, table)
            self.put_bytes(first + i * size + self.p, struct.pack("<II", token & 0xFFFFFF, offset))
        if fields:
            self._pointer(ee_class + 3 * self.p, first)

    def dynamic(self, owner: TypePart, name: str) -> int:
        """The MethodDesc of a dynamic method."""
        p = self.p
        head, size = 24 if p == 8 else 12, self.traits.desc_bytes
        chunk = self.room(head + size + 4 * p)
        self.put(chunk, owner.table - chunk if self.traits.relative else owner.table)
        desc = chunk + head
        self.put_bytes(desc, struct.pack("<HBBHH", 0, 0, 0, 0, 7))
        self._pointer(desc + size + 2 * p, self.text(name))
        return desc

    # --- code

    def skip_code(self, size: int) -> None:
        """Leave some of the code heap unused."""
        self._next_code += size

    def jit(self, desc: int, size: int = 0x60, *, funclets: int = 0, spare: int = 0) -> int:
        """The code of a method; `funclets` behind it, `spare` RUNTIME_FUNCTIONs of zeros. Its start."""
        p = self.p
        start = -(-(self._next_code + 4 * p) // 16) * 16
        at = start - _CODE
        self.code[at : at + 3] = b"\x48\x83\xec" if p == 8 else b"\x55\x8b\xec"
        total = size + 0x20 * funclets
        if p == 8:
            unwind = start + total + (-total % 16)
            info = unwind - _CODE
            self.code[info : info + 8] = struct.pack("<BBBBHH", 1, 4, 1, 0, 0x4204, 0)  # sub rsp, 28
            header = self.room(0x24 + 12 * (1 + funclets + spare))
            self.put(header, 0, 0, 0, desc)
            self.put_bytes(header + 0x20, struct.pack("<I", 1 + funclets + spare))
            edges = [(at, at + size)] + [(at + size + 0x20 * i, at + size + 0x20 * (i + 1)) for i in range(funclets)]
            rows = b"".join(struct.pack("<III", a, b, info) for a, b in edges)
            self.put_bytes(header + 0x24, rows)
            self.code[at - 8 : at] = header.to_bytes(8, "little")
            self._next_code = unwind + 0x20
        else:
            info = self.room(16)
            self.put_bytes(info, bytes([0x80 | total >> 7, total & 0x7F]))
            self.code[at - 16 : at] = struct.pack("<4I", 0, 0, info, desc)
            self._next_code = start + total
        self._nibbles.append(start)
        self._sizes.append(total)
        return start

    def stub(self, kind: int = 3) -> int:
        """A stub in the code heap: a number instead of a header."""
        start = -(-(self._next_code + self.p) // 16) * 16
        at = start - _CODE
        self.code[at - self.p : at] = kind.to_bytes(self.p, "little")
        self._next_code = start + 0x20
        self._nibbles.append(start)
        self._sizes.append(0)
        return start

    def precode(self, desc: int, *, is_fixup: bool) -> int:
        """A stub that leads to a method, at the start of the range of stubs or 0x18 bytes behind; its data 0x1000 behind."""
        start = STUBS + (0 if is_fixup else 0x18)
        at = start - _CODE
        load = b"\x4c\x8b\x15" + struct.pack("<i", 0xFFB if is_fixup else 0xFF9)  # mov r10, [rip + d]
        jump = b"\xff\x25" + struct.pack("<i", 0xFFA)
        code = jump + load + jump if is_fixup else load + jump
        self.code[at : at + len(code)] = code
        self.code[at + 0x1000 : at + 0x1010] = struct.pack("<QQ", 0, desc) if is_fixup else struct.pack("<QQ", desc, 0)
        return start

    def _nibble_map(self) -> bytes:
        words = [0] * (_CODE_BYTES // 256 + 1)
        for start, size in zip(self._nibbles, self._sizes, strict=True):
            delta = start - _CODE
            bucket = delta // 32
            words[bucket // 8] |= (delta % 32 // 4 + 1) << (28 - 4 * (bucket % 8))
            if self.traits.pointed_nibbles:
                for word in range(bucket // 8 + 1, (delta + size - 1) // 256 + 1):
                    if (word + 1) * 256 <= delta + size:
                        words[word] = (delta & ~15) | (delta % 16 // 4 + 9)
        return b"".join(struct.pack("<I", word) for word in words)

    # --- managed heap

    def object(
        self, generation: str, kind: TypePart, length: int | None = None, content: bytes = b"", *, mark: int = 0
    ) -> int:
        """An object; `length`: elements; `content` behind the MethodTable (and the length). Its address."""
        data = self.objects[generation]
        address = self.segment_start(generation) + len(data)
        size = kind.base_size + (length or 0) * kind.component
        size = -(-max(size, 3 * self.p) // self.p) * self.p
        body = (kind.table | mark).to_bytes(self.p, "little")
        if length is not None:
            body += length.to_bytes(4, "little")
        data += (body + content)[:size].ljust(size, b"\0")
        return address

    def gap(self, generation: str, size: int) -> None:
        """Unused memory of an allocation context."""
        self.objects[generation] += bytes(size)

    def segment_start(self, generation: str) -> int:
        """Where the objects of a generation begin; before 7, generations 2, 1, 0 share a segment."""
        if self.traits.regions or generation in ("large", "pinned"):
            return _GC + _SEGMENT_BYTES * GENERATIONS.index(generation) + 0x1000
        order = ("gen2", "gen1", "gen0")
        return _GC + 0x1000 + sum(len(self.objects[name]) for name in order[: order.index(generation)])

    def _segments(self) -> tuple[list[int], list[int]]:
        """(segment of each generation, first object of each)."""
        starts = [self.segment_start(name) for name in GENERATIONS]
        segments = []
        shared = 0
        for name, start in zip(GENERATIONS, starts, strict=True):
            if not self.traits.regions and name in ("gen0", "gen1", "gen2"):
                shared = shared or self._segment(_GC + 0x1000, sum(len(self.objects[n]) for n in GENERATIONS[:3]), 0)
                segments.append(shared)
            else:
                flags = {"large": 8, "pinned": 0x200}.get(name, 0)
                segments.append(self._segment(start, len(self.objects[name]), flags))
        return segments, starts

    def _segment(self, first: int, used: int, flags: int) -> int:
        at = self.room(8 * self.p)
        top = (first & -0x1000) + _SEGMENT_BYTES - 0x1000
        allocated = first if not self.traits.regions and not flags else first + used
        self.put(at, allocated, (first + used + 0xFFF) & -0x1000, top, first + used, first, flags, 0)
        return at

    # --- the whole

    def build(
        self, *, stack: bytes = b"", registers: dict[str, int] | None = None, drop: Sequence[str] = ()
    ) -> BuiltDump:
        """The dump. `drop`: names of the pieces that it lacks: clr, loader, code, gc, images."""
        dump = DumpBuilder(arch="x64" if self.p == 8 else "x86", flags=0x1826)
        self._add(dump, dump.region, dump.memory, drop)
        self._thread(dump, stack, registers)
        return dump.build()

    def add_to(self, process: ProcessBuilder) -> ProcessBuilder:
        """The runtime in a process that has more."""
        self._add(process.dump, process.region, process.memory, ())
        return process

    def _add(
        self,
        dump: DumpBuilder,
        region: Callable[..., Any],
        memory: Callable[[int, bytes], Any],
        drop: Sequence[str],
    ) -> None:
        """Module, regions and memory."""
        self._runtime()
        name = "C:\\acme\\host.exe" if self.single_file else "C:\\dotnet\\coreclr.dll"
        dump.module(_CLR, _CLR_BYTES, name, version=(8, 0, 1, 2))
        heap = bytearray(_SEGMENT_BYTES * len(GENERATIONS))
        for generation, objects in self.objects.items():
            at = self.segment_start(generation) - _GC
            heap[at : at + len(objects)] = objects
        pieces = {"clr": (_CLR, bytes(self.clr), 0x20, "MEM_IMAGE"), "loader": (_LOADER, bytes(self.loader), 0x04, "MEM_PRIVATE"),
                  "code": (_CODE, bytes(self.code), 0x40, "MEM_PRIVATE"), "gc": (_GC, bytes(heap), 0x04, "MEM_PRIVATE")}  # fmt: skip
        for key, (base, data, protect, kind) in pieces.items():
            region(base, len(data), protect=protect, type=kind)
            if key not in drop:
                memory(base, data)
        for metadata, base, flat in self._images_of:
            image = pe.assembly_image(metadata.build(), wide=self.p == 8, flat=flat)
            image += bytes(-len(image) % 0x1000)
            region(base, len(image), protect=0x02, type="MEM_MAPPED")
            if "images" not in drop:
                memory(base, image)

    def _thread(self, dump: DumpBuilder, stack: bytes, registers: dict[str, int] | None) -> None:
        if registers is None:
            return
        dump.region(_STACK, 0x4000, protect=0x04)
        dump.memory(_STACK, stack.ljust(0x4000, b"\0"))
        ip, sp = ("rip", "rsp") if self.p == 8 else ("eip", "esp")
        dump.thread(7, 0x7F000000, stack=(_STACK, 0x4000), ip=registers[ip], sp=registers[sp], registers=registers)

    def _runtime(self) -> None:
        """The runtime's module: exports or resource, variables, code ranges, the collector's variables."""
        nibbles = self._nibble_map()
        at_map = self.room(len(nibbles))
        self.put_bytes(at_map, nibbles)
        node = self.room(8 * self.p)
        self.put(node, 0, 0, _CODE + 0x20, self._next_code, _CODE, at_map)
        root = self._map(node) if self.traits.mapped else self._list(node)
        gc = self._collector()
        rva = self._variable(gc)
        variables = [root, 0, rva]
        directories, symbols = {}, {}
        if self.hides_tables:
            self._module_bytes(0, pe.pe_header(_CLR_BYTES, wide=self.p == 8, directories={}))
            return
        if self.single_file:
            symbols["DotNetRuntimeInfo"] = _DATA_RVA
        if self.traits.source == "resource":
            words = [len(variables), 0, 0, 0, 0, 0, *variables]
            data = pe.resource(
                _RESOURCE_RVA, "COREXTERNALDATAACCESSRESOURCE", b"".join(struct.pack("<I", w) for w in words)
            )
            self._module_bytes(_RESOURCE_RVA, data)
            directories[2] = (_RESOURCE_RVA, len(data))
        elif "table" not in self.hidden:
            table = _DATA_RVA + 0x1000
            self._module_bytes(table, b"".join((_CLR + v if v else 0).to_bytes(self.p, "little") for v in variables))
            symbols["g_dacTable"] = table
        if self.traits.source == "descriptor" and "descriptor" not in self.hidden:
            symbols["DotNetRuntimeContractDescriptor"] = _DESCRIPTOR_RVA
            self._descriptor(root)
        if symbols:
            data = pe.exports(_EXPORT_RVA, symbols)
            self._module_bytes(_EXPORT_RVA, data)
            directories[0] = (_EXPORT_RVA, len(data))
        self._module_bytes(0, pe.pe_header(_CLR_BYTES, wide=self.p == 8, directories=directories))

    _variables = 0

    def _variable(self, *words: int) -> int:
        """Words among the runtime's variables; the RVA."""
        rva = _DATA_RVA + 0x2000 + self._variables
        self._variables += 8 * len(words)
        self._module_bytes(rva, b"".join(word.to_bytes(self.p, "little") for word in words))
        return rva

    def _module_bytes(self, rva: int, data: bytes) -> None:
        self.clr[rva : rva + len(data)] = data

    def _list(self, node: int) -> int:
        section = self.room(8 * self.p)
        self.put(section, _CODE, _CODE + _CODE_BYTES, 0, 0, 0, 2, node)
        return self._variable(section)

    def _map(self, node: int) -> int:
        section, stubs = self.room(8 * self.p), self.room(8 * self.p)
        self.put(section, _CODE, STUBS, 2, 0, 0, node)
        self.put(stubs, STUBS, _CODE + _CODE_BYTES, 4, 0, 0, 0)
        fragment, other = self.room(4 * self.p), self.room(4 * self.p)
        self.put(fragment, other | 1, _CODE, STUBS, section)
        self.put(other, 0, STUBS, _CODE + _CODE_BYTES, stubs)
        below = fragment
        for shift in (17, 25, 33, 41):
            table = self.room(256 * 8)
            self.put(table + 8 * (_CODE >> shift & 0xFF), below | 1)
            below = table
        words = [0] * 256
        words[_CODE >> 49 & 0xFF] = below
        return self._variable(*words)

    def _collector(self) -> int:
        """GcDacVars and its variables in the module."""
        p = self.p
        segments, firsts = self._segments()
        self.segments = segments
        count, size = (5, 0x100) if self.traits.regions else (4, 0x80)
        heap = self.room(0x1000 + size * count)
        table = heap + (0x708 if self.is_server else 0)
        for i in range(count):
            self.put(table + i * size + 7 * p, segments[i], firsts[i])
        end = self.segment_start("gen0") + len(self.objects["gen0"])
        memory = self._variable(*self.oom)
        words = [0] * 30
        words[3], words[4], words[14] = table, _CLR + self._variable(2), _CLR + memory
        words[7], words[12] = _CLR + self._variable(segments[0]), _CLR + self._variable(end)
        if self.is_server:
            heaps = self.room(p)
            self.put(heaps, heap)
            self.put(heap + 0x20, end, segments[0])
            words[3] = words[7] = words[12] = 0
            words[19], words[20] = _CLR + self._variable(1), _CLR + self._variable(heaps)
        if self.traits.regions:
            words[27] = self.room(4 * 19)
            self.put_bytes(words[27], struct.pack("<19I", 0x20, 0x20 + p, *[0xFFFFFFFF] * 16, 0x708))
            words[28] = _CLR + self._variable(7 * p << 32)
        head = [2 | 1 << 8, size, count] if self.traits.regions else [1, size]
        return _CLR + self._variable(*head, *words)

    is_server = False
    """One heap of server GC: a gc_heap holds the generation table; its offsets are known from major 2 on only."""

    hides_tables = False
    """The module has neither exports nor resources, as far as anybody knows of .NET Framework."""

    hidden: tuple[Literal["descriptor", "table"], ...] = ()
    """Exports that the module lacks."""

    oom: tuple[int, int, int, int] = (0, 0, 0, 0)
    """reason, bytes wanted, reserved, allocated of `oom_history`."""

    def _descriptor(self, root: int) -> None:
        """The contract descriptor with what 10.0.9 says of the structures that the builder writes."""
        free = self._variable(self.free.table)
        document = {
            "version": 0,
            "types": {
                "Module": {"Base": 0xC8}, "RealCodeHeader": {"MethodDesc": 24, "NumUnwindInfos": 32, "UnwindInfos": 36},
                "MethodDesc": {"!": 16}, "MethodDescChunk": {"!": 24}, "DynamicMethodDesc": {"MethodName": 32},
                "MethodTable": {"Module": 24, "EEClassOrCanonMT": 40, "PerInstInfo": 48},
                "EEClass": {"MethodTable": [16, "pointer"], "MethodDescChunk": 32, "FieldDescList": 24},
            },
            "globals": {
                "MethodDescTokenRemainderBitCount": ["0xc", "uint8"],
                "ExecutionManagerCodeRangeMapAddress": [[1], "pointer"], "FreeObjectMethodTable": [[0], "pointer"],
            },
        }  # fmt: skip
        text = json.dumps(document).encode()
        where, table = _DESCRIPTOR_RVA + 0x100, _DESCRIPTOR_RVA + 0x80
        head = b"DNCCDAC\0" + struct.pack("<IIQIIQ", 1, len(text), _CLR + where, 2, 0, _CLR + table)
        self._module_bytes(_DESCRIPTOR_RVA, head)
        self._module_bytes(table, struct.pack("<QQ", _CLR + free, _CLR + root))
        self._module_bytes(where, text)
