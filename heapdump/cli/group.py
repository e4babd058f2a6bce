"""The click group: finds commands in `commands/`, lists them by question, takes shared options before a command."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from heapdump import commands
from heapdump.cli.defaults import user_defaults
from heapdump.commands.common.options import SHARED

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

TOPICS = {
    "Start": ("triage", "summary", "info"),
    "Who uses memory": ("heaps", "heap", "virt-blocks", "blocks", "leaks", "retained", "refs", "waste", "managed"),
    "What broke": ("check", "block", "page-heap"),
    "Process": ("regions", "gaps", "modules", "threads", "memory", "struct", "disasm", "search"),
    "Compare, report": ("diff", "fleet", "report", "mcp"),
    "Index, help": ("cache", "help"),
}
"""Heading of the help → its commands, in this order. A command of no heading comes last, under `More`."""

_FIRST_LINE = re.compile(r'^def command\(.*?"""(.*?)$', re.MULTILINE | re.DOTALL)
_DUMPS = (".dmp", ".mdmp", ".hdmp", ".dmp.gz", ".dmp.xz", ".dmp.zst", ".zip", ".cab")


class LazyGroup(click.Group):
    """Lists the files of `commands/`; imports a file when its command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Command names: file names with `-` for `_`."""
        return [*_names(tuple(commands.__path__))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name in _TOOLS:
            return _HELP if cmd_name == "help" else _imported(f"heapdump.cli.{cmd_name}")
        if cmd_name not in self.list_commands(ctx):
            return None
        return _imported(f"{commands.__name__}.{_file_name(cmd_name)}")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Shared options before the command go behind it: `--json summary` is `summary --json`."""
        return super().parse_args(ctx, _behind_the_command(args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names; `triage` where that is a dump.

        Raises:
            UsageError: it is neither; with the commands whose names are similar.
        """
        name = args[0]
        if name in self.list_commands(ctx):
            ctx.invoked_subcommand = name  # for errors while its file is loaded
        if name not in _TOOLS:
            ctx.default_map = {name: user_defaults(), "triage": user_defaults()}
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            if not _is_dump(name):
                ctx.fail(f"no command {name!r}{_similar(name, [*self.list_commands(ctx), *_TOOLS])}")
            args = ["triage", *args]
            ctx.invoked_subcommand = "triage"
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Commands and options that begin with `incomplete`; files of dumps where there are none."""
        from click.shell_completion import CompletionItem

        names = [name for name in (*self.list_commands(ctx), *_TOOLS) if name.startswith(incomplete)]
        found = [CompletionItem(name, help=self._first_line(ctx, name)) for name in names]
        found += click.Command.shell_complete(self, ctx, incomplete)
        return found or [CompletionItem(incomplete, type="file")]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands under their headings, a line each."""
        names = [*self.list_commands(ctx), *_TOOLS]
        width = max(map(len, names))
        topics = {topic: [name for name in listed if name in names] for topic, listed in TOPICS.items()}
        placed = {name for listed in topics.values() for name in listed}
        topics["More"] = [name for name in names if name not in placed]
        for topic, listed in topics.items():
            if listed:
                with formatter.section(topic):
                    formatter.write_dl([(name.ljust(width), self._first_line(ctx, name)) for name in listed])

    def _first_line(self, ctx: click.Context, name: str) -> str:
        """The first line of a command's help, read from its source: importing all of them takes a tenth of a second."""
        if name in _TOOLS:
            return _TOOLS[name]
        path = Path(commands.__path__[0], f"{_file_name(name)}.py")
        found = _FIRST_LINE.search(path.read_text(encoding="utf-8")) if path.is_file() else None
        if found is not None:
            return found[1].strip()
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit=72) if command else ""


@cache
def _names(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the commands in the folders, ascending: reading a folder takes a millisecond, each call asks thrice."""
    names = (module.name for module in pkgutil.iter_modules(folders) if not module.ispkg)
    return tuple(sorted(name.replace("_", "-") for name in names))


_TOOLS = {"cache": "Where the index is, and how large; deletes it.", "help": "Help on a command."}
"""Commands that are about no dump, and what they answer."""


def _imported(module: str) -> click.Command:
    command: click.Command = importlib.import_module(module).command
    return command


def _file_name(command: str) -> str:
    return command.replace("-", "_")


def _is_dump(argument: str) -> bool:
    """True for a file that exists, and for a name that ends like that of a dump."""
    return argument.lower().endswith(_DUMPS) or Path(argument).is_file()


def _similar(name: str, names: list[str]) -> str:
    close = get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else "; heapdump --help lists the commands"


_HAS_VALUE = {flag: not option.is_flag and not option.count for option in SHARED for flag in option.opts}


def _behind_the_command(args: list[str]) -> list[str]:
    """The arguments with the shared options that stand before the command moved behind it."""
    moved: list[str] = []
    own: list[str] = []
    rest = iter(args)
    for arg in rest:
        flag, equals, _ = arg.partition("=")
        if flag in ("-d", "--dump"):
            own += [arg] if equals else [arg, *_value(rest)]
        elif flag in _HAS_VALUE:
            moved += [arg, *(_value(rest) if _HAS_VALUE[flag] and not equals else ())]
        elif re.fullmatch("-[qv]{2,}", arg):
            moved.append(arg)
        elif arg.startswith("-"):
            own.append(arg)
        else:
            return [*own, arg, *moved, *rest]
    return own


def _value(rest: Iterator[str]) -> Iterator[str]:
    """The next argument, if there is one."""
    value = next(rest, None)
    return iter(() if value is None else (value,))


@click.command("help", context_settings={"ignore_unknown_options": True})
@click.argument("names", nargs=-1, metavar="[COMMAND]")
@click.pass_context
def _HELP(ctx: click.Context, names: tuple[str, ...]) -> int:
    """Help on a command, as `heapdump COMMAND --help`.

    heapdump help leaks
    """
    root = ctx.find_root()
    group = root.command
    if not names or not isinstance(group, LazyGroup):
        click.echo(root.get_help())
        return 0
    name, command, _ = group.resolve_command(root, [names[0]])
    if command is not None:
        click.echo(command.get_help(click.Context(command, info_name=name, parent=root)))
    return 0
