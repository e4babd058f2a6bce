"""Pages of the manual (`man heapdump-leaks`), made of the help of the commands. Imports click alone, for builds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from heapdump.cli.group import LazyGroup

_VERBATIM = "\b\n"
"""Begins a paragraph whose lines stay as they are."""


def pages(group: LazyGroup, version: str) -> dict[str, str]:
    """File name → page, of heapdump itself and of every command."""
    root = click.Context(group, info_name="heapdump", **group.context_settings)
    names = [name for name in (*group.list_commands(root), "cache") if name != "help"]
    found = {"heapdump.1": _page(root, version, [f"heapdump-{name}" for name in names])}
    for name in names:
        command = group.get_command(root, name)
        if command is not None:
            context = click.Context(command, info_name=name, parent=root)
            found[f"heapdump-{name}.1"] = _page(context, version, ["heapdump"])
    return found


def write_pages(folder: Path) -> list[str]:
    """Writes the pages into a folder; their paths."""
    from heapdump import __version__
    from heapdump.cli import cli

    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages(cli, __version__).items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return sorted(path.as_posix() for path in folder.glob("heapdump*.1"))


def _page(context: click.Context, version: str, see_also: Sequence[str]) -> str:
    name = context.command_path.replace(" ", "-")
    first = (context.command.help or "").strip().partition("\n\n")[0]
    writer = _Roff()
    writer.lines += [
        f'.TH "{_escaped(name.upper())}" 1 "" "heapdump {version}" "heapdump"',
        ".SH NAME", f"{_escaped(name)} \\- {_escaped(' '.join(first.split()).removesuffix('.'))}",
    ]  # fmt: skip
    context.command.format_help(context, writer)
    writer.lines += [".SH SEE ALSO", ", ".join(f"\\fB{_escaped(one)}\\fR(1)" for one in sorted(see_also))]
    return "\n".join(writer.lines) + "\n"


class _Roff(click.HelpFormatter):
    """Writes the help of a command, as click formats it, in the macros of man(7)."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._is_described = False

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """The synopsis."""
        self.lines += [".SH SYNOPSIS", f".B {_escaped(prog)}", _escaped(args)]

    def write_heading(self, heading: str) -> None:
        """A section in capitals."""
        self.lines.append(f".SH {_escaped(heading.upper())}")

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """A heading; text that is written inside the `with` block stands below it."""
        self.write_heading(name)
        yield

    def write_paragraph(self) -> None:
        """Nothing: text and sections begin their own."""

    def write_text(self, text: str) -> None:
        """Paragraphs; the first text of a page is its description. Examples keep their lines."""
        if not self._is_described:
            self._is_described = True
            self.write_heading("Description")
        for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
            if paragraph.startswith(_VERBATIM):
                body = [_escaped(line) for line in paragraph.removeprefix(_VERBATIM).split("\n")]
                self.lines += [".PP", ".nf", *body, ".fi"]
            else:
                self.lines += [".PP", _escaped(" ".join(paragraph.split()))]

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Terms in bold, each with its meaning."""
        for term, meaning in rows:
            self.lines += [".TP", f"\\fB{_escaped(term.strip())}\\fR", _escaped(" ".join(meaning.split()))]


def _escaped(text: str) -> str:
    """Text as roff prints it: no escape sequence, no request at the beginning of a line, ASCII alone."""
    out = text.replace("\\", "\\e").replace("-", "\\-")
    out = "".join(letter if letter.isascii() else f"\\[u{ord(letter):04X}]" for letter in out)
    return f"\\&{out}" if out.startswith((".", "'")) else out
