"""The request of a command: the dump it names, the shared options, output, diagnostics, exit codes."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar

import click

from heapdump import system
from heapdump.commands.common.fields import fields_of, parse_columns
from heapdump.commands.common.files import any_file, dump_and_address, dump_or_address, find_dump, folded, progress_bar
from heapdump.commands.common.gaps import file_changes
from heapdump.commands.common.host import adopted
from heapdump.commands.common.known import known_lines
from heapdump.commands.common.machine import prepared
from heapdump.commands.common.options import CONTEXT, REGISTERS, SHARED, DumpCommand, named_format
from heapdump.commands.common.output_file import copy_pieces, output, refuse_unwritable
from heapdump.commands.common.pager import page, pager_command
from heapdump.commands.common.redaction import dump_records, redaction_of
from heapdump.commands.common.sorting import ordered
from heapdump.errors import WrongUsage
from heapdump.render.view import Answer, Record, StyledLine

if TYPE_CHECKING:
    from heapdump.snapshot import Snapshot

EXIT_DONE, EXIT_FINDINGS, EXIT_PARTIAL = 0, 1, 4
_MOST_LINES = 20

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """The shared options of one call. `dump`, `output`, `limit`, `sort`, `thread`, `frame`: None where not given."""

    dump: Path | None
    format: str
    output: Path | None
    limit: int | None
    sort: str | None
    reverse: bool
    color: str
    verbosity: int
    progress: bool
    explain: bool
    exact: bool
    pager: bool
    use_index: bool
    image_path: str
    symbol_path: str
    symbols_are_named: bool = True
    thread: str | None = None
    frame: int | None = None
    redact: bool = False
    verify: bool = False
    columns: tuple[str, ...] = ()
    printed: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def open(self) -> Iterator[Snapshot]:
        """The dump this call is about, opened; closed (and its temporary copy deleted) afterwards."""
        with self._opened(self.dump or find_dump(self.say)) as snapshot:
            yield snapshot

    @contextlib.contextmanager
    def open_all(self, paths: Sequence[Path]) -> Iterator[list[Snapshot]]:
        """Likewise for a command with several dumps (`dump_command(takes_dumps=True)`), in the order of `paths`."""
        with contextlib.ExitStack() as stack:
            yield [stack.enter_context(self._opened(path)) for path in paths]

    @contextlib.contextmanager
    def _opened(self, path: Path) -> Iterator[Snapshot]:
        with prepared(self.say), self._unpacked(path) as snapshot:
            if self.verify:
                snapshot.dump.stamp_whole()
            with progress_bar("walking the heaps", enabled=self.progress) as report:
                snapshot.progress = report
                try:
                    yield snapshot
                except KeyboardInterrupt:
                    for line in known_lines(snapshot):
                        self.say(f"known so far: {line}")
                    raise

    def _unpacked(self, path: Path) -> Snapshot:
        from heapdump.snapshot import open_dump

        with progress_bar(f"unpacking {path.name}", enabled=self.progress) as report:
            return open_dump(path, report, self.say, use_index=self.use_index)

    def say(self, text: str) -> None:
        """One diagnostic line on stderr, once in a call, unless --quiet."""
        from heapdump.render.text import printable

        if self.verbosity >= 0 and text not in self.printed:
            self.printed.add(text)
            click.echo(folded(f"heapdump: {printable(text)}"), err=True)

    def rows(self, rows: Sequence[T], record: Callable[[T], Record]) -> list[T]:
        """The rows in the order that --sort and --reverse ask for; `record` makes a row's JSON record.

        Raises:
            WrongUsage: no such field, or one that has no order.
        """
        return ordered(rows, record, self.sort, is_reversed=self.reverse)

    def refuse_sorting(self, command: str) -> None:
        """For commands whose answer is no list.

        Raises:
            WrongUsage: --sort or --reverse was given.
        """
        if self.sort is not None or self.reverse:
            raise WrongUsage(f"{command} cannot be sorted: its order is part of the answer")

    def shown(self, rows: Sequence[T]) -> tuple[Sequence[T], int]:
        """(the rows a table shows, how many more there are)."""
        if self.limit is None or len(rows) <= self.limit:
            return rows, 0
        return rows[: self.limit], len(rows) - self.limit

    def shown_lines(self, lines: Sequence[StyledLine]) -> list[StyledLine]:
        """The lines that are shown, and a line with the number of those that are not."""
        shown, hidden = self.shown(lines)
        return [*shown, *([[(f"… {hidden:,} more", "dim")]] if hidden else [])]

    def emit(self, snapshot: Snapshot | list[Snapshot], answer: Answer) -> int:
        """Writes the answer in the format asked for, its gaps and notes on stderr; the exit code.

        `snapshot`: of the envelope's `dump`; a list of them makes its `dumps`.
        """
        answer = self.redacted(snapshot, replace(answer, gaps=(*answer.gaps, *file_changes(_listed(snapshot)))))
        with self._output(snapshot) as stream:
            pager = pager_command(stream, is_wanted=self.pager and self.format == "table")
            if pager:
                page(self._pieces(snapshot, answer, stream), stream, pager)
            else:
                copy_pieces(self._pieces(snapshot, answer, stream), stream)
            file_changes(_listed(snapshot))
        return self._finish(
            snapshot, answer.gaps, answer.notes, answer.shown if self.format == "table" and not self.columns else ()
        )

    def redacted(self, snapshot: Snapshot | list[Snapshot], answer: Answer) -> Answer:
        """The answer, with --redact without contents of memory and names of people."""
        return redaction_of(_listed(snapshot)).answer(answer) if self.redact else answer

    def write(self, snapshot: Snapshot | list[Snapshot], pieces: Iterable[str], gaps: Sequence[str]) -> int:
        """Writes text that is no answer of records, then the gaps as `emit` does; the exit code."""
        self._refuse_columns()
        with self._output(snapshot) as stream:
            copy_pieces(pieces, stream)
            file_changes(_listed(snapshot))
        return self._finish(snapshot, gaps, ())

    def write_bytes(self, snapshot: Snapshot | list[Snapshot], data: bytes, gaps: Sequence[str]) -> int:
        """Writes bytes that are no answer of records, then the gaps as `emit` does; the exit code.

        Raises:
            WrongUsage: they would go to a terminal.
        """
        self._refuse_columns()
        if self.output is None and sys.stdout.isatty():
            raise WrongUsage("this format is no text; name a file: -o FILE")
        with self._output(snapshot) as stream:
            stream.flush()
            stream.buffer.write(data)  # type: ignore[attr-defined]
            file_changes(_listed(snapshot))
        return self._finish(snapshot, gaps, ())

    def _refuse_columns(self) -> None:
        if self.columns:
            raise WrongUsage("--columns chooses the columns of a table or of csv; this answer has none")

    def _finish(
        self, snapshot: Snapshot | list[Snapshot], gaps: Sequence[str], notes: Sequence[str], shown: Sequence[str] = ()
    ) -> int:
        """Says what is missing on stderr, without what the page has `shown`; the exit code."""
        gaps = [*gaps, *file_changes(_listed(snapshot))]
        if self.redact:
            gaps = list(map(redaction_of(_listed(snapshot)).text, gaps))
        on_page = set(shown)
        lines = [f"incomplete: {gap}" for gap in dict.fromkeys(gaps) if gap not in on_page]
        if self.verbosity > 0:
            remarks = (remark for one in _listed(snapshot) for remark in one.remarks)
            lines += [f"note: {note}" for note in (*notes, *remarks)]
        for line in lines[:_MOST_LINES]:
            self.say(line)
        if len(lines) > _MOST_LINES:
            self.say(f"… {len(lines) - _MOST_LINES:,} more lines like these; all of them are in `notes` of --json")
        return EXIT_PARTIAL if gaps else EXIT_DONE

    def _output(self, snapshot: Snapshot | list[Snapshot]) -> AbstractContextManager[IO[str]]:
        return output(self.output, [one.dump.path for one in _listed(snapshot)])

    def _pieces(self, snapshot: Snapshot | list[Snapshot], answer: Answer, stream: IO[str]) -> Iterable[str]:
        if self.format == "table":
            from heapdump.commands.common.chosen_columns import chosen_table
            from heapdump.render.table import draw, output_width

            is_terminal = stream.isatty()
            width = output_width(is_terminal=is_terminal)
            return draw(
                [chosen_table(answer, self.columns, self.limit)] if self.columns else answer.page(),
                color=self._uses_color(is_terminal),
                width=width,
                explain=self.explain,
                exact=self.exact,
            )
        from heapdump.render import machine

        if self.format == "json":
            from heapdump import __version__

            records = dump_records(_listed(snapshot), redact=self.redact)
            dump = records if isinstance(snapshot, list) else records[0]
            return machine.json_document(answer, __version__, dump)
        if self.format == "jsonl":
            return machine.json_lines(answer.records())
        is_raw = self.format == "raw-csv"
        if self.columns:
            from heapdump.commands.common.chosen_columns import chosen_records

            return machine.comma_separated(chosen_records(answer, self.columns), {}, self.columns, raw=is_raw)
        fields = fields_of(answer.question or answer.command)
        return machine.comma_separated((answer.lines or answer.records)(), answer.nested, fields, raw=is_raw)

    def _uses_color(self, is_terminal: bool) -> bool:
        if self.color != "auto":
            return self.color == "always"
        is_wanted = is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        return is_wanted and system.understands_escapes(1)


def _listed(snapshot: Snapshot | list[Snapshot]) -> list[Snapshot]:
    return snapshot if isinstance(snapshot, list) else [snapshot]


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments of a command beside options. `split` makes the values of the function's parameters, `dump` too."""

    metavar: str
    split: Callable[[tuple[str, ...]], dict[str, Any]]


