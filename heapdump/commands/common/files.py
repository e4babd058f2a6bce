"""Files around a command: which dump it is about, where its output goes, and the progress line."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from heapdump.errors import WrongUsage
from heapdump.wording import short_size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_SUFFIXES = (".dmp", ".mdmp", ".hdmp")


def progress_line(title: str, done: int, total: int, seconds: float) -> str:
    """`walking the heaps: 1.2 GB of 4.8 GB (25%), 310.0 MB/s, 12 s left`. Bytes; `total` 0: not known."""
    rate = int(done / seconds) if seconds else 0
    speed = f", {short_size(rate)}/s" if rate else ""
    if not total:
        return f"{title}: {short_size(done)}{speed}"
    left = f", {round((total - done) / rate):,} s left" if rate and done < total else ""
    return f"{title}: {short_size(done)} of {short_size(total)} ({done / total:.0%}){speed}{left}"


@contextlib.contextmanager
def progress_bar(title: str, *, enabled: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress line on stderr, only on a terminal and only once the work has taken about a second."""
    start = shown = time.monotonic()

    def report(done: int, total: int) -> None:
        """Rewrites the line, at most some times a second."""
        nonlocal shown
        now = time.monotonic()
        if now - start > 1 and now - shown > 0.1:
            shown = now
            click.echo(f"\r{progress_line(title, done, total, now - start)}\x1b[K", nl=False, err=True)

    visible = enabled and sys.stderr.isatty()
    try:
        yield report if visible else lambda done, total: None
    finally:
        if visible and shown > start:
            click.echo("\r\x1b[K", nl=False, err=True)


def folded(line: str) -> str:
    """A line for stderr: on a terminal folded at words."""
    if not sys.stderr.isatty():
        return line
    width = max(40, shutil.get_terminal_size().columns)
    return "\n".join(textwrap.wrap(line, width, subsequent_indent="  ", break_on_hyphens=False))


def called() -> str:
    """The command that was typed."""
    return click.get_current_context().info_name or "summary"


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
    how = f"name one: heapdump {called()} crash.dmp, or -d crash.dmp, or set HEAPDUMP_DUMP"
    if found:
        raise WrongUsage(f"no dump named and {len(found)} in this folder ({found[0].name}, {found[1].name} …); {how}")
    raise WrongUsage(f"no dump named and no {', '.join(_SUFFIXES)} file in this folder; {how}")


def dump_and_address(arguments: tuple[str, ...]) -> tuple[Path | None, str]:
    """(dump, address) of [DUMP] ADDRESS; the dump is None where it is not named.

    Raises:
        WrongUsage: no address, too many arguments, or a lone argument that is the name of a file.
    """
    if len(arguments) > 2:
        raise WrongUsage(f"one dump and one address, not {len(arguments)} arguments")
    if not arguments:
        raise WrongUsage(f"no address; name the dump and one: heapdump {called()} crash.dmp 0x29fb0000")
    if len(arguments) == 1 and Path(arguments[0]).is_file():
        what, example = ("heap (number or address)", "0") if called() == "heap" else ("address", "ADDRESS")
        file = arguments[0]
        raise WrongUsage(f"{file} is a file; name the {what} too: heapdump {called()} {file} {example}")
    return (Path(arguments[0]) if len(arguments) == 2 else None), arguments[-1]


def dump_or_address(arguments: tuple[str, ...]) -> tuple[Path | None, str | None]:
    """(dump, address) as `dump_and_address` gives them; both may be missing."""
    if not arguments:
        return None, None
    if len(arguments) == 1 and Path(arguments[0]).is_file():
        return Path(arguments[0]), None
    return dump_and_address(arguments)


def any_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Names of files, for shell completion."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
