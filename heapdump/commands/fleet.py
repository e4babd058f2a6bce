"""`fleet`: many dumps, a row for each, and what they have in common."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import suppress
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import click

from heapdump.available_memory import available_memory
from heapdump.commands.common.files import progress_bar
from heapdump.commands.common.fleet_row import NESTED, RowMaker, failed_row, need_of, stamp
from heapdump.commands.common.fleet_tables import page, summary_record
from heapdump.commands.common.options import option
from heapdump.commands.common.output_file import output, refuse_unwritable
from heapdump.commands.common.request import Arguments, Request, dump_command
from heapdump.commands.common.symbol_servers import unwatched
from heapdump.errors import CannotWrite, WrongUsage
from heapdump.fleet.buckets import buckets_of
from heapdump.fleet.engine import Plan, run_all
from heapdump.fleet.paths import dumps_of
from heapdump.render.parquet import parquet_rows, parquet_writer
from heapdump.render.view import Answer, Record

_PATHS = Arguments("PATH...", lambda words: {"paths": words, "dump": None})


@option("--jobs", type=click.IntRange(1), metavar="N", help="Dumps at a time.  [default: one a processor]")
@click.option("--results", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.jsonl",
              help="Append each row there as it comes; rows of unchanged dumps are not made again.")  # fmt: skip
@click.option("--parquet", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write all rows there (pip install 'heapdump[fleet]').")  # fmt: skip
@click.option(
    "--scheduler", metavar="ADDRESS", help="A Dask cluster, such as tcp://head:8786, instead of this machine."
)
@dump_command("fleet", arguments=_PATHS)
def command(
    request: Request,
    paths: tuple[str, ...],
    jobs: int | None,
    results: Path | None,
    parquet: Path | None,
    scheduler: str | None,
) -> int:
    """Many dumps: a row for each, and which share a bug or growth.

    Folders stand for all dumps below them. A dump that cannot be read is a row with the reason. Exit code 4 when a
    dump cannot be read, or --parquet cannot hold a number.

    \b
    heapdump fleet crash.dmp dumps/
    heapdump fleet 'dumps/**/*.dmp' --results rows.jsonl
    """
    request = unwatched(request)
    if not paths:
        raise WrongUsage("name the dumps, or the folders that hold them")
    dumps, missing = dumps_of(paths)
    if missing and not dumps:
        raise WrongUsage(f"no dump in {', '.join(missing)}")
    known = _known(results) if results else {}
    rows = [known[path] for path in dumps if path in known and known[path].items() >= stamp(path).items()]
    left = [path for path in dumps if path not in {row["path"] for row in rows}]
    for target in (results, parquet, request.output):
        if target is not None:
            refuse_unwritable(target, map(Path, dumps))
    write_parquet = _parquet_writer() if parquet else None
    most = jobs or os.cpu_count() or 1
    with progress_bar("dumps", enabled=request.progress) as report, _Appended(results) as keep:
        for done in run_all(RowMaker(request), left, _opener(scheduler, most), most, _plan(scheduler)):
            row = done.result if done.error is None else failed_row(done.path, _words(done.error))
            keep(row)
            rows.append(row)
            report(len(rows) << 20, len(dumps) << 20)
    order = {path: number for number, path in enumerate(dumps)}
    rows.sort(key=lambda row: order[row["path"]])
    too_large = list[str]()
    if parquet and write_parquet:
        columns = parquet_rows(rows, NESTED)
        with output(parquet, map(Path, dumps)) as stream:
            write_parquet(columns.rows, cast("TextIO", stream).buffer)
        outside = f"does not fit in a column of {parquet}: null"
        too_large = [f"{rows[number]['path']}: {name} {outside}" for number, name in columns.too_large]
    found = buckets_of(rows)
    shown = request.rows(rows, lambda row: row)
    answer = Answer(
        "fleet",
        data=lambda: summary_record(shown, found),
        records=lambda: iter(shown),
        page=lambda: page(request, shown, found),
        gaps=tuple(f"{row['path']}: {row['error']}" for row in rows if row["error"])
        + tuple(f"no dump in {word}" for word in missing)
        + tuple(too_large),
        nested=NESTED,
    )
    return request.emit([], answer)


def _plan(scheduler: str | None) -> Plan:
    """Here as many dumps at a time as three quarters of the free memory hold; a cluster plans for itself."""
    found = None if scheduler else available_memory()
    return Plan(cache(need_of), found.bytes * 3 // 4 if found else None)


def _words(error: BaseException) -> str:
    return f"the worker was lost: {error}" if str(error) else f"the worker was lost: {type(error).__name__}"


def _known(results: Path) -> dict[str, Record]:
    """Path → the last row of it in the file; lines that are no rows are passed over.

    Raises:
        CannotWrite: the file cannot be read, so no row can be appended either.
    """
    rows: dict[str, Record] = {}
    if not results.is_file():
        return rows
    try:
        text = results.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise CannotWrite(results, error) from error
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("path"), str) and row.get("error") is None:
            rows[row["path"]] = row
    return rows


class _Appended:
    """Appends rows to a file, each at once; nothing without a file."""

    def __init__(self, results: Path | None) -> None:
        """Opens the file.

        Raises:
            CannotWrite: the system refuses.
        """
        self._results = results
        try:
            self._stream = results.open("a", encoding="utf-8", newline="\n") if results else None
        except OSError as error:
            raise CannotWrite(results, error) from error

    def __enter__(self) -> Callable[[Record], None]:
        """What appends a row."""
        return self._keep

    def __exit__(self, *_error: object) -> None:
        """Closes the file."""
        if self._stream:
            with suppress(OSError):  # each row was flushed; where that failed, it was said
                self._stream.close()

    def _keep(self, row: Record) -> None:
        if self._stream:
            try:
                self._stream.write(json.dumps(row) + "\n")
                self._stream.flush()
            except OSError as error:
                raise CannotWrite(self._results, error) from error


def _opener(scheduler: str | None, most: int) -> Callable[[], Executor]:
    """What makes the executor: processes here, or the workers of a cluster."""
    if scheduler is None:
        return lambda: ProcessPoolExecutor(most, get_context("spawn"), initializer=_end_with_parent)
    try:
        from distributed import Client  # its functions have no types
    except ImportError as error:
        raise WrongUsage("--scheduler needs Dask: pip install 'heapdump[fleet]'") from error
    try:
        client: Any = cast("Any", Client)(scheduler, timeout=10, set_as_default=False)
    except OSError as error:
        raise WrongUsage(f"no scheduler answers at {scheduler}: {error}") from error

    def executor() -> Executor:
        """The workers of the cluster."""
        found: Executor = client.get_executor(pure=False, retries=1)
        return found

    return executor


def _end_with_parent() -> None:
    """Lets a worker end when the process that started it is killed: else it would wait for work for ever."""

    def watch() -> None:
        """Waits for the end of the parent."""
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _parquet_writer() -> Callable[[list[dict[str, Any]], BinaryIO], None]:
    """What writes rows to a stream.

    Raises:
        WrongUsage: pyarrow is missing; better before the dumps are read than after.
    """
    try:
        return parquet_writer()
    except ImportError as error:
        raise WrongUsage("--parquet needs pyarrow: pip install 'heapdump[fleet]'") from error
