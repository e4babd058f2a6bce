"""`cache`: where the index of walked blocks is, how large, and its deletion; compiles the kernels ahead."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from heapdump.commands.common.options import CONTEXT
from heapdump.errors import WrongUsage
from heapdump.render.text import plural, size

if TYPE_CHECKING:
    from heapdump.cache.contents import Cleared, Entry


@click.command("cache", context_settings=CONTEXT)
@click.option("--clear", is_flag=True, help="Delete it.")
@click.option("--compile", "compiles", is_flag=True, help="Compile the loops for large dumps now.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(clear: bool, compiles: bool, as_json: bool) -> int:
    """Where the index of walked blocks is, and how large.

    The second question about a dump is answered from the index, without walking again. HEAPDUMP_CACHE names another
    folder.

    The first commands on large dumps compile some loops, once in an installation. --compile does it ahead of
    time, such as in a container image, as the user who installs heapdump.

    \b
    heapdump cache
    heapdump cache --clear
    heapdump cache --compile
    """
    from heapdump.cache import contents
    from heapdump.cache.store import cache_folder

    data: dict[str, object] = {}
    if compiles:
        present, made = _compile()
        data |= {"compiled": made, "kept": present}
        if not as_json:
            click.echo(f"compiled: {plural(made, 'loop')}; there already: {present}")
    if clear or not compiles:
        cleared = contents.clear() if clear else None
        left, folder = contents.entries(), str(cache_folder())
        data |= _record(folder, left, cleared.deleted if cleared else ())
        if not as_json:
            _show(folder, left, cleared)
    if as_json:
        click.echo(json.dumps(_envelope(data), indent=1))
    return 0


def _show(folder: str, left: tuple[Entry, ...], cleared: Cleared | None) -> None:
    """The indexes that are `left`, a line each, below what was `cleared`."""
    if cleared is not None:
        click.echo(f"deleted: {_sum(cleared.deleted)}")
    click.echo(f"{folder}: {_sum(left)}")
    for entry in left:
        used = "half-written" if entry.last_used is None else _time(entry.last_used)
        click.echo(f"{size(entry.bytes):>10}  {used:<20}  {entry.folder.name}")


def _compile() -> tuple[int, int]:
    """Compiles the kernels; (already there, compiled now)."""
    from heapdump.kernels import ahead

    try:
        return ahead.compile_known(lambda text: click.echo(f"heapdump: {text}", err=True))
    except ImportError as error:
        raise WrongUsage(f"loops are compiled by numba, which is not installed: {error}") from error


def _sum(found: tuple[Entry, ...]) -> str:
    number = "index of 1 dump" if len(found) == 1 else f"indexes of {plural(len(found), 'dump')}"
    return f"{number}, {size(sum(entry.bytes for entry in found))}"


def _time(seconds: float) -> str:
    return f"used {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _record(folder: str, left: tuple[Entry, ...], deleted: tuple[Entry, ...]) -> dict[str, object]:
    entries = [
        {"name": entry.folder.name, "bytes": entry.bytes, "files": entry.files, "last_used": entry.last_used}
        for entry in left
    ]
    return {
        "folder": folder, "bytes": sum(entry.bytes for entry in left), "indexes": entries,
        "deleted_bytes": sum(entry.bytes for entry in deleted),
    }  # fmt: skip


def _envelope(data: dict[str, object]) -> dict[str, object]:
    """The envelope of other commands; `dump` is null."""
    from heapdump import __version__

    head = {"schema": "heapdump/1", "command": "cache", "tool": __version__, "dump": None}
    return head | {"complete": True, "notes": [], "data": data}
