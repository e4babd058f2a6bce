"""What every command shares: naming the dump, the options of interface.md, output, diagnostics, exit codes."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from heapdump.errors import HeapdumpError, WrongUsage
from heapdump.render.view import Answer, Record

if TYPE_CHECKING:
    from heapdump.session import Snapshot

EXIT_DONE, EXIT_FINDINGS, EXIT_USAGE, EXIT_UNREADABLE, EXIT_PARTIAL = range(5)
_SUFFIXES = (".dmp", ".mdmp", ".hdmp")
DEFAULT_LIMIT = 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """The shared options of one call."""

    dump: Path | None
    format: str
    output: Path | None
    limit: int | None
    sort: str | None
    reverse: bool
    symbols: str | None
    image_path: Path | None
    color: str
    verbosity: int
    progress: bool
    explain: bool

    @contextlib.contextmanager
    def open(self) -> Iterator[Snapshot]:
        """The dump this call is about, opened; closed (and its temporary copy deleted) afterwards."""
        from heapdump.session import open_dump

        path = self.dump or find_dump(self.say)
        with progress_bar(f"unpacking {path.name}", enabled=self.progress) as report:
            snapshot = open_dump(path, report, self.say)
        with snapshot:
            yield snapshot

    def say(self, text: str) -> None:
        """One diagnostic line on stderr, unless --quiet."""
        from heapdump.render.text import printable

        if self.verbosity >= 0:
            click.echo(f"heapdump: {printable(text)}", err=True)

    def rows(self, rows: Sequence[T], fields: dict[str, Callable[[T], Any]]) -> list[T]:
        """The rows in the order that --sort and --reverse ask for; `fields` by their JSON names.

        Raises:
            WrongUsage: no such field.
        """
        out = list(rows)
        if self.sort is not None:
            key = fields.get(self.sort) or fields.get(self.sort.replace("-", "_"))
            if key is None:
                raise WrongUsage(f"cannot sort by {self.sort!r}; there are: {', '.join(fields)}")
            known = [row for row in out if key(row) is not None]
            out = sorted(known, key=key) + [row for row in out if key(row) is None]
        return out[::-1] if self.reverse else out

    def shown(self, rows: Sequence[T]) -> tuple[Sequence[T], int]:
        """(the rows a table shows, how many more there are)."""
        if self.limit is None or len(rows) <= self.limit:
            return rows, 0
        return rows[: self.limit], len(rows) - self.limit

    def emit(self, snapshot: Snapshot, answer: Answer) -> int:
        """Writes the answer in the format asked for, its gaps and notes on stderr; the exit code."""
        with self._output() as stream:
            for piece in self._pieces(snapshot, answer, stream):
                stream.write(piece)
        for gap in answer.gaps:
            self.say(f"incomplete: {gap}")
        for note in answer.notes if self.verbosity > 0 else ():
            self.say(f"note: {note}")
        return EXIT_DONE if answer.complete else EXIT_PARTIAL

    @contextlib.contextmanager
    def _output(self) -> Iterator[IO[str]]:
        if self.output is None:
            yield sys.stdout
            return
        try:
            with self.output.open("w", encoding="utf-8", newline="\n") as stream:
                yield stream
        except OSError as error:
            raise HeapdumpError(f"cannot write {self.output}: {error.strerror}") from error

    def _pieces(self, snapshot: Snapshot, answer: Answer, stream: IO[str]) -> Iterable[str]:
        if self.format == "table":
            from heapdump.render.table import draw, output_width

            is_terminal = stream.isatty()
            width = output_width(is_terminal=is_terminal)
            return draw(answer.parts(), color=self._uses_color(is_terminal), width=width, explain=self.explain)
        from heapdump.render import machine

        if self.format == "json":
            from heapdump import __version__

            return machine.json_document(answer, __version__, dump_record(snapshot))
        return (machine.json_lines if self.format == "jsonl" else machine.comma_separated)(answer.records())

    def _uses_color(self, is_terminal: bool) -> bool:
        if self.color != "auto":
            return self.color == "always"
        return is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


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


@contextlib.contextmanager
def progress_bar(title: str, *, enabled: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress line on stderr, only on a terminal and only once the work has taken about a second."""
    import time

    start = shown = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - start > 1 and now - shown > 0.1:
            shown = now
            share = f" ({done / total:.0%})" if total else ""
            click.echo(f"\r{title}: {done >> 20:,} MB{share} ", nl=False, err=True)

    visible = enabled and sys.stderr.isatty()
    try:
        yield report if visible else lambda done, total: None
    finally:
        if visible and shown > start:
            click.echo("\r\x1b[K", nl=False, err=True)


