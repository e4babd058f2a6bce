"""One CLR put together: code by address, owners of memory, the managed heap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache, cached_property

import numpy as np

from heapdump.process.model import Process
from heapdump.process.symbols.foreign_code import UnwindData
from heapdump.runtimes.dotnet import gc_variables
from heapdump.runtimes.dotnet.code_ranges import CodeKind, CodeRange, code_ranges
from heapdump.runtimes.dotnet.discovery import Clr
from heapdump.runtimes.dotnet.gc_segments import GcSegment, segments
from heapdump.runtimes.dotnet.jit_code import JitMethod, header_layout, method_at, method_from, methods_of, places_of
from heapdump.runtimes.dotnet.managed_heap import ManagedHeap
from heapdump.runtimes.dotnet.memory_owners import memory_owners
from heapdump.runtimes.dotnet.names import NameEvidence, Names, vote
from heapdump.runtimes.dotnet.native_image import NativeImage, native_image
from heapdump.runtimes.dotnet.pattern import find_code
from heapdump.runtimes.dotnet.pe import mapped_image
from heapdump.runtimes.dotnet.precodes import stub_target
from heapdump.runtimes.dotnet.ready_to_run import ReadyToRun, ready_to_run
from heapdump.runtimes.dotnet.signatures import parameter_list
from heapdump.runtimes.dotnet.unwind_data import ImageUnwindData, JitUnwindData
from heapdump.runtimes.runtime import CodeCounts, CodePlace, MemoryOwner, RuntimeInfo
from heapdump.spans import Span, SpanMap
from heapdump.trust import Trust
from heapdump.wording import plural

_MOST_CANDIDATES = 4096
"""Methods that the dialect of names, and loader heaps, are decided by."""
_WORDS = 0x4000
"""Bytes of each segment in which MethodTables are looked for."""
_OUT_OF_MEMORY = {
    1: "the budget of the generation was exhausted",
    2: "the GC could not commit memory",
    3: "the GC could not reserve memory",
    4: "the GC could not make room for a large object",
    5: "memory was low",
    6: "full collections freed nothing",
}


class DotNet:
    """One CLR of the process. Everything is read when it is first asked for."""

    def __init__(self, process: Process, clr: Clr) -> None:
        """Reads nothing yet."""
        self._process, self._clr = process, clr
        self._layout = header_layout(clr.descriptor)
        self._image_code = cache(self._read_image)
        self._names_at = cache(self._place)

    @property
    def info(self) -> RuntimeInfo:
        """Kind, version, module, evidence."""
        clr = self._clr
        by_pattern = () if len(self._listed) else ("pattern of code",)
        by_shape = ("shape of the collector's variables",) if self._gc and not self._named_gc else ()
        return RuntimeInfo(clr.kind, clr.version, clr.module.name, (*clr.found_by, *by_pattern, *by_shape))

    @cached_property
    def _listed(self) -> SpanMap[CodeRange]:
        """The code ranges that the execution manager lists; none where its tables are not found."""
        clr = self._clr
        roots = (clr.descriptor.globals.get("ExecutionManagerCodeRangeMapAddress"), *clr.variables[:1])
        found = (code_ranges(clr.space, root) for root in roots if root)
        return next((ranges for ranges in found if len(ranges)), SpanMap(()))

    @cached_property
    def _found(self) -> list[CodeRange]:
        """Ranges of methods that the pattern of their code gives: only where no table lists code."""
        if len(self._listed):
            return []
        found = find_code(self._process, self._clr.space, self._layout)
        return [CodeRange(one.span, CodeKind.JIT, found=one) for one in found]

    @cached_property
    def ranges(self) -> SpanMap[CodeRange]:
        """The code ranges of the execution manager; without its tables methods by pattern, and precompiled images."""
        if len(self._listed):
            return self._listed
        out = []
        for one in self._found:
            methods = methods_of(self._clr.space, self._layout, one)
            wrong = {method.start for method in methods if self.names.method_of(method.method_desc) is None}
            remaining = one.found.without(wrong) if one.found else None
            out += [CodeRange(one.span, CodeKind.JIT, found=remaining)] if remaining else []
        images = [home.image for home in self.names.assemblies.all() if self._image_code(home.image.base)]
        out += [CodeRange(Span(image.base, image.base + image.size), CodeKind.IMAGE) for image in images]
        return SpanMap((one.span, one) for one in out)

    @cached_property
    def names(self) -> Names:
        """Names of methods and types, in the dialect that methods of this process confirm."""
        descs = list(dict.fromkeys(method.method_desc for method in self._some_methods()))
        return vote(self._process, self._clr.space, self._clr.descriptor, NameEvidence(descs, self._first_words))

    def _some_methods(self) -> Iterator[JitMethod]:
        """Jitted methods from all over the code, not more than some thousand."""
        space, layout = self._clr.space, self._layout
        ranges = self._found or [one for _, one in self._listed]
        places = [place for one in ranges for place in places_of(space, one)]
        for start, base in places[:: max(1, len(places) // _MOST_CANDIDATES)][:_MOST_CANDIDATES]:
            found = method_from(space, layout, start, base)
            if isinstance(found, JitMethod):
                yield found

    def _first_words(self) -> list[int]:
        """Distinct words at the start of each segment of the managed heap: MethodTables among them."""
        space, width = self._clr.space, self._clr.space.pointer_bytes
        spans = [Span(one.objects.start, min(one.objects.end, one.objects.start + _WORDS)) for one in self._segments]
        pieces = (words for span in spans for _, words in space.mapped.words(span, width))
        return sorted(
            {word for words in pieces for word in (words & np.uint64(-width & 0xFFFFFFFFFFFFFFFF)).tolist()} - {0}
        )

    def methods(self) -> Iterator[JitMethod]:
        """Every jitted method, by range; before the ranges are known those that a pattern gives."""
        ranges = self._found if self._found else (one for _, one in self._listed)
        for one in ranges:
            yield from methods_of(self._clr.space, self._layout, one)

    def has_code(self, address: int) -> bool:
        """True in jitted or precompiled code."""
        found = self.ranges.at(address)
        return found is not None and found.kind is not CodeKind.STUBS

    def code_at(self, address: int, back: int = 0) -> CodePlace | None:
        """The method or stub that holds `address - back`."""
        return self._names_at(address - back)

    def _place(self, address: int) -> CodePlace | None:
        within = self.ranges.at(address)
        if within is None:
            return None
        if within.kind is CodeKind.STUBS:
            return self._stub(within, address)
        if within.kind is CodeKind.IMAGE:
            return self._in_image(within, address)
        found = method_at(self._clr.space, self._layout, within, address)
        if isinstance(found, int):
            return CodePlace("stub", within.span.start, note="stub", trust=Trust.DERIVED)
        place = self._jitted(found, address) if found is not None else None
        return replace(place, trust=Trust.GUESS) if place is not None and within.found else place

    def _stub(self, within: CodeRange, address: int) -> CodePlace:
        """A stub, and the method that it leads to where it names one."""
        found = stub_target(
            self._clr.space, within.span.start, address, lambda desc: self.names.method_of(desc) is not None
        )
        name = self.names.method_of(found[1]) if found else None
        if found is None or name is None:
            return CodePlace("stub", within.span.start, note="stub", trust=Trust.DERIVED)
        return CodePlace(
            "stub", found[0], name.type, name.method, name.token, name.assembly, found[1], Trust.DERIVED, "stub",
            signature=name.signature,
        )  # fmt: skip

    def _jitted(self, found: JitMethod, address: int) -> CodePlace | None:
        name = self.names.method_of(found.method_desc)
        if name is None:
            return None
        handler = found.is_handler(address)
        return CodePlace(
            "method", found.start, name.type, name.method, name.token, name.assembly, found.method_desc,
            name.trust, "handler" if handler else "", handler, name.signature,
        )  # fmt: skip

    def _read_image(self, base: int) -> ReadyToRun | NativeImage | None:
        image = mapped_image(self._clr.space, base)
        return ready_to_run(image) or native_image(image) if image is not None else None

    def _code_of(self, within: CodeRange) -> ReadyToRun | NativeImage | None:
        """The precompiled code of a range: of the image that begins there, else of the Module's image."""
        found = self._image_code(within.span.start)
        if found is None and within.module:
            home = self.names.assemblies.of_module(within.module)
            found = self._image_code(home.image.base) if home else None
        return found

    def _in_image(self, within: CodeRange, address: int) -> CodePlace | None:
        code = self._code_of(within)
        if isinstance(code, NativeImage):
            return self._in_native_image(code, address)
        return self._in_ready_to_run(code, address) if code is not None else None

    def _in_native_image(self, code: NativeImage, address: int) -> CodePlace | None:
        method = code.method_at(address - code.image.base)
        name = self.names.method_of(code.image.base + method.descriptor) if method is not None else None
        if method is None or name is None:
            return None
        trust = name.trust if method.is_whole or name.trust is Trust.GUESS else Trust.DERIVED
        return CodePlace(
            "method", code.image.base + method.start, name.type, name.method, name.token, name.assembly,
            code.image.base + method.descriptor, trust, "" if method.is_whole else "a part of its code",
            signature=name.signature,
        )  # fmt: skip

    def _in_ready_to_run(self, code: ReadyToRun, address: int) -> CodePlace | None:
        method = code.method_at(address - code.image.base)
        if method is None:
            return None
        home = self.names.assemblies.at_base(code.image.base)
        start, assembly = code.image.base + method.start, home.name if home else None
        if not method.token:
            note = f"generic instantiation in {assembly or 'a precompiled image'}"
            return CodePlace("method", start, assembly=assembly, trust=Trust.GUESS, note=note)
        if home is None:
            return CodePlace("method", start, token=method.token, trust=Trust.DERIVED, note="precompiled")
        owner, instance = home.metadata.owner_of_method(method.token), method.instance
        type_ = instance.type if instance else home.metadata.type_name(owner) if owner else None
        name = home.metadata.method_name(method.token)
        name = f"{name}{instance.arguments}" if name and instance else name
        trust = Trust.DERIVED if method.is_funclet or method.is_shared else Trust.EXACT
        note = "or a method with the same code" if method.is_shared else ""
        return CodePlace(
            "method", start, type_, name, method.token, assembly, None, trust, note,
            signature=parameter_list(home.metadata, method.token),
        )  # fmt: skip

    def unwind_at(self, address: int) -> tuple[int, UnwindData] | None:
        """(base of the RVAs, unwind data) of x64 code."""
        within = self.ranges.at(address)
        if within is None or self._clr.space.pointer_bytes != 8:
            return None
        if within.kind is CodeKind.IMAGE:
            code = self._code_of(within)
            return (code.image.base, ImageUnwindData(code)) if code is not None else None
        found = method_at(self._clr.space, self._layout, within, address)
        return (found.base, JitUnwindData(self._clr.space, found)) if isinstance(found, JitMethod) else None

    @cached_property
    def _named_gc(self) -> gc_variables.GcVariables | None:
        return gc_variables.find_gc_variables(self._clr.space, self._clr.variables)

    @cached_property
    def _gc(self) -> gc_variables.GcVariables | None:
        return self._named_gc or gc_variables.search_gc_variables(self._clr.space, self._clr.module.span)

    @cached_property
    def heap(self) -> ManagedHeap | None:
        """The managed heap; None where the collector's variables are not found."""
        if self._gc is None:
            return None
        space = self._clr.space
        free_at = self._clr.descriptor.globals.get("FreeObjectMethodTable")
        free = space.try_pointer(free_at) or 0 if free_at else 0
        return ManagedHeap(space, self.names, self._segments, free) if self._segments else None

    @cached_property
    def _segments(self) -> list[GcSegment]:
        return segments(self._clr.space, self._gc) if self._gc else []

    def owners(self) -> Sequence[MemoryOwner]:
        """Heap, code, stubs, and memory in which the runtime's structures lie (an inference)."""
        gc = self._gc
        bookkeeping = self._clr.space.try_pointer(gc.bookkeeping) or 0 if gc and gc.bookkeeping else 0
        structures = {method.method_desc for method in self._some_methods()}
        tables = {found.table for desc in structures if (found := self.names.structures.method(desc))}
        modules = {one.module for _, one in self.ranges if one.module}
        modules |= {type_.module for one in tables if (type_ := self.names.structures.method_table(one))}
        return memory_owners(
            self._process, self._segments, [one for _, one in self.ranges], bookkeeping,
            sorted(structures | tables | modules),
        )  # fmt: skip

    def code(self) -> CodeCounts:
        """Jitted methods, bytes of code and stubs, precompiled images."""
        committed = self._process.regions.committed_bytes
        by_kind = {kind: [one for _, one in self.ranges if one.kind is kind] for kind in CodeKind}
        return CodeCounts(
            sum(1 for _, one in self.ranges for _ in methods_of(self._clr.space, self._layout, one)),
            sum(committed(one.span) for one in by_kind[CodeKind.JIT]),
            sum(committed(one.span) for one in by_kind[CodeKind.STUBS]),
            len(by_kind[CodeKind.IMAGE]),
        )

    def trouble(self) -> Sequence[str]:
        """The collector's out-of-memory record in a sentence."""
        found = gc_variables.out_of_memory(self._clr.space, self._gc) if self._gc else None
        if found is None:
            return ()
        wanted = f" for an allocation of {plural(found.alloc_bytes, 'byte')}" if found.alloc_bytes else ""
        return (f"managed OutOfMemory: {_OUT_OF_MEMORY[found.reason]}{wanted}",)

    def gaps(self) -> Sequence[str]:
        """What of the runtime could not be read."""
        out = []
        if not len(self._listed):
            out.append(f"{self._clr.module.name}: no list of its code is found; methods are named by a pattern")
        if self._gc is None:
            out.append(f"{self._clr.module.name}: the variables of its garbage collector are not found")
        elif self._gc.is_invalid:
            out.append("the dump was taken during a garbage collection: the managed heap is not whole")
        return out
