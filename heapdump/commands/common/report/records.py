"""The report as JSON: the sections with the commands behind them, and the memory as a tree of boxes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.render.report.content import Box, LegendRow, ReportContent


def report_record(report: ReportContent) -> Record:
    """The record of the page without the answers of other commands: `sections` has their command lines."""
    return {
        "sections": [
            {
                "id": section.id,
                "title": section.title,
                "commands": [part.command for part in section.answers],
                "gaps": sum(len(part.gaps) for part in section.answers),
            }
            for section in report.sections
        ],
        "classes": list(class_records(report)),
        "memory": _box(report.memory),
    }


def class_records(report: ReportContent) -> Iterator[Record]:
    """A record for each class of VMMap; null where a dump does not tell."""
    return (_class(row) for row in report.legend)


def _class(row: LegendRow) -> Record:
    return {
        "class": row.name,
        "bytes": row.size,
        "committed_bytes": row.committed,
        "private_bytes": row.private,
        "regions": row.regions,
        "largest_bytes": row.largest,
        "reason": row.reason or None,
    }


def _box(box: Box) -> Record:
    return {
        "name": box.name,
        "bytes": box.size,
        "committed_bytes": box.committed,
        "delta_bytes": box.delta,
        "children": [_box(child) for child in box.children],
    }