def find_dump(say: Callable[[str], None]) -> Path:
    """The dump that nobody named: $HEAPDUMP_DUMP, else the only dump in the current folder.

    Raises:
        WrongUsage: there is none, or several.
    """
    named = os.environ.get("HEAPDUMP_DUMP")
    if named:
        say(f"using {named} (HEAPDUMP_DUMP)")
        return Path(named)
    found = sorted(path for path in Path().iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file())
    if len(found) == 1:
        say(f"using {found[0]}, the only dump in this folder")
        return found[0]
    how = "name one: heapdump summary crash.dmp, or -d crash.dmp, or set HEAPDUMP_DUMP"
    if found:
        raise WrongUsage(f"no dump named and {len(found)} in this folder ({found[0].name}, {found[1].name} …); {how}")
    raise WrongUsage(f"no dump named and no {', '.join(_SUFFIXES)} file in this folder; {how}")


_OPTIONS = (
    click.option("--json", "json_", is_flag=True, help="One JSON document on stdout."),
    click.option(
        "--format", "format_", type=click.Choice(["table", "json", "jsonl", "csv"]), default="table",
        show_default=True, help="jsonl: one record a line; csv: the same, flat.",
    ),
    click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write there instead of stdout."),
    click.option("--limit", type=click.IntRange(0), default=DEFAULT_LIMIT, show_default=True, help="Rows shown in tables."),
    click.option("--all", "all_", is_flag=True, help="Show all rows."),
    click.option("--sort", metavar="FIELD", help="Order by a field, named as in the JSON."),
    click.option("--reverse", is_flag=True, help="Turn the order round."),
    click.option("--symbols", metavar="PATH", help="Symbol path; no command of this version reads symbols."),
    click.option(
        "--image-path", type=click.Path(path_type=Path), metavar="DIR",
        help="Where the PE files of modules are whose memory is not in the dump.",
    ),
    click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True),
    click.option("-q", "--quiet", is_flag=True, help="No diagnostics on stderr."),
    click.option("-v", "--verbose", count=True, help="More diagnostics on stderr."),
    click.option("--no-progress", is_flag=True, help="No progress lines."),
    click.option("--explain", is_flag=True, help="Under each table: how every column is computed."),
)  # fmt: skip


def dump_command(name: str) -> Callable[[Callable[..., int]], click.Command]:
    """Makes a click command of `function(request, **own options) -> exit code`, with DUMP and the shared options.

    The function's docstring is the help text.
    """

    def decorate(function: Callable[..., int]) -> click.Command:
        @functools.wraps(function)
        def run(**values: Any) -> int:
            return function(_request(values), **values)

        wrapped: Callable[..., Any] = run
        for option in reversed(_OPTIONS):
            wrapped = option(wrapped)
        wrapped = click.argument("dump", required=False, type=click.Path(path_type=Path))(wrapped)
        return click.command(name, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})(wrapped)

    return decorate


def _request(values: dict[str, Any]) -> Request:
    context = click.get_current_context()
    on_group = context.find_root().params.get("dump")
    take = values.pop
    everything, limit = take("all_"), take("limit")
    as_json, format_ = take("json_"), take("format_")
    quiet, verbose = take("quiet"), take("verbose")
    return Request(
        dump=take("dump") or on_group,
        format="json" if as_json else format_,
        output=take("output"),
        limit=None if everything else limit,
        sort=take("sort"),
        reverse=take("reverse"),
        symbols=take("symbols"),
        image_path=take("image_path"),
        color=take("color"),
        verbosity=-1 if quiet else verbose,
        progress=not take("no_progress"),
        explain=take("explain"),
    )
