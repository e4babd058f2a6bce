"""Options of commands: those that every command has, aliases that the help leaves out, headings of the help."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from heapdump.commands.common.fields import complete_columns
from heapdump.commands.common.output_file import STDOUT_WORD
from heapdump.errors import WrongUsage

DEFAULT_LIMIT = 20
_LONG = 30
"""Characters of the words of a choice that stand in the help in place of a metavariable."""
CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
"""Settings of click for every command."""


class Option(click.Option):
    """An option. `aliases`: former spellings, which the help leaves out; the help names no ranges of numbers."""

    def __init__(self, param_decls: Sequence[str] | None = None, *, aliases: Sequence[str] = (), **attrs: Any) -> None:
        """As click's, and `aliases`."""
        super().__init__(param_decls, **attrs)
        self.aliases = tuple(aliases)

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Teaches the parser the option and its aliases."""
        shown = self.opts
        self.opts = [*shown, *self.aliases]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = shown

    def make_metavar(self, ctx: click.Context) -> str:
        """The values of a short choice; `WORD` for a long one, whose words the help lists."""
        return "WORD" if self._has_long_choice else super().make_metavar(ctx)

    @property
    def _has_long_choice(self) -> bool:
        choice = self.type
        return self.metavar is None and isinstance(choice, click.Choice) and len("|".join(choice.choices)) > _LONG

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The option and its help."""
        record = super().get_help_record(ctx)
        if record is None or not self._has_long_choice or not isinstance(self.type, click.Choice):
            return record
        return record[0], f"{record[1]}  One of: {', '.join(self.type.choices)}."

    def get_help_extra(self, ctx: click.Context) -> Any:
        """Defaults and the like."""
        extra = super().get_help_extra(ctx)
        extra.pop("range", None)
        return extra


option = functools.partial(click.option, cls=Option)
"""`click.option` for an `Option`."""


class OptionWords(click.Choice[str]):
    """A choice of words. `others`: further spellings, such as the words of the JSON, and what they mean."""

    def __init__(self, words: Sequence[str], others: Mapping[str, str]) -> None:
        """`words`: those that help and errors list; upper and lower case are the same."""
        super().__init__(words, case_sensitive=False)
        self.others = {other.lower(): word for other, word in others.items()}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """One of the words."""
        return super().convert(self.others.get(str(value).lower(), value), param, ctx)


BLOCK_STATES = OptionWords(["busy", "free", "all"], {"freed": "free"})
HEAP_OPTION = option("--heap", metavar="ADDR|INDEX", help="Only this heap.")
SIZE_OPTION = option(
    "--size", metavar="A..B", help="Only requested sizes from A to B inclusive: 4K..64K, 64K.., ..1M, >1M; or one size."
)

_CHOOSE = (
    "heap", "state", "kind", "size", "at", "usage", "type_", "protect", "internal", "containing", "focus", "ignore",
    "min_bytes", "suppressions", "request_size", "arch", "thread", "kinds", "min_size",
)  # fmt: skip
_GROUP = ("by", "stat", "skip_module", "full_stacks")
_UNREACHABLE = ("unreachable", "report_objects", "use_unaligned", "lsan_compat", "exitcode", "print_suppressions")
_EXPORT = ("export", "weight", "sarif", "fail_on")
HEADINGS = {
    **dict.fromkeys(_CHOOSE, "Choose"), **dict.fromkeys(_GROUP, "Group"),
    **dict.fromkeys(_UNREACHABLE, "Unreachable blocks"), **dict.fromkeys(_EXPORT, "Export and exit code"),
}  # fmt: skip
"""Name of an own option → its heading in the help; `Show` for others."""
_ORDER = ("Choose", "Group", "Show", "Unreachable blocks", "Export and exit code")


def _stdout_for_dash(_context: click.Context, _option: click.Parameter, value: Path | None) -> Path | None:
    return None if value == STDOUT_WORD else value


def _shared(*decls: str, **attrs: Any) -> Option:
    return Option(decls, **attrs)


SHARED: tuple[Option, ...] = (
    _shared("--limit", type=click.IntRange(0), default=DEFAULT_LIMIT, show_default=True, metavar="N",
            aliases=("--top",), help="Rows shown in tables."),
    _shared("--all", "all_", is_flag=True, help="Show all rows."),
    _shared("--sort", metavar="FIELD", help="Order by a field of the JSON, numbers descending; FIELD:asc ascending."),
    _shared("--reverse", is_flag=True, help="Reverse the order."),
    _shared("--columns", metavar="NAMES", shell_complete=complete_columns,
            help="Columns by their JSON names, in this order: address,size."),
    _shared("--json", "json_", is_flag=True, help="One JSON document on stdout."),
    _shared("--format", "format_", type=click.Choice(["table", "json", "jsonl", "csv"]),
            metavar="FORMAT", help="table, json, jsonl (a record a line) or csv."),
    _shared("--raw-csv", is_flag=True, help="csv with texts that look like formulas as they are."),
    _shared("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), callback=_stdout_for_dash,
            help="Write there instead of stdout; - is stdout."),
    _shared("--bytes", "bytes_", is_flag=True, help="Sizes in tables in exact bytes."),
    _shared("--explain", is_flag=True, help="Under each table: how every column is computed."),
    _shared("--redact", is_flag=True, help="No contents of memory, no command line, no names of people."),
    _shared("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True,
            metavar="WHEN", help="auto, always or never."),
    _shared("--symbols", metavar="PATH", help="PDBs: folders, srv*CACHE*URL; default: _NT_SYMBOL_PATH."),
    _shared("--image-path", metavar="PATH", help="PE files that the dump lacks, written like --symbols."),
    _shared("-q", "--quiet", is_flag=True, help="No diagnostics on stderr."),
    _shared("-v", "--verbose", count=True, help="More diagnostics on stderr."),
    _shared("--debug", is_flag=True, expose_value=False, hidden=True, help="Print the traceback of a defect."),
    _shared("--no-pager", is_flag=True, help="Never show a long page in $HEAPDUMP_PAGER."),
    _shared("--no-progress", is_flag=True, help="No progress lines."),
    _shared("--no-cache", is_flag=True, help="Neither read nor write the index of walked blocks."),
    _shared("--verify", is_flag=True, help="Use the index only if every byte of the dump is the same."),
)  # fmt: skip
"""The options of every command."""

REGISTERS: tuple[Option, ...] = (
    _shared("--thread", metavar="ID|~INDEX", help="Thread whose registers addresses name.  [default: the crashed one]"),
    _shared("--frame", type=int, metavar="N", help="Its frame, numbered from 0."),
)
"""The options of commands that take addresses."""


class DumpCommand(click.Command):
    """A command whose help shows its own options first, under headings, then those of every command."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Sections of options."""
        params = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        common = [*SHARED, *REGISTERS]
        own = [one for one in reversed(self.params) if isinstance(one, click.Option) and one not in common]
        sections: dict[str, list[click.Option]] = {heading: [] for heading in _ORDER}
        for one in own:
            sections[HEADINGS.get(one.name or "", "Show")].append(one)
        sections["Common options"] = [one for one in params if one not in own]
        for heading, options in sections.items():
            records = [record for one in options if (record := one.get_help_record(ctx))]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def named_format(as_json: bool, named: str | None) -> str:
    """The format of the answer.

    Raises:
        WrongUsage: --json, and another one.
    """
    if as_json and named not in (None, "json"):
        raise WrongUsage(f"--json and --format {named} exclude each other")
    return "json" if as_json else named or "table"
