"""`report`: everything on one page, as one HTML file."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from heapdump.commands.common.redaction import redaction_of
from heapdump.commands.common.request import Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render.view import Answer

if TYPE_CHECKING:
    from heapdump.commands.common.report.gather import Gathered

_MOST_DUMPS = 2


@dump_command("report", takes_dumps=True)
def command(request: Request, dumps: tuple[Path, ...]) -> int:
    """One HTML page with everything, to read, search, send and print.

    What happened, the damage with its bytes, a treemap of all memory in VMMap's classes, the address space, the heaps
    as maps, who allocated, who holds it, threads and modules. The page needs no other file and no network. With a
    second, older dump it shows what changed.

    \b
    heapdump report crash.dmp -o report.html
    heapdump report crash.dmp older.dmp -o report.html
    """
    from heapdump.commands.common.report.gather import gather
    from heapdump.commands.common.report.records import class_records, report_record

    request.refuse_sorting("report")
    if len(dumps) > _MOST_DUMPS:
        raise WrongUsage("report shows one dump, or what changed since an older one; heapdump diff takes more")
    if request.format == "table" and request.output is None and sys.stdout.isatty():
        raise WrongUsage("the page is a file for a browser; name it: -o report.html")
    with request.open_all(dumps) as snapshots:
        found = gather(request, snapshots)
        if request.redact:
            found = replace(found, report=redaction_of(snapshots).tree(found.report))
        about = snapshots if len(snapshots) > 1 else snapshots[0]
        if request.format == "table":
            return request.write(about, _page(found), found.gaps)
        answer = Answer(
            "report",
            data=lambda: report_record(found.report),
            records=lambda: class_records(found.report),
            page=lambda: (),
            gaps=found.gaps,
        )
        return request.emit(about, answer)


def _page(found: Gathered) -> list[str]:
    from heapdump.render.report import page

    return [page(found.report)]
