"""The envelope's records of dumps, and the redaction of `--redact` with the names of people in the dumps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.render.redaction import Redaction
    from heapdump.snapshot import Snapshot

_NAMES = ("USERNAME", "USERDOMAIN", "COMPUTERNAME", "LOGONSERVER", "USERDNSDOMAIN")
_SHORTEST = 2
_COMMON = frozenset({"system", "user", "users", "admin", "workgroup", "nt authority", "windows"})


def redaction_of(snapshots: Sequence[Snapshot]) -> Redaction:
    """The redaction of answers about these dumps: names of user, machine and domain, and the command line."""
    from heapdump.render.redaction import Redaction, user_names

    names, lines = [], []
    for snapshot in snapshots:
        process = snapshot.process
        paths = (str(snapshot.dump.path.resolve()), process.image or "", *(one.path for one in process.modules))
        names += [*user_names(paths), *_named(snapshot)]
        lines += [process.command_line] if process.command_line else []
    return Redaction(tuple(dict.fromkeys(names)), tuple(dict.fromkeys(lines)))


def dump_records(snapshots: Sequence[Snapshot], *, redact: bool) -> list[Record]:
    """The envelope's record of each dump. `redact`: without names of people."""
    records = [dump_record(one) for one in snapshots]
    if not redact:
        return records
    redaction = redaction_of(snapshots)
    return [redaction.record("", record) for record in records]


def dump_record(snapshot: Snapshot) -> Record:
    """The envelope's `dump`."""
    process = snapshot.process
    return {
        "path": str(snapshot.dump.path),
        "bytes": snapshot.dump.file_bytes,
        "arch": process.arch,
        "os": process.windows.number,
        "pid": process.pid,
    }


def _named(snapshot: Snapshot) -> Iterator[str]:
    """Names in the environment of the process."""
    from heapdump.analyses.environment import environment

    for name, value in environment(snapshot.process).items():
        found = value.strip("\\")
        if name.upper() in _NAMES and len(found) > _SHORTEST and found.lower() not in _COMMON:
            yield found