def dump_command(
    name: str,
    *,
    takes_address: bool | Literal["perhaps"] = False,
    takes_dumps: bool = False,
    takes_expressions: bool = False,
    arguments: Arguments | None = None,
) -> Callable[[Callable[..., int]], click.Command]:
    """Makes a click command of `function(request, **own options) -> exit code`, with DUMP and the shared options.

    The function's docstring is the help text. `takes_address`: [DUMP] ADDRESS, given to the function as `address`, an
    expression (`address_in`); with "perhaps" both may be missing, and a lone argument is the dump where a file of that
    name exists. `takes_expressions`: options of the command are addresses. `arguments`: other ones than [DUMP].
    `takes_dumps`: DUMP… instead of [DUMP], given to the function as `dumps` for `Request.open_all`; `-d` names the
    first of them.
    """

    def decorate(function: Callable[..., int]) -> click.Command:
        """The function as a click command with the shared options."""

        @functools.wraps(function)
        def run(**values: Any) -> int:
            """Makes the request of the shared options' values and passes the function its own."""
            if takes_address:
                split = dump_or_address if takes_address == "perhaps" else dump_and_address
                values["dump"], values["address"] = split(values.pop("arguments"))
            if arguments is not None:
                values |= arguments.split(values.pop("arguments"))
            if takes_dumps:
                values["dumps"] = _all_dumps(values["dumps"])
                values["dump"] = values["dumps"][0]
            request = adopted(_request(values))
            if request.output is not None:
                refuse_unwritable(request.output, values.get("dumps") or filter(None, [request.dump]))
            return function(request, **values)

        wrapped: Callable[..., Any] = run
        if takes_address or arguments is not None:
            needed = takes_address is True
            metavar = arguments.metavar if arguments else f"[DUMP] {'ADDRESS' if needed else '[ADDRESS]'}"
            wrapped = click.argument("arguments", nargs=-1, metavar=metavar, shell_complete=any_file)(wrapped)
        elif takes_dumps:
            wrapped = click.argument("dumps", nargs=-1, metavar="DUMP...", type=click.Path(path_type=Path))(wrapped)
        else:
            wrapped = click.argument("dump", required=False, type=click.Path(path_type=Path))(wrapped)
        made: DumpCommand = click.command(name, cls=DumpCommand, context_settings=CONTEXT)(wrapped)
        made.params += [*SHARED, *(REGISTERS if takes_address or takes_expressions else ())]
        return made

    return decorate


