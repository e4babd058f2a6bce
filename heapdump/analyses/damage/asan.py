"""AddressSanitizer's report as a finding: its text, the exception that hands it over, or what the shadow says."""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.analyses.damage.report_context import ReportContext
from heapdump.analyses.damage.windows_report import Access, AccessKind, WindowsReport
from heapdump.blocks.findings import BugKind, Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import Block
from heapdump.process.reports.asan_text import AsanReport
from heapdump.wording import plural

_BUGS = {bug.value: bug for bug in BugKind} | {
    "new-delete-type-mismatch": BugKind.DEALLOCATION, "bad-malloc_usable_size": BugKind.BAD_FREE,
    "intra-object-overflow": BugKind.OVERFLOW,
}  # fmt: skip
"""AddressSanitizer's word → bug; a word without one is named in the sentence alone."""

_BY_SHADOW = {
    0xFD: BugKind.USE_AFTER_FREE, 0xF1: BugKind.STACK_UNDERFLOW, 0xF2: BugKind.STACK_BUFFER,
    0xF3: BugKind.STACK_BUFFER, 0xF5: BugKind.STACK_AFTER_RETURN, 0xF8: BugKind.STACK_AFTER_SCOPE,
    0xF9: BugKind.GLOBAL_BUFFER, 0xF7: BugKind.POISONED, 0xFC: BugKind.CONTAINER, 0xCA: BugKind.DYNAMIC_STACK,
    0xCB: BugKind.DYNAMIC_STACK,
}  # fmt: skip
"""Shadow byte → the bug of an access there (LLVM: asan_errors.cpp, ErrorGeneric); fa is decided by the chunks."""

_REDZONE, _PARTIAL = 0xFA, range(1, 8)
_ACCESS_VIOLATION = 0xC0000005
_KINDS: dict[int, AccessKind] = {0: "read", 1: "write", 8: "execute"}


SHADOW_MEANINGS = {
    0xFA: "heap left redzone", 0xFD: "freed heap region", 0xF1: "stack left redzone", 0xF2: "stack mid redzone",
    0xF3: "stack right redzone", 0xF5: "stack after return", 0xF8: "stack use after scope", 0xF9: "global redzone",
    0xF6: "global init order", 0xF7: "poisoned by user", 0xFC: "container overflow", 0xAC: "array cookie",
    0xBB: "intra object redzone", 0xFE: "ASan internal", 0xCA: "left alloca redzone", 0xCB: "right alloca redzone",
}  # fmt: skip
"""Shadow byte → AddressSanitizer's words for it (LLVM: asan_errors.cpp, PrintLegend)."""


def shadow_meaning(value: int) -> str:
    """The words of AddressSanitizer's legend; "" for a byte that it does not have."""
    if value < 8:
        return "partially addressable" if value else "addressable"
    return SHADOW_MEANINGS.get(value, "")


def asan_findings(context: ReportContext) -> Iterator[WindowsReport]:
    """The reports that the process holds, else what the shadow says of the address of the exception.

    Without a runtime of AddressSanitizer nothing is searched.
    """
    handed, texts = context.handed_report, context.asan_reports.reports
    heap = next((heap for heap in context.heaps if heap.kind == "asan"), None)
    address = heap.address if heap is not None else 0
    if handed is not None and not any(handed.text.strip() in one.text for one in texts):
        yield _report(context, address, handed, f"the exception hands it over at {handed.address:#x}")
    for one in texts:
        copies = f", {one.copies} copies" if one.copies > 1 else ""
        more = f", which goes on behind the first {len(one.text):,} characters" if one.is_cut else ""
        yield _report(context, address, one, f"its report is the text at {one.address:#x}{copies}{more}")
    if heap is not None and handed is None and not texts:
        yield from _rebuilt(context, heap)


def asan_gaps(context: ReportContext) -> tuple[str, ...]:
    """A sentence for each report that was cut, and one where some were not read."""
    found, gaps = context.asan_reports, list[str]()
    for one in found.reports:
        if one.is_cut:
            name = f"AddressSanitizer's report at {one.address:#x}"
            gaps.append(f"{name}: only its first {len(one.text):,} characters are known; it goes on behind them")
    if found.unread is not None:
        texts = f"further reports of AddressSanitizer or LeakSanitizer, such as the text at {found.unread:#x}"
        gaps.append(f"{texts}, were not read: there are too many")
    return tuple(gaps)


