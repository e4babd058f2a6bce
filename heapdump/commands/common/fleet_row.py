"""One dump of a fleet as a row: the facts of `triage` and of `check` about it."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, BinaryIO

from heapdump import system
from heapdump.errors import HeapdumpError
from heapdump.fleet.urls import is_url, opened, size_and_time
from heapdump.render.view import Record

if TYPE_CHECKING:
    from heapdump.commands.common.request import Request
    from heapdump.snapshot import Snapshot

_STACK_FRAMES = 3
_COPIED = 1 << 20
_BASE_BYTES = 250 << 20
"""Of a process that has loaded numpy and numba. A dump full of small blocks adds some quarter of its size."""
FAILED_ROW: Record = {
    "path": "", "bytes": None, "modified": None, "error": None, "complete": False, "process": None, "pid": None,
    "arch": None, "os": None, "time": None, "create_time": None, "incident": None, "hang": None, "top": None,
    "private_bytes": None, "committed_bytes": None, "suspect": None, "notes": 0,
}  # fmt: skip
"""Every member of a row, as a dump that cannot be read has them."""

NESTED = {"incident": ("id", "bug", "where", "text"), "top": ("key", "blocks", "bytes", "share"),
          "suspect": ("bytes", "share", "text")}  # fmt: skip
"""Member of a row → members of its object."""


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes the row of a dump, in this process or in a worker's; it can be sent there."""

    request: Request

    def __call__(self, path: str) -> Record:
        """The row; of a dump that cannot be read the row with the reason."""
        try:
            with _local(path) as file:
                return self._row_of(path, file)
        except (HeapdumpError, OSError) as error:
            return failed_row(path, str(error))
        except MemoryError:
            return failed_row(path, "not enough memory")
        except Exception as error:  # noqa: BLE001  # one defect must not end a fleet
            return failed_row(path, f"a defect of heapdump: {type(error).__name__}: {error}")

    def _row_of(self, path: str, file: Path) -> Record:
        try:
            return self._row(path, file)
        except HeapdumpError as error:
            return failed_row(path, str(error).replace(str(file), path))

    def _row(self, path: str, file: Path) -> Record:
        from heapdump.commands.common.report.asking import Asker
        from heapdump.snapshot import open_dump

        with open_dump(file, use_index=self.request.use_index and not is_url(path)) as snapshot:
            asker = Asker(self.request, [snapshot])
            page = asker.ask("triage", limit=5).answer
            checked = asker.ask("check", limit=5).answer
            if page is None or checked is None:
                return failed_row(path, "triage and check cannot be asked about it")
            data: Record = page.data()
            gaps = {*page.gaps, *checked.gaps}
            incident = _incident(data, list(checked.records()))
            return _described(path, file, snapshot) | _summary(data, incident) | {
                "complete": not gaps, "notes": len(gaps),
            }  # fmt: skip


def failed_row(path: str, reason: str) -> Record:
    """The row of a dump that could not be read."""
    return FAILED_ROW | stamp(path) | {"error": reason.removeprefix(f"{path}: ").removeprefix(f"{path} ")}


def stamp(path: str) -> Record:
    """Path, size in bytes and time of a file. A kept row is valid while these are the same."""
    if is_url(path):
        size, modified = size_and_time(path)
        return {"path": path, "bytes": size, "modified": modified}
    try:
        found = Path(path).stat()
    except OSError:
        found = None
    return {"path": path, "bytes": found and found.st_size, "modified": found and int(found.st_mtime)}


def need_of(path: str) -> int:
    """Estimated bytes of memory that the row of a dump needs: 250 MiB, and a quarter of its unpacked size.

    The unpacked size of a packed dump is taken as five times its size.
    """
    size = stamp(path)["bytes"] or 0
    is_packed = path.lower().endswith((".gz", ".xz", ".zst", ".zip", ".cab"))
    return _BASE_BYTES + size * (5 if is_packed else 1) // 4


@contextlib.contextmanager
def _local(path: str) -> Iterator[Path]:
    """The file of a path; of a URL a copy that is deleted afterwards.

    Raises:
        HeapdumpError: URLs cannot be read here.
    """
    if not is_url(path):
        yield Path(path)
        return

    def fill(target: BinaryIO) -> None:
        """The bytes of the URL."""
        with opened(path) as source:
            while piece := source.read(_COPIED):
                target.write(piece)

    with ExitStack() as stack:
        try:
            copy = stack.enter_context(system.temporary_copy("heapdump-fleet-", fill))
        except ModuleNotFoundError as error:
            needed = "URLs need fsspec: pip install 'heapdump[fleet]'" if error.name == "fsspec" else str(error)
            raise Unreachable(needed) from error
        except (ValueError, ImportError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
            raise Unreachable(f"cannot be read: {error}") from error
        yield copy


class Unreachable(HeapdumpError):
    """A dump that this machine has no way to read."""

    exit_code = 3


def _described(path: str, file: Path, snapshot: Snapshot) -> Record:
    process = snapshot.process
    return stamp(path) | {
        "bytes": file.stat().st_size,
        "error": None,
        "process": PureWindowsPath(process.image or "").name or None,
        "pid": process.pid,
        "arch": process.arch,
        "os": process.windows.number,
        "time": snapshot.dump.directory.header.timestamp or None,
        "create_time": (process.misc.create_time if process.misc else None) or None,
    }


def _summary(data: Record, incident: Record | None) -> Record:
    groups = [one for one in data["who"] if one["kind"] == "group"]
    suspects = [one for one in data["who"] if one["kind"] == "suspect"]
    return {
        "incident": incident,
        "hang": data["hang"]["text"] if data["hang"] else None,
        "top": {name: groups[0][name] for name in ("key", "blocks", "bytes", "share")} if groups else None,
        "private_bytes": data["memory"]["private_bytes"],
        "committed_bytes": data["memory"]["committed_bytes"],
        "suspect": {name: suspects[0][name] for name in ("bytes", "share", "text")} if suspects else None,
    }


def _incident(data: Record, findings: list[Record]) -> Record | None:
    """The gravest incident; without one the crash. Its id is the same for the same bug in another dump."""
    errors = [one for one in data["heap"]["incidents"] if one["severity"] == "error"]
    crash = data["crash"]
    if errors:
        found = [one for one in findings if one["incident"] == errors[0]["incident"]]
        frames = found[0]["frames"] if found else []
        return {
            "id": found[0]["id"] if found else _hash(errors[0]["bug"], errors[0]["text"]),
            "bug": errors[0]["bug"],
            "where": _place(frames) or (crash and crash["where"]),
            "text": errors[0]["text"],
        }
    if crash is None:
        return None
    frames = [_place([frame]) for frame in crash["frames"][:_STACK_FRAMES]]
    return {"id": _hash(crash["code"], *frames), "bug": crash["code"], "where": crash["where"], "text": crash["text"]}


def _place(frames: list[Any]) -> str | None:
    """The first frame outside of allocators, as module and function or offset."""
    if not frames:
        return None
    frame = next((one for one in frames if not _is_system(one["module"])), frames[0])
    return f"{frame['module']}!{frame['symbol']}" if frame["symbol"] else f"{frame['module']}+{frame['offset'] or 0:#x}"


def _is_system(module: str | None) -> bool:
    return (module or "").lower() in {"ntdll.dll", "kernel32.dll", "kernelbase.dll", "ucrtbase.dll", "verifier.dll"}


def _hash(*words: object) -> str:
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]
