"""Asked twice, cold and from the index, every command prints the same bytes.

The cold answers come from this process, which has walked other dumps before. Those from the index come from a helper
process that walks none. So an answer that depends on the state of a module, or on a fact that the index lacks, differs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fixtures.sample import sample
from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.blocks.kind import BlockKind
from heapdump.snapshot import Snapshot
from tests.analyses.graph.plans import How, lay
from tests.analyses.graph.plans import Plan as GraphPlan
from tests.asking import Answer, Helper, ask, helper, opened_once
from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap_layout import GENERATIONS as SEGMENT_GENERATIONS
from tests.every_command import plain_calls
from tests.heaps.nt.lfh_plans import GENERATIONS as LFH_GENERATIONS
from tests.heaps.nt.lfh_plans import Plan as LfhPlan
from tests.heaps.nt.plans import FIXED, REPRESENTATIVES, Generation, heap_of, process_of
from tests.heaps.page.test_walk import PAGE_HEAPS, PageHeapOf, builder_of, process_with
from tests.heaps.segment.test_traces import traced_process
from tests.heaps.test_check import lookaside_heap
from tests.heaps.test_crt import NAMES, crt_heap
from tests.recordings import Recorded, dumps
from tests.samples import SAMPLES

Built = BuiltDump | ProcessBuilder

OF_HEAPS = [
    "summary --json", "heaps --json", "blocks --state all --internal --json", "virt-blocks --json", "check --json",
    "page-heap --state all --json", "leaks --group-by stack --json",
]  # fmt: skip
"""These show what differs between kinds of heaps."""
OF_WALKS = [
    *OF_HEAPS, "triage --json", "blocks --stat --all", "leaks --group-by structure --json",
    "leaks --group-by owner --json", "waste --json", "leaks --group-by type --json", "retained --json",
    "leaks --unreachable --report-objects --json",
]  # fmt: skip
"""These show what a walk finds."""
CALLS = [
    "diff", "diff --all --json", "gaps", "gaps --json",
    *OF_WALKS, "summary", "triage", "info --json", "heaps --explain", "regions --json", "modules --json",
    "threads --frames --args --json", "managed --json", "check", "blocks --containing hex:000000", "leaks", "leaks --export umdh",
    "leaks --export pprof", "retained", "report", "report --json", "leaks --unreachable --lsan-compat",
    "leaks --unreachable --size 0..200 --json", "memory rsp --as pointers --json", "memory peb --all",
    "struct _TEB teb --json", "disasm rip --json", "search dll --json", "modules ntdll --json",
    *(f"leaks --group-by {by} --json" for by in GroupKey if by not in (GroupKey.STACK, GroupKey.TYPE)),
    *(f"leaks --unreachable --group-by {by} --json" for by in GroupKey),
    *(f"retained --by {by} --json" for by in (GroupKey.STACK, GroupKey.TYPE, GroupKey.MODULE)),
]  # fmt: skip
PLAIN = plain_calls(CALLS, "heap", "block", "refs", "fleet", "mcp")
"""Commands that the table does not name."""
CALLS += PLAIN
UNALIGNED = "leaks --unreachable --use-unaligned --json"
"""Sweeps at every byte: for small dumps."""
_MOST_BYTES = 40 << 20


def recorded_dumps(*, every: bool) -> list[str]:
    """Recorded dumps; unless `every`: some of each build, and those whose answers need most of what a walk infers."""
    names = [*dumps("oracle/*/*"), *dumps("hard/*/*")]
    patterns = ["damaged/*", "oracle/*/segment-ust", *(["reports/*", "real/partial/*"] if every else [])]
    return sorted({*names[:: 1 if every else 13], *(name for pattern in patterns for name in dumps(pattern))})


RECORDED = recorded_dumps(every="HEAPDUMP_FUZZ" in os.environ)
"""`make fuzz` asks all."""


def calls_about(snapshot: Snapshot) -> Iterator[str]:
    """Calls about heaps, and about the first and the last busy block."""
    for heap in snapshot.heaps[:3]:
        yield f"heap {heap.address:#x} --json"
    rows = np.flatnonzero(snapshot.walk.table.is_busy)
    for row in {int(row) for row in (*rows[:1], *rows[-1:])}:
        address = int(snapshot.walk.table.address[row])
        yield from (f"{name} {address:#x} --json" for name in ("block", "refs", "retained"))
        if snapshot.walk.table.kind[row] == BlockKind.PAGE:
            yield f"page-heap {address:#x} --json"


def arguments(path: Path, call: str) -> list[str]:
    """The command line of a call about a dump."""
    name, *rest = call.split()
    return [name, str(path), *([str(path)] if name == "diff" else []), *rest]


def difference(call: str, *answers: Answer) -> str:
    """The call, and the first place where its two answers differ."""
    first, second = (f"exit {answer.exit_code}\n{answer.stdout}\n{answer.stderr}" for answer in answers)
    at = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    return f"{call}: {first[max(0, at - 200) : at + 80]!r} ≠ {second[max(0, at - 20) : at + 80]!r}"


class Index:
    """The folder of an index, and the answers that were given while it was written."""

    def __init__(self, path: Path, folder: Path) -> None:
        """`path`: the dump; `folder` need not exist."""
        self.path, self.folder = path, folder
        self.answers: dict[str, Answer] = {}

    def ask_each(self, calls: Iterable[str]) -> None:
        """Asks one after the other."""
        self.answers |= {call: ask(self.folder, arguments(self.path, call)) for call in calls}

    def ask_in_one(self, calls: Iterable[str]) -> None:
        """Asks about the dump opened once: what its walk found is at hand, and is not read from the index."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HEAPDUMP_CACHE", str(self.folder))
            with opened_once(self.path) as opened:
                self.ask_each([*calls, *calls_about(opened)])

    def differences(self, other: Helper) -> list[str]:
        """The calls that `other` answers otherwise from the index."""
        second = {call: other.ask(self.folder, arguments(self.path, call)) for call in self.answers}
        return [difference(call, first, second[call]) for call, first in self.answers.items() if first != second[call]]