def _all_dumps(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """The dump that `-d` names, then the arguments of the command.

    Raises:
        WrongUsage: no dump is named.
    """
    on_group = click.get_current_context().find_root().params.get("dump")
    dumps = paths if on_group is None else (on_group, *paths)
    if not dumps:
        raise WrongUsage("no dump named; name the dumps one after the other, the oldest first")
    return dumps


def _request(values: dict[str, Any]) -> Request:
    context = click.get_current_context()
    on_group = context.find_root().params.get("dump")
    take = values.pop
    everything, limit = take("all_"), take("limit")
    as_json, format_ = take("json_"), take("format_")
    quiet, verbose = take("quiet"), take("verbose")
    symbols = take("symbols")
    made = named_format(as_json, "raw-csv" if take("raw_csv") and format_ in (None, "table", "csv") else format_)
    return Request(
        dump=take("dump") or on_group,
        format=made,
        output=take("output"),
        limit=None if everything else limit,
        sort=take("sort"),
        reverse=take("reverse"),
        columns=parse_columns(take("columns"), made),
        color=take("color"),
        verbosity=-1 if quiet else verbose,
        progress=not take("no_progress"),
        explain=take("explain"),
        exact=take("bytes_"),
        pager=not take("no_pager"),
        use_index=not take("no_cache"),
        image_path=take("image_path") or "",
        symbol_path=os.environ.get("_NT_SYMBOL_PATH", "") if symbols is None else symbols,
        symbols_are_named=symbols is not None,
        thread=take("thread", None),
        frame=take("frame", None),
        redact=take("redact"),
        verify=take("verify"),
    )
