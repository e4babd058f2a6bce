"""The process of a dump as a JSON record and as lines."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.snapshot import Snapshot


def process_record(snapshot: Snapshot) -> Record:
    """The JSON record: image, command line, Windows, times, exception."""
    process, header = snapshot.process, snapshot.dump.directory.header
    raised, misc = process.exception, process.misc
    return {
        "image": process.image,
        "command_line": process.command_line,
        "pid": process.pid,
        "arch": process.arch,
        "windows": process.windows.name,
        "build": process.windows.build,
        "revision": process.windows.revision,
        "build_witness": process.windows.witness,
        "dump_time": header.timestamp or None,
        "create_time": misc.create_time if misc else None,
        "uptime_seconds": _uptime(snapshot),
        "dump_flags": list(header.flag_words),
        "threads": len(process.threads),
        "modules": len(process.modules),
        "exception": None
        if raised is None
        else {
            "code": f"{raised.code:#010x}",
            "words": process.exception_words,
            "thread": raised.thread_id,
            "address": hex(raised.address),
            "where": process.where(raised.address),
            "parameters": [hex(value) for value in raised.parameters],
        },
    }


def _uptime(snapshot: Snapshot) -> int | None:
    """Seconds between the process's start and the dump; None where one is not recorded or they contradict."""
    created = snapshot.process.misc.create_time if snapshot.process.misc else None
    dumped = snapshot.dump.directory.header.timestamp
    return dumped - created if created and dumped >= created else None


def process_lines(snapshot: Snapshot) -> Iterator[list[tuple[str, str]]]:
    """Image, command line, times, the memory in the dump, the exception."""
    record, process = process_record(snapshot), snapshot.process
    name = (process.image or "unknown image").replace("/", "\\").rpartition("\\")[2]
    pid = "unknown" if process.pid is None else str(process.pid)
    yield [(name, "bold"), (f"  pid {pid}  {process.arch}  {process.windows.name}", "")]
    if process.image:
        yield [(process.command_line or process.image, "dim")]
    times = []
    if record["dump_time"]:
        times.append(
            f"dumped {datetime.datetime.fromtimestamp(record['dump_time'], datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
        )
    if record["uptime_seconds"] is not None:
        times.append(f"up {_duration(record['uptime_seconds'])}")
    counts = f"{text.plural(record['threads'], 'thread')}, {text.plural(record['modules'], 'module')}"
    yield [(", ".join([*times, counts]), "")]
    memory = f"{text.size(snapshot.dump.file_bytes)}, {text.size(process.space.total_bytes)} of memory"
    yield [(f"dump with {', '.join(record['dump_flags'])}; {memory}", "")]
    if record["exception"]:
        raised = record["exception"]
        yield [
            (f"exception {raised['code']}: {raised['words']}", "red"),
            (f", thread {raised['thread']:#x}, at {raised['where']}", ""),
        ]


def _duration(seconds: int) -> str:
    """`2 d 3 h`, `13 min 5 s`."""
    units = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    shown = [f"{value} {unit}" for value, unit in units if value]
    return " ".join(shown[:2]) or "0 s"
