"""`managed`: runtimes of the process, their heaps, types and methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from heapdump.commands.common.addresses import address_in
from heapdump.commands.common.managed import (
    CODE_WORDS,
    GENERATIONS,
    TYPES,
    generation_record,
    place_lines,
    place_record,
    referrer_lines,
    referrer_record,
    runtime_record,
    thread_lines,
    thread_record,
    type_record,
)
from heapdump.commands.common.next_command import arrow
from heapdump.commands.common.options import option
from heapdump.commands.common.request import Arguments, Request, dump_command
from heapdump.render import text
from heapdump.render.view import Answer, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.managed.threads import ManagedThread
    from heapdump.runtimes.runtime import CodeCounts, GenerationRow, Runtime, TypeCount
    from heapdump.snapshot import Snapshot


_SUFFIXES = (".dmp", ".mdmp", ".hdmp", ".gz", ".xz", ".zst", ".zip", ".cab")


def split_arguments(arguments: tuple[str, ...]) -> dict[str, Any]:
    """`dump` and `addresses` of [DUMP] [ADDRESS]...: the first is the dump where it is a file or named like one."""
    has_dump = bool(arguments) and (Path(arguments[0]).is_file() or arguments[0].lower().endswith(_SUFFIXES))
    dump, rest = (Path(arguments[0]), arguments[1:]) if has_dump else (None, arguments)
    return {"dump": dump, "addresses": rest}


@option("--types", "only_types", is_flag=True, help="Only the types, as !dumpheap -stat.")
@option("--threads", "threads", is_flag=True, help="The managed frames of each thread, as !clrstack.")
@dump_command("managed", takes_expressions=True, arguments=Arguments("[DUMP] [ADDRESS]...", split_arguments))
def command(request: Request, addresses: tuple[str, ...], only_types: bool, threads: bool) -> int:
    """.NET and Java: the heap by type; a method, an object.

    \b
    heapdump managed crash.dmp                    as !eeheap and !dumpheap -stat
    heapdump managed crash.dmp --types --sort count
    heapdump managed crash.dmp --threads          as !clrstack of every thread
    heapdump managed crash.dmp 0x7fe83e3bcf6      as !ip2md and !dumpobj
    """
    with request.open() as snapshot:
        if addresses:
            return request.emit(snapshot, _at(snapshot, [address_in(request, snapshot, one) for one in addresses]))
        return request.emit(snapshot, _Overview(request, snapshot, only_types, threads).answer())


def _at(snapshot: Snapshot, addresses: Sequence[int]) -> Answer:
    """The methods and objects at addresses; of a single object also who points to it."""
    from heapdump.analyses.managed.places import managed_place, referrers

    places = [managed_place(snapshot.runtimes, address) for address in addresses]
    found = places[0].found if len(places) == 1 else None
    pointing = referrers(snapshot.process.space, snapshot.runtimes, found.address) if found is not None else None
    records = [place_record(place) for place in places]
    if pointing is not None:
        records[0]["referrers"] = [referrer_record(one) for one in pointing.words]
    lines = [line for place in places for line in place_lines(place)]
    return Answer(
        "managed",
        data=lambda: records[0] if len(records) == 1 else records,
        records=lambda: records,
        page=lambda: [Lines([*lines, *(referrer_lines(pointing) if pointing is not None else ())])],
        gaps=[*_gaps(snapshot.runtimes), *(pointing.gaps if pointing is not None else ())],
        notes=pointing.notes if pointing is not None else (),
    )


def _gaps(runtimes: Sequence[Runtime]) -> list[str]:
    return [gap for runtime in runtimes for gap in runtime.gaps()]


class _Overview:
    """The answer without addresses."""

    def __init__(self, request: Request, snapshot: Snapshot, only_types: bool, threads: bool) -> None:
        self._request, self._snapshot = request, snapshot
        self._only_types = only_types
        self._threads = self._managed_threads() if threads else None
        self._runtimes = snapshot.runtimes
        self._types: list[TypeCount] = request.rows(self._all_types(), type_record)

    def _managed_threads(self) -> list[ManagedThread]:
        from heapdump.analyses.managed.threads import managed_threads

        namer = self._snapshot.namer(self._request.image_path, self._request.symbol_path)
        return managed_threads(self._snapshot.process, namer)

    def _all_types(self) -> list[TypeCount]:
        return [row for runtime in self._runtimes if runtime.heap for row in runtime.heap.types()]

    def answer(self) -> Answer:
        """Runtime, heaps, code and types."""
        heap_gaps = [gap for runtime in self._runtimes if runtime.heap for gap in runtime.heap.gaps()]
        return Answer(
            "managed",
            data=self._data,
            records=lambda: (type_record(row) for row in self._types),
            page=self._page,
            gaps=(*_gaps(self._runtimes), *heap_gaps),
        )

    def _data(self) -> Record:
        first = self._runtimes[0] if self._runtimes else None
        rows = [row for runtime in self._runtimes if runtime.heap for row in runtime.heap.rows()]
        code = first.code() if first else None
        return {
            "runtime": runtime_record(first.info) if first else None,
            "other_runtimes": [runtime_record(runtime.info) for runtime in self._runtimes[1:]],
            "heaps": [generation_record(row) for row in rows],
            "code": {word: getattr(code, word) for word in CODE_WORDS} if code else None,
            "trouble": [line for runtime in self._runtimes for line in runtime.trouble()],
            "types": [type_record(row) for row in self._types],
            **({} if self._threads is None else {"threads": [thread_record(one) for one in self._threads]}),
        }

    def _page(self) -> Iterator[PageItem]:
        if not self._runtimes:
            yield Lines([[("no .NET and no Java runtime is loaded in this process", "dim")]])
            return
        if self._threads is not None:
            yield Lines([line for one in self._threads for line in thread_lines(one)])
            return
        if not self._only_types:
            for runtime in self._runtimes:
                yield from self._runtime_page(runtime)
        shown, hidden = self._request.shown(self._types)
        yield Table(TYPES, shown, title="Types", hidden=hidden, empty="no object is known")

    def _runtime_page(self, runtime: Runtime) -> Iterator[PageItem]:
        info, code = runtime.info, runtime.code()
        version = f" {info.version}" if info.version else ""
        lines = [
            [(info.kind, "bold"), (f" in {info.module}{version}, found by {', '.join(info.found_by)}", "")],
            [(f"code: {', '.join(_code_words(code)) or 'none is known'}", "")],
            *([(line, "red")] for line in runtime.trouble()),
        ]
        rows = list(runtime.heap.rows()) if runtime.heap is not None else []
        if rows:
            lines.insert(1, [(self._share(rows), ""), arrow(self._snapshot, ("triage",))])
        yield Lines(lines)
        if runtime.heap is not None:
            yield Table(GENERATIONS, rows, title="Managed heap", empty="no generation is known")

    def _share(self, rows: Sequence[GenerationRow]) -> str:
        """What the managed heap has of the memory of the process."""
        regions = self._snapshot.process.regions
        held, objects = (sum(row.committed_bytes for row in rows), sum(row.bytes for row in rows))
        words = f"managed heap: {text.short_size(held)} committed, {text.short_size(objects)} of objects"
        if not regions.is_complete_map:
            return words
        total = regions.all_committed_bytes or 1
        return f"{words}; {text.share(held / total)} of the {text.short_size(total)} that the process has committed"


def _code_words(code: CodeCounts) -> Iterator[str]:
    """The code of a runtime, without what it does not have."""
    if code.methods:
        yield text.plural(code.methods, "jitted method")
    if code.jit_bytes:
        yield f"{text.size(code.jit_bytes)} of JIT code"
    if code.stub_bytes:
        yield f"{text.size(code.stub_bytes)} of stubs"
    if code.images:
        yield text.plural(code.images, "precompiled image")
