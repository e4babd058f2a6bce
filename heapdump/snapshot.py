"""The one place that wires the ladder: path → Snapshot, each step computed once and on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from heapdump.analyses.allocated.leaks import LeakContext
    from heapdump.analyses.allocated.stacks import Stacks
    from heapdump.analyses.damage.crash import Crash
    from heapdump.analyses.damage.explained import ExplainedFinding
    from heapdump.analyses.damage.incidents import Incident
    from heapdump.analyses.damage.report_context import ReportContext
    from heapdump.analyses.damage.verdict import Verdict
    from heapdump.analyses.graph.pointer_graph import PointerGraph, Referrers
    from heapdump.analyses.graph.references import References
    from heapdump.analyses.graph.retained import Retained
    from heapdump.analyses.graph.roots import Roots
    from heapdump.analyses.graph.unreachable import Reachability
    from heapdump.analyses.locks import HeapLock
    from heapdump.analyses.memory.usage import UsageMap
    from heapdump.analyses.types.declared_shapes import DeclaredShapes
    from heapdump.blocks.byte_damage import ByteDamage
    from heapdump.blocks.damage import Damage
    from heapdump.blocks.decoded import Decoded
    from heapdump.blocks.free_lists import FreeLists
    from heapdump.blocks.heap import Heap
    from heapdump.blocks.page_nodes import PageNodes
    from heapdump.blocks.table import Block
    from heapdump.blocks.walk import Walk
    from heapdump.cache.answers import Columns, Reader, StoredAnswer
    from heapdump.cache.store import Store
    from heapdump.damage_answers import DamageAnswers
    from heapdump.dump.open import Minidump
    from heapdump.group_answers import GroupAnswers
    from heapdump.heaps.crt import CrtReader
    from heapdump.process.model import Process, View
    from heapdump.process.stacks.frames import StackFrame
    from heapdump.process.symbols.namer import Namer
    from heapdump.process.symbols.namers import Namers
    from heapdump.process.symbols.store import SymbolStores
    from heapdump.runtimes.runtime import Runtime
    from heapdump.type_answers import TypeAnswers

VERSION = "0.2.0"
T = TypeVar("T")


class Snapshot:
    """One opened dump. Use it as a context manager: closing deletes the copy of an unpacked dump."""

    def __init__(self, dump: Minidump, *, use_index: bool, say: Callable[[str], None] | None = None) -> None:
        """Use `open_dump`."""
        self.dump = dump
        self.use_index = use_index
        self.remarks: list[str] = []
        self._page_nodes: dict[int, PageNodes | None] = {}
        self.progress: Callable[[int, int], None] = lambda done, total: None
        self.say: Callable[[str], None] = say or (lambda text: None)

    @cached_property
    def process(self) -> Process:
        """Modules, threads, views, memory map."""
        from heapdump.process.load import load_process

        return load_process(self.dump)

    @cached_property
    def heaps(self) -> tuple[Heap, ...]:
        """Every heap of every view, with its extents."""
        from heapdump.heaps import discover

        return discover(self.process)

    @cached_property
    def walk(self) -> Walk:
        """Every block of every heap: `walk.table` holds them as numpy columns. From the index where there is one."""
        store = self._store
        if store is None:
            return self._walk_heaps()
        from heapdump.cache.walk import read_walk, write_walk

        found = read_walk(store, lambda: self._walk_heaps().table, len(self.heaps))
        return found or write_walk(store, self._walk_heaps())

    @cached_property
    def _store(self) -> Store | None:
        """The files of this dump in the user's cache folder; None without an index."""
        if not self.use_index:
            return None
        from heapdump.cache.store import Store

        return Store(self.dump.stamp, remarks=self.remarks, require_whole=self.dump.require_whole)

    def answer(self, answer: StoredAnswer[T], make: Callable[[], T]) -> T:
        """An answer of an analysis: from the index where it is stored there, else made and stored."""
        from heapdump.cache.answers import answer_from

        if self._store is not None and self.walk:  # a new walk writes the index anew
            return answer_from(self._store, answer, make)
        return make()

    def graph_answer(self, name: str, read: Reader[T], write: Callable[[T], Columns], make: Callable[[], T]) -> T:
        """Likewise an answer about the pointer graph; `read` checks the columns against the number of nodes."""
        from heapdump.cache.answers import StoredAnswer

        return self.answer(StoredAnswer(name, lambda columns: read(columns, len(self.graph)), write), make)

    def _walk_heaps(self) -> Walk:
        from heapdump.heaps.walk import walk_heaps

        return walk_heaps(self.process, self.heaps, self.progress)

    def free_lists(self, heap: Heap) -> FreeLists | None:
        """The entries of the heap's free lists; None for heaps without free lists. Some µs for each entry."""
        from heapdump.heaps.nt.free_lists import read_free_lists

        return read_free_lists(self.process, self.view_of(heap), heap)

    def page_nodes(self, heap: Heap) -> PageNodes | None:
        """The nodes of a page heap; None for other heaps. Read once."""
        from heapdump.heaps.page.traces import page_nodes

        if heap.index not in self._page_nodes:
            self._page_nodes[heap.index] = page_nodes(self.view_of(heap), heap)
        return self._page_nodes[heap.index]

    @property
    def damage(self) -> Damage:
        """All findings in the heaps, and the gaps of the checks. From the index where they are."""
        return self._damage.damage

    @cached_property
    def _damage(self) -> DamageAnswers:
        from heapdump.damage_answers import DamageAnswers

        return DamageAnswers(self)

    @property
    def incidents(self) -> tuple[Incident, ...]:
        """Every finding and every report of Windows, joined by bug; errors first."""
        return self._damage.incidents

    @property
    def explained_findings(self) -> tuple[ExplainedFinding, ...]:
        """The findings of all incidents, in their order."""
        return tuple(explained for incident in self.incidents for explained in incident.findings)

    @property
    def report_context(self) -> ReportContext:
        """The context in which reports of Windows are explained."""
        return self._damage.report_context

    def verdict(self, heaps: Sequence[Heap], *, thorough: bool = False) -> Verdict:
        """The verdict on these heaps: damaged, healthy as far as examined, or not checked; `thorough`: by a check."""
        from heapdump.analyses.damage.verdict import verdict

        def examine() -> Damage:
            """The damage of all heaps with changed CRT guards; reports of Windows are another question."""
            found = (explained.finding for explained in self.explained_findings)
            return replace(self.damage, findings=tuple(finding for finding in found if not finding.is_report))

        return verdict(heaps, self.walk, examine, thorough=thorough)

    def heap_at(self, address: int) -> Heap | None:
        """The heap that the address belongs to, of several the one with the smallest part there; None without one."""
        extents = ((extent.span.size, heap) for heap in self.heaps for extent in heap.extents if address in extent.span)
        return min(extents, key=lambda part: part[0], default=(0, None))[1]

    def decoded(self, name: str, address: int, data: bytes) -> Decoded | None:
        """An encoded structure of a heap, decoded; None for one that is not encoded, or whose key is not known.

        `name`: of the structure, as in the layouts; `data`: its bytes, which lie at `address`.
        """
        from heapdump.heaps.decoded import decoded

        heap = self.heap_at(address)
        if heap is None:
            return None
        return decoded(self.view_of(heap), heap, self.walk.facts.get(heap.index, {}), name, address, data)

    def page_damage(self, heap: Heap, block: Block) -> tuple[ByteDamage, ...]:
        """Changed stamps and fills of a block of a page heap."""
        from heapdump.heaps.page.damage import byte_damage

        return tuple(byte_damage(self.view_of(heap), heap, block))

    @cached_property
    def crt(self) -> CrtReader:
        """Finds blocks of the CRT's debug heap among rows of the block table."""
        from heapdump.heaps.crt import CrtReader

        return CrtReader(self.process.views, self.heaps, self.walk)

    @cached_property
    def crash(self) -> Crash | None:
        """The crash that a block of a heap explains; None without a crash, and for one that no block explains."""
        from heapdump.analyses.damage.crash import explain_crash

        return None if self.process.exception is None else explain_crash(self.report_context)

    @cached_property
    def locks(self) -> dict[int, HeapLock]:
        """Index of a heap → its lock; heaps whose lock is not known are left out."""
        from heapdump.analyses.locks import heap_locks

        return heap_locks(self.process, self.heaps)

    def view_of(self, heap: Heap) -> View:
        """The view of the process that the heap belongs to."""
        return next(view for view in self.process.views if view.arch == heap.view)

    @cached_property
    def runtimes(self) -> tuple[Runtime, ...]:
        """The runtimes of the process (.NET …); none costs some reads for each module."""
        from heapdump.runtimes import find_runtimes

        return find_runtimes(self.process)

    @cached_property
    def usage(self) -> UsageMap:
        """The usage of each address range."""
        from heapdump.analyses.memory.usage import classify

        owners = [owner for runtime in self.runtimes for owner in runtime.owners()]
        return classify(self.process, self.heaps, owners)

    @cached_property
    def stacks(self) -> Stacks:
        """The recorded allocation stacks of blocks."""
        from heapdump.analyses.allocated.stacks import Stacks
        from heapdump.heaps import trace_reader

        return Stacks(self.process, self.heaps, self.walk, trace_reader)

    def leak_context(self, image_path: str | Path | None, symbol_path: str) -> LeakContext:
        """The context in which blocks are grouped, with names as `namer` makes them."""
        from heapdump.analyses.allocated.leaks import LeakContext

        namer = partial(self.namer, image_path, symbol_path)
        types = self.types
        typing, owners = lambda: types.typed(namer()), lambda: types.owners(namer())

        def shapes() -> DeclaredShapes | None:
            """What PDBs declare."""
            return types.shapes(namer())

        stored = partial(self.groups.leak_groups, has_own_names=not (image_path or symbol_path), shapes=shapes)
        return LeakContext(
            self.process, self.heaps, self.walk, self.stacks, namer, self.crt.blocks, typing, owners, shapes, stored
        )

    @cached_property
    def types(self) -> TypeAnswers:
        """Types and owners of busy blocks, by the pointer graph."""
        from heapdump.type_answers import TypeAnswers

        return TypeAnswers(self)

    @cached_property
    def graph(self) -> PointerGraph:
        """The pointers between busy blocks, and from roots to them. From the index where there is one."""
        from heapdump.analyses.graph.pointer_graph import columns_of, from_columns
        from heapdump.cache.answers import StoredAnswer

        stored = StoredAnswer("graph", lambda found: from_columns(found, self.roots, self.walk.table), columns_of)
        graph = self.answer(stored, self.sweep)
        graph.forget_places()
        return graph

    @cached_property
    def roots(self) -> Roots:
        """The registers and the memory in which the program finds pointers to its blocks."""
        from heapdump.analyses.graph.roots import find_roots

        managed = [runtime.heap for runtime in self.runtimes if runtime.heap is not None]
        return find_roots(self.process, self.usage, self.heaps, self.walk.counts, managed, self.report_context.failure)

    def sweep(self, *, unaligned: bool = False) -> PointerGraph:
        """A new pointer graph. `unaligned`: pointers begin at any byte."""
        from heapdump.analyses.graph.pointer_graph import build_graph

        return build_graph(self.process, self.heaps, self.walk.table, self.roots, self.crt.blocks, unaligned=unaligned)

    @cached_property
    def reached(self) -> Reachability:
        """How each block can be reached. From the index where there is one."""
        from heapdump.analyses.graph.unreachable import classify, columns_of, from_columns

        return self.graph_answer("reach", from_columns, columns_of, lambda: classify(self.graph))

    @cached_property
    def referrers(self) -> Referrers:
        """The nodes that point to each node of the graph. From the index where there is one."""
        from heapdump.analyses.graph.pointer_graph import referrers_from, referrers_of, referrers_to_columns

        return self.graph_answer("referrers", referrers_from, referrers_to_columns, lambda: referrers_of(self.graph))

    def references(self, namer: Namer) -> References:
        """The pointers to blocks, and paths from roots to them; `namer` names places in roots."""
        from heapdump.analyses.graph.references import References

        return References(self.process, self.graph, lambda: self.referrers, namer)

    @cached_property
    def retained(self) -> Retained:
        """The dominator tree: the memory that each block retains. From the index where there is one."""
        from heapdump.analyses.graph.retained import columns_of, from_columns, retained_of

        return self.graph_answer("retained", from_columns, columns_of, lambda: retained_of(self.graph))

    @cached_property
    def groups(self) -> GroupAnswers:
        """Blocks in groups, from the index where they are."""
        from heapdump.group_answers import GroupAnswers

        return GroupAnswers(self)

    @cached_property
    def _named(self) -> Namers:
        from heapdump.cache.store import symbol_folder
        from heapdump.process.symbols.namers import Namers
        from heapdump.runtimes.code import RuntimeCode

        return Namers(self.process, RuntimeCode(lambda: self.runtimes), self.remarks, symbol_folder(), self.say)

    def stores(self, path: str | Path | None = None) -> SymbolStores:
        """The stores that a symbol path names, the same ones each time; a Path is one folder, whatever its name."""
        return self._named.stores(path)

    def namer(self, image_path: str | Path | None = None, symbol_path: str = "") -> Namer:
        """Names code addresses. `image_path`: files of modules not in the dump; `symbol_path`: as _NT_SYMBOL_PATH."""
        return self._named.namer(image_path, symbol_path)

    def crashed_frames(self, image_path: str = "", symbol_path: str = "") -> list[StackFrame]:
        """The call stack of the exception, innermost first; empty without one."""
        from heapdump.process.stacks.frames import crashed_frames

        return crashed_frames(self.process, self.namer(image_path, symbol_path))

    @property
    def gaps(self) -> tuple[str, ...]:
        """Sentences on parts of the process that this dump does not hold; none for a complete dump."""
        return self.process.notes

    def forget_tree(self) -> None:
        """Drops the dominator tree, likewise."""
        self.__dict__.pop("retained", None)
        self.graph.forget_places()

    def forget_blocks(self) -> None:
        """Drops the walk and everything made of it; what is asked for again is made again."""
        blocks = ("walk", "_damage", "crash", "crt", "stacks")
        for name in (*blocks, "graph", "reached", "referrers", "retained", "types"):
            self.__dict__.pop(name, None)

    def close(self) -> None:
        """Unmaps the dump and deletes its temporary copy."""
        self.dump.close()

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_dump(
    path: str | Path,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
    *,
    use_index: bool = True,
) -> Snapshot:
    """Opens a Windows user-mode minidump, packed (.gz .xz .zst .zip .cab) or not.

    `progress(done, total)` is called while unpacking, `say(text)` gets lines worth telling the user. `use_index`: keep
    the walked blocks in the user's cache folder, and take them from there.

    Raises:
        DumpError: the file cannot be read as one; the message says what it is and what to try.
    """
    from heapdump.dump.open import open_minidump

    dump = open_minidump(Path(path), progress or (lambda done, total: None), say or (lambda text: None))
    return Snapshot(dump, use_index=use_index, say=say)
