"""The report of AddressSanitizer as a finding: the runtime itself says bug, address and stacks."""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.analyses.damage.report_context import ReportContext
from heapdump.analyses.damage.windows_report import Access, WindowsReport
from heapdump.blocks.findings import BugKind, Finding
from heapdump.process.reports.asan_report import AsanReport, asan_reports
from heapdump.wording import plural

_BUGS = {bug.value: bug for bug in BugKind}


def asan_findings(context: ReportContext) -> Iterator[WindowsReport]:
    """The reports that the process holds; none without a heap of AddressSanitizer, and nothing is searched then."""
    heap = next((heap for heap in context.heaps if heap.kind == "asan"), None)
    if heap is not None:
        yield from (_report(context, heap.address, found) for found in asan_reports(context.process))


def _report(context: ReportContext, heap: int, found: AsanReport) -> WindowsReport:
    address = found.bad_address or 0
    located = context.locate(found.region[0]) if found.region else None
    copies = f", {found.copies} copies" if found.copies > 1 else ""
    message = f"{_sentence(found)} (its report is the text at {found.address:#x}{copies})"
    finding = Finding("asan_report", "error", heap, address, 1, message, "", "")
    return WindowsReport(
        finding, _BUGS.get(found.bug), located.block if located else None, "AddressSanitizer's report", found.frames,
        access=_access(found), text=tuple(found.text.splitlines()),
    )  # fmt: skip


def _sentence(found: AsanReport) -> str:
    access = found.access
    if access is None:
        return f"AddressSanitizer reported {found.bug}"
    where = f": {found.located}" if found.located else ""
    return (
        f"AddressSanitizer stopped a {access.kind} of {plural(access.bytes, 'byte')} by thread {access.thread}{where}"
    )


def _access(found: AsanReport) -> Access | None:
    access = found.access
    return None if access is None else Access(access.kind, access.address, access.bytes, None, "")
