"""The process of a dump as a JSON record and as lines."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from heapdump.commands.common.counters import counter_lines, counters_record, system_record
from heapdump.commands.common.frames import place_name
from heapdump.render import text
from heapdump.render.view import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot


def process_record(request: Request, snapshot: Snapshot) -> Record:
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
        "counters": counters_record(process),
        "system_memory": system_record(process),
        "threads": len(process.threads),
        "modules": len(process.modules),
        "exception": None
        if raised is None
        else {
            "code": f"{raised.code:#010x}",
            "words": process.exception_words,
            "thread": raised.thread_id,
            "address": hex(raised.address),
            "where": place_name(request, snapshot, raised.address),
            "parameters": [hex(value) for value in raised.parameters],
        },
    }


def _uptime(snapshot: Snapshot) -> int | None:
    """Seconds between the process's start and the dump; None where one is not recorded or they contradict."""
    created = snapshot.process.misc.create_time if snapshot.process.misc else None
    dumped = snapshot.dump.directory.header.timestamp
    return dumped - created if created and dumped >= created else None


def process_lines(request: Request, snapshot: Snapshot) -> Iterator[list[tuple[str, str]]]:
    """The header, and the exception."""
    yield from header_lines(snapshot)
    process, raised = snapshot.process, snapshot.process.exception
    if raised is not None:
        where = f", thread {raised.thread_id:#x}, at {place_name(request, snapshot, raised.address)}"
        yield [(f"exception {raised.code:#010x}: {process.exception_words}", "red"), (where, "")]


def header_lines(snapshot: Snapshot) -> Iterator[list[tuple[str, str]]]:
    """Image, command line, times, the memory in the dump, Windows' counters of memory."""
    process, time = snapshot.process, snapshot.dump.directory.header.timestamp
    name = (process.image or "unknown image").replace("/", "\\").rpartition("\\")[2]
    pid = "unknown" if process.pid is None else str(process.pid)
    yield [(name, "bold"), (f"  pid {pid}  {process.arch}  {process.windows.name}", "")]
    if process.image:
        yield [(process.command_line or process.image, "dim")]
    up = _uptime(snapshot)
    words = [
        f"dumped {datetime.datetime.fromtimestamp(time, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC" if time else "",
        f"up {_duration(up)}" if up is not None else "",
        text.plural(len(process.threads), "thread"),
        text.plural(len(process.modules), "module"),
    ]
    yield [(", ".join(filter(None, words)), "")]
    yield [(f"{_content(snapshot)}; {text.size(process.space.total_bytes)} of memory in the dump", "")]
    yield from ([(line, "")] for line in counter_lines(process))


def _content(snapshot: Snapshot) -> str:
    """The memory that the dump was asked to hold, by the flags of its header."""
    flags = snapshot.dump.directory.header.flags
    memory = "full memory" if flags & 0x2 else "private memory" if flags & 0x200 else "small dump"
    memory_map = "memory map" if snapshot.process.regions.is_complete_map else "no memory map"
    return ", ".join([memory, *(["filtered stacks"] if snapshot.process.is_filtered else []), memory_map])


def _duration(seconds: int) -> str:
    """`2 d 3 h`, `13 min 5 s`."""
    units = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    shown = [f"{value} {unit}" for value, unit in units if value]
    return " ".join(shown[:2]) or "0 s"
