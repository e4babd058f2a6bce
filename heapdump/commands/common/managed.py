"""Records and columns of managed code and objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.thread_stacks import stack_frame_record
from heapdump.render import text
from heapdump.render.view import Column, Record, StyledLine, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.managed.places import ManagedPlace, ManagedReferrers, Referrer
    from heapdump.analyses.managed.threads import ManagedThread
    from heapdump.runtimes.runtime import CodePlace, GenerationRow, ManagedObject, RuntimeInfo, TypeCount

_LONGEST_TEXT = 200
CODE_WORDS = ("methods", "jit_bytes", "stub_bytes", "images")
"""Members of CodeCounts and of the record `code`."""

TYPES: tuple[Column[TypeCount], ...] = (
    Column("Count", lambda t: text.count(t.count), "objects of the type (its MethodTable, or Klass)", right=True),
    Column("Bytes", lambda t: text.count(t.bytes), "their sizes with headers: base size + elements", right=True),
    Column(
        "Type", lambda t: t.type, "the type by the metadata of its assembly; Free: free space", flexible=30, wraps=True
    ),
)
GENERATIONS: tuple[Column[GenerationRow], ...] = (
    Column("Generation", lambda g: g.generation, "large: objects of 85,000 bytes and more"),
    Column("Segments", lambda g: text.count(g.segments), "segments, or regions from .NET 7 on", right=True, rank=1),
    size_column("Committed", lambda g: g.committed_bytes, "heap_segment.committed - its start"),
    size_column("Reserved", lambda g: g.reserved_bytes, "heap_segment.reserved - its start", rank=2),
    Column("Objects", lambda g: text.count(g.objects), "objects met by the walk, free space left out", right=True),
    Column("Bytes", lambda g: text.count(g.bytes), "bytes of these objects", right=True),
    Column("Free", lambda g: text.count(g.free_bytes), "bytes of free objects between them", right=True, rank=3),
)


def runtime_record(info: RuntimeInfo) -> Record:
    """The record `runtime` of the answer."""
    return {"kind": info.kind, "version": info.version, "module": info.module, "found_by": ", ".join(info.found_by)}


def generation_record(row: GenerationRow) -> Record:
    """One record of `heaps`."""
    return {
        "generation": row.generation,
        "segments": row.segments,
        "committed_bytes": row.committed_bytes,
        "reserved_bytes": row.reserved_bytes,
        "objects": row.objects,
        "bytes": row.bytes,
        "free_bytes": row.free_bytes,
    }


def type_record(row: TypeCount) -> Record:
    """One record of `types`."""
    return {"type": row.type, "count": row.count, "bytes": row.bytes}


def place_record(place: ManagedPlace) -> Record:
    """The record of an address; `kind` is null where no runtime knows it."""
    code, found = place.code, place.found
    record: Record = {
        "address": hex(place.address),
        "kind": code.kind if code else "object" if found else None,
        "type": code.type if code else found.type if found else None,
        "method": code.method if code else None,
        "token": hex(code.token) if code and code.token else None,
        "module": code.assembly if code else None,
        "offset": place.offset,
        "trust": code.trust if code else "exact" if found else None,
    }
    if code is not None:
        record |= _code_record(code)
    if found is not None:
        record |= _object_record(found) | {"text": place.text, "field": place.field}
    return record


def _code_record(code: CodePlace) -> Record:
    return {
        "method_desc": hex(code.descriptor) if code.descriptor is not None else None,
        "start": hex(code.start),
        "is_handler": code.is_handler,
        "signature": code.signature,
        "note": code.note,
    }


def _object_record(found: ManagedObject) -> Record:
    return {
        "object": hex(found.address),
        "size": found.bytes,
        "generation": found.generation,
        "length": found.length,
        "is_finalizable": found.is_finalizable,
    }


def place_lines(place: ManagedPlace) -> Iterator[StyledLine]:
    """The method or object at an address, in one or two lines."""
    code, found = place.code, place.found
    if code is not None:
        yield [(f"{place.address:#x}", "bold"), (f"  {_code_words(code, place.offset or 0)}", "")]
        facts = [f"code from {code.start:#x}"]
        facts += [f"token {code.token:#x}"] if code.token else []
        facts += [f"MethodDesc {code.descriptor:#x}"] if code.descriptor else []
        facts += [f"trust {code.trust}"] if code.trust != "exact" else []
        yield [("  " + ", ".join(facts), "dim")]
    elif found is not None:
        inside = f", {place.field or ''} at offset {place.offset:+#x}" if place.offset else ""
        last = ", with a finalizer" if found.is_finalizable else ""
        elements = f", {text.plural(found.length, 'element')}" if found.length is not None else ""
        words = f"  {found.type} at {found.address:#x}{inside}: {text.plural(found.bytes, 'byte')}{elements}"
        yield [(f"{place.address:#x}", "bold"), (f"{words}, {found.generation}{last}", "")]
        if place.text is not None:
            more = "…" if len(place.text) > _LONGEST_TEXT else ""
            yield [(f'  "{place.text[:_LONGEST_TEXT]}{more}"', "green")]
    else:
        yield [(f"{place.address:#x}", "bold"), ("  neither managed code nor a managed object", "dim")]


def _code_words(code: CodePlace, offset: int) -> str:
    """`assembly!Namespace.Type.Method+0x1a`."""
    if code.kind == "stub" and code.method is None:
        return "stub of the runtime"
    if code.method is None:
        return code.note or "method without a name"
    module = f"{code.assembly}!" if code.assembly else ""
    symbol = f"{code.type}.{code.method}" if code.type else code.method
    note = f" ({code.note})" if code.note else ""
    return f"{module}{symbol}{code.signature or ''}+{offset:#x}{note}"


def referrer_record(one: Referrer) -> Record:
    """The record of a word that points to the object."""
    source = one.source
    return {
        "at": hex(one.at),
        "object": hex(source.address) if source else None,
        "type": source.type if source else None,
        "field": one.field,
    }


def referrer_lines(found: ManagedReferrers) -> Iterator[StyledLine]:
    """The referrers of an object in the managed heap, a line for each."""
    if not found.words:
        nothing = "no pointer to it was found in what could be searched"
        yield [(nothing if found.gaps or found.notes else "no object of the managed heap points to it", "dim")]
    else:
        yield [("pointed to by:", "bold")]
    for one in found.words:
        source = f"{one.source.type} at {one.source.address:#x}" if one.source else "no object"
        field = f", {one.field}" if one.field else ""
        yield [(f"  {one.at:#x}  {source}{field}", "")]
    yield from ([(note, "dim")] for note in found.notes)


def thread_record(found: ManagedThread) -> Record:
    """The record of a thread and its managed frames."""
    frames = [stack_frame_record(one, args=False) for one in found.frames]
    return {"id": found.thread.id, "name": found.thread.name, "frames": frames}


def thread_lines(found: ManagedThread) -> Iterator[StyledLine]:
    """A thread and its managed frames, a line for each."""
    thread = found.thread
    yield [(f"~{thread.index} tid {thread.id:#x}{f' {thread.name}' if thread.name else ''}", "bold")]
    yield from ([(f"  {one.sp:#x}  {one.frame}", "")] for one in found.frames)
