"""The protocol of a runtime that lives in the process: it names code, owns memory, and knows the objects of its heap.

The records are those that every runtime gives; how it finds them is its own affair. Bad data never raises: what
cannot be read is absent, and a sentence in `gaps` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from heapdump.process.model import Process
from heapdump.process.symbols.foreign_code import UnwindData
from heapdump.spans import Span
from heapdump.trust import Trust

FREE = "Free"
"""The type of free space between objects, as `!dumpheap` names it."""


class OwnerKind(StrEnum):
    """The use that a runtime makes of a piece of memory; the value is the word in JSON."""

    HEAP = "managed_heap"
    BOOKKEEPING = "collector_bookkeeping"
    JIT_CODE = "jit_code"
    STUBS = "runtime_stubs"
    OTHER = "runtime_other"
    CLASSES = "class_metadata"


@dataclass(frozen=True, slots=True)
class MemoryOwner:
    """Memory that a runtime uses.

    Attributes:
        span: the memory.
        kind: what the runtime keeps there.
        detail: more, for a person.
        trust: guess where only the memory around it is evidence.
    """

    span: Span
    kind: OwnerKind
    detail: str
    trust: Trust = Trust.EXACT


@dataclass(frozen=True, slots=True)
class RuntimeInfo:
    """A runtime of the process.

    Attributes:
        kind: `.NET`, `.NET Framework` or `Java`, as printed.
        version: None where nothing names it.
        module: name of its module.
        found_by: the evidence in words, strongest first.
    """

    kind: str
    version: str | None
    module: str
    found_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CodePlace:
    """The method or stub that holds an address.

    Attributes:
        kind: `method`, or `stub` for code that leads to a method.
        start: address of its first byte.
        type: full name of the type; None where it is not known.
        method: name of the method; None where it is not known.
        token: metadata token of the method; 0 where there is none.
        assembly: simple name of the assembly; None where it is not known.
        descriptor: address of the runtime's description of the method; None where it is not known.
        trust: in the name.
        note: more, for a person; "" for nothing.
        is_handler: True in a catch, finally or filter, which runs as a function of its own.
        signature: types of the method's parameters, `(System.Int32, T)`; None where they are not known.
    """

    kind: Literal["method", "stub"]
    start: int
    type: str | None = None
    method: str | None = None
    token: int = 0
    assembly: str | None = None
    descriptor: int | None = None
    trust: Trust = Trust.EXACT
    note: str = ""
    is_handler: bool = False
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class TypeCount:
    """The objects of one type.

    Attributes:
        type: name of the type.
        count: number of objects.
        bytes: bytes of the objects, headers included.
    """

    type: str
    count: int
    bytes: int


def type_counts(counts: Iterable[tuple[str, int, int]]) -> tuple[TypeCount, ...]:
    """The sums of (name of a type, number of objects, bytes) by name: most bytes first, then by name."""
    totals: dict[str, list[int]] = {}
    for name, count, size in counts:
        entry = totals.setdefault(name, [0, 0])
        entry[0] += count
        entry[1] += size
    rows = (TypeCount(name, count, size) for name, (count, size) in totals.items())
    return tuple(sorted(rows, key=lambda row: (-row.bytes, row.type)))


@dataclass(frozen=True, slots=True)
class ManagedObject:
    """An object of a managed heap.

    Attributes:
        address: of the object, as references name it.
        type: name of its type.
        bytes: its size, header included.
        generation: the generation or space that it lies in.
        length: elements of an array or string; None for other objects.
        type_address: address of the runtime's description of the type.
        is_finalizable: True where the runtime calls a finalizer before it frees the object.
    """

    address: int
    type: str
    bytes: int
    generation: str
    length: int | None
    type_address: int
    is_finalizable: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """The sums of one generation of a managed heap.

    Attributes:
        generation: its name.
        segments: number of its segments or regions.
        committed_bytes: committed memory of these.
        reserved_bytes: reserved memory of these, committed memory included.
        objects: number of objects, without free space.
        bytes: bytes of the objects.
        free_bytes: bytes of the free space between objects.
    """

    generation: str
    segments: int
    committed_bytes: int
    reserved_bytes: int
    objects: int
    bytes: int
    free_bytes: int


class ObjectHeap(Protocol):
    """The managed heap of a runtime."""

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""

    @property
    def has_narrow_pointers(self) -> bool:
        """True where objects may point to each other by fewer bits, which `pointers_to` does not find."""

    def spans(self) -> Sequence[Span]:
        """The spans that hold objects, ascending; nothing is walked."""

    def live_spans(self) -> Sequence[Span]:
        """The same without free space, whose words are stale. Walks the heap."""

    def rows(self) -> Sequence[GenerationRow]:
        """A row for each generation. Walks the heap."""

    def types(self) -> Sequence[TypeCount]:
        """The types, most bytes first. Walks the heap."""

    def object_at(self, address: int) -> ManagedObject | None:
        """The object that holds an address; None in free space and outside of the heap. Walks one segment."""

    def text_of(self, found: ManagedObject) -> str | None:
        """The contents of a string; None for other objects."""

    def field_at(self, found: ManagedObject, address: int) -> str | None:
        """The field, or `[i]` for an element, that holds an address of the object; None where it is not known."""

    def pointers_to(self, address: int) -> Iterator[int]:
        """Addresses of the words in the heap that hold an address, ascending. Reads the whole heap."""

    def gaps(self) -> Sequence[str]:
        """Sentences on what could not be walked. Walks the heap."""


@dataclass(frozen=True, slots=True)
class CodeCounts:
    """The code of a runtime.

    Attributes:
        methods: number of jitted methods; None where they are not counted.
        jit_bytes: committed bytes of jitted code.
        stub_bytes: committed bytes of stubs.
        images: number of precompiled images.
    """

    methods: int | None
    jit_bytes: int
    stub_bytes: int
    images: int


class Runtime(Protocol):
    """One runtime of the process."""

    @property
    def info(self) -> RuntimeInfo:
        """Its kind and version."""

    @property
    def heap(self) -> ObjectHeap | None:
        """Its heap; None where it is not known."""

    def code_at(self, address: int, back: int = 0) -> CodePlace | None:
        """The code that holds `address - back`; None outside of the runtime's code."""

    def unwind_at(self, address: int) -> tuple[int, UnwindData] | None:
        """(base of RVAs, unwind data) of the code at an address; None on x86 and outside of the runtime's code."""

    def has_code(self, address: int) -> bool:
        """True in jitted or precompiled code. Cheap."""

    def owners(self) -> Sequence[MemoryOwner]:
        """The memory that the runtime uses. Where they overlap, the later one counts."""

    def code(self) -> CodeCounts:
        """The amount of its code."""

    def trouble(self) -> Sequence[str]:
        """What the runtime recorded of its own failures, in sentences."""

    def gaps(self) -> Sequence[str]:
        """Sentences on what could not be read."""


class RuntimeFinder(Protocol):
    """The front door of one package of runtimes/: its `__init__.py` exposes one as RUNTIME."""

    def find(self, process: Process) -> Sequence[Runtime]:
        """The runtimes of this kind; costs some reads for each module where there is none."""