@pytest.fixture(scope="module")
def other() -> Iterator[Helper]:
    """A process that has walked no dump."""
    with helper() as process:
        yield process


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where indexes lie."""
    yield tmp_path / "indexes"
    shutil.rmtree(tmp_path / "indexes", ignore_errors=True)


@pytest.mark.parametrize("call", PLAIN)
def test_commands_without_a_call_of_their_own_need_no_argument(call: str, tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "crash.dmp"
    next(iter(SAMPLES.values()))(path)
    assert ask(folder, arguments(path, call)).exit_code != 2


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_answered_alike_cold_and_from_the_index(
    name: str, tmp_path: Path, folder: Path, other: Helper
) -> None:
    path = tmp_path / f"{name}.dmp"
    SAMPLES[name](path)
    index = Index(path, folder)
    index.ask_in_one([*CALLS, UNALIGNED])
    cold = {call: ask(folder, [*arguments(path, call), "--no-cache"]) for call in OF_WALKS}
    assert [
        difference(call, cold[call], index.answers[call]) for call in cold if cold[call] != index.answers[call]
    ] == []
    assert index.differences(other) == []


def nt_heap(generation: Generation) -> Built:
    """A healthy NT heap of back-end blocks."""
    return process_of(generation, heap_of(generation, FIXED[4]).build())


def lfh(generation: Generation) -> Built:
    """LFH blocks of an NT heap."""
    return LfhPlan(generation, (("lfh", 4, 40), ("busy", 100, 0), ("lfh", 9, 20)), seed=5).process()


def lookaside(generation: Generation) -> Built:
    """Blocks on a lookaside list."""
    return lookaside_heap(generation)[0]


def page_heap(generation: PageHeapOf) -> Built:
    """A page heap with busy and freed blocks."""
    heap = builder_of(generation)
    for state in ("busy", "freed", "busy"):
        heap.block(90, state=state, trace=heap.trace(0x401000, 0x402000), thread=7)
    return process_with(generation, heap.build())


def crt_blocks(arch: HeapArch) -> Built:
    """Blocks of the CRT's debug heap."""
    heap, _, _ = crt_heap((arch, "ucrt"), [(40, NAMES, 12, 1, 1), (100, 0, 0, 2, 2), (7, NAMES, 9, 4, 3)])
    process = process_of(Generation(arch, 19041), heap.build())
    return process.region(NAMES, 0x1000).memory(NAMES, b"main.cpp".ljust(0x1000, b"\0"))


def graph() -> Built:
    """Blocks that hold each other, in several ways."""
    edges: list[tuple[int, int, How]] = [
        (0, 1, "start"), (1, 2, "inside"), (3, 4, "start"), (4, 3, "start"), (5, 5, "start"), (2, 0, "past"),
    ]  # fmt: skip
    return lay(
        GraphPlan("x64", [64, 40, 600, 24, 24, 16, 8], edges, [("module", 0, "start"), ("peb", 1, "start")])
    ).built


BUILT: dict[str, Callable[[], Built]] = {
    **{f"nt-{one}": partial(nt_heap, one) for one in REPRESENTATIVES},
    **{f"lfh-{one}": partial(lfh, one) for one in LFH_GENERATIONS},
    **{f"lookaside-{one}": partial(lookaside, one) for one in (Generation("x86", 2600), Generation("x64", 3790))},
    **{f"segment-{arch}-{build}": partial(traced_process, (arch, build)) for arch, build in SEGMENT_GENERATIONS},
    **{f"page-{name}": partial(page_heap, generation) for name, generation in PAGE_HEAPS.items()},
    **{f"crt-{arch}": partial(crt_blocks, arch) for arch in ("x64", "x86")},
    "graph": graph,
    "sample": sample,
}


@pytest.mark.parametrize("name", BUILT)
def test_built_dumps_are_answered_alike_cold_and_from_the_index(
    name: str, tmp_path: Path, folder: Path, other: Helper
) -> None:
    path, made = tmp_path / f"{name}.dmp", BUILT[name]()
    if isinstance(made, ProcessBuilder):
        made.write(path)
    else:
        path.write_bytes(made.data)
    index = Index(path, folder)
    index.ask_in_one(OF_WALKS if name in ("graph", "sample") else OF_HEAPS)
    assert index.differences(other) == []


@pytest.mark.real
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_dumps_are_answered_alike_cold_and_from_the_index(
    name: str, recorded: Recorded, folder: Path, other: Helper
) -> None:
    path = recorded(f"{name}.dmp.xz")
    if path.stat().st_size <= _MOST_BYTES:
        index = Index(path, folder)
        index.ask_in_one(CALLS)
        assert index.differences(other) == []
    path.unlink()  # all of them would fill the disk