def _report(context: ReportContext, heap: int, found: AsanReport, source: str) -> WindowsReport:
    address = found.bad_address or (found.region[0] if found.region else 0)
    located = context.locate(found.region[0]) if found.region else None
    finding = Finding("asan_report", "error", heap, address, 1, f"{_sentence(found)} ({source})", "", "")
    return WindowsReport(
        finding, _BUGS.get(found.bug), located.block if located else None, "AddressSanitizer's report",
        found.frames or _leaked(found), access=_access(found), text=tuple(found.text.splitlines()),
    )  # fmt: skip


def _sentence(found: AsanReport) -> str:
    """`AddressSanitizer stopped a write of 4 bytes by thread T2: 0x… is located 0 bytes after …`."""
    access = found.access
    where = f": {found.located}" if found.located else ""
    variable = f", variable {found.variable}" if found.variable and f"'{found.variable}'" not in where else ""
    if found.leaks:
        direct = sum(leak.bytes for leak in found.leaks if leak.direct)
        total = plural(sum(leak.bytes for leak in found.leaks), "byte")
        return f"LeakSanitizer reported {total} leaked, {direct:,} of them directly"
    if access is None:
        thread = f" by thread {found.thread}" if found.thread else ""
        place = f" at {found.bad_address:#x}" if found.bad_address and not where else ""
        return f"AddressSanitizer reported {found.bug}{thread}{place}{where}{variable}"
    size = f" of {plural(access.bytes, 'byte')}" if access.bytes is not None else f" at {access.address:#x}"
    thread = f" by thread {access.thread}" if access.thread else ""
    named = "" if found.bug in _BUGS else f" ({found.bug})"
    return f"AddressSanitizer stopped a {access.kind}{size}{thread}{named}{where}{variable}"


def _leaked(found: AsanReport) -> tuple[int, ...]:
    """The stack that leaked most."""
    return max(found.leaks, key=lambda leak: leak.bytes).frames if found.leaks else ()


def _access(found: AsanReport) -> Access | None:
    access = found.access
    return None if access is None else Access(access.kind, access.address, access.bytes, None, "")


def _rebuilt(context: ReportContext, heap: Heap) -> Iterator[WindowsReport]:
    """What the runtime's report would say of the address of an access violation, by shadow and chunks."""
    raised = context.process.exception
    if raised is None or raised.code != _ACCESS_VIOLATION or len(raised.parameters) < 2:
        return
    address, kind = raised.parameters[1], _KINDS.get(raised.parameters[0])
    value = heap.shadow.byte(address) if heap.shadow is not None else None
    if value is None or value == 0 or kind is None or (value in _PARTIAL and address % 8 < value):
        return
    bug, block = _by_shadow(context, address, value)
    if bug is None:
        return
    meaning = SHADOW_MEANINGS.get(value, "only the first bytes are addressable")
    where = f"; {_located(address, block)}" if block is not None else ""
    message = f"no report is in the dump; AddressSanitizer's shadow of {address:#x} is {value:02x} ({meaning}){where}"
    finding = Finding("asan_report", "error", heap.address, address, 1, message, "", f"shadow {value:02x}")
    access = Access(kind, address, None, raised.thread_id, "")
    yield WindowsReport(finding, bug, block, "AddressSanitizer's shadow", access=access, is_likely=True)


def _by_shadow(context: ReportContext, address: int, value: int) -> tuple[BugKind | None, Block | None]:
    """(bug, the chunk at fault): in a redzone the nearest chunk, of two equally near ones the one before."""
    located = context.locate(address)
    if value not in (_REDZONE, *_PARTIAL):
        return _BY_SHADOW.get(value), located.block
    near = [one for one in (located.block, *located.neighbours) if one is not None and one.kind.word == "asan"]
    block = min(near, key=lambda one: _distance(address, one), default=None)
    if block is None:
        return None, None
    if block.state == "free":
        return BugKind.USE_AFTER_FREE, block
    return BugKind.UNDERFLOW if address < block.address else BugKind.OVERFLOW, block


def _distance(address: int, block: Block) -> int:
    end = block.address + block.size
    return max(block.address - address, address - end + 1, 0)


def _located(address: int, block: Block) -> str:
    """AddressSanitizer's sentence on the place of an address."""
    start, end = block.address, block.address + block.size
    if address < start:
        place = f"{plural(start - address, 'byte')} before"
    elif address >= end:
        place = f"{plural(address - end, 'byte')} after"
    else:
        place = f"{plural(address - start, 'byte')} inside of"
    return f"{address:#x} is located {place} {block.size:,}-byte region [{start:#x},{end:#x})"
