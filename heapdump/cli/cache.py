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
    from heapdump.cache.contents import Entry


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
    if compiles:
        return _compile(as_json=as_json)
    from heapdump.cache import contents
    from heapdump.cache.store import cache_folder

    cleared = contents.clear() if clear else None
    left = contents.entries()
    deleted = cleared.deleted if cleared else ()
    if as_json:
        click.echo(json.dumps(_record(str(cache_folder()), left, deleted), indent=1))
        return 0
    if cleared is not None:
        click.echo(f"deleted: {_sum(deleted)}")
    click.echo(f"{cache_folder()}: {_sum(left)}")
    for entry in left:
        used = "half-written" if entry.last_used is None else _time(entry.last_used)
        click.echo(f"{size(entry.bytes):>10}  {used:<20}  {entry.folder.name}")
    return 0


def _compile(*, as_json: bool) -> int:
    """Compiles the kernels; the exit code."""
    from heapdump import kernels

    try:
        present, made = kernels.compile_known(lambda text: click.echo(f"heapdump: {text}", err=True))
    except ImportError as error:
        raise WrongUsage(f"loops are compiled by numba, which is not installed: {error}") from error
    if as_json:
        click.echo(json.dumps(_envelope({"compiled": made, "kept": present}), indent=1))
    else:
        click.echo(f"compiled: {plural(made, 'loop')}; there already: {present}")
    return 0


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
    data = {
        "folder": folder, "bytes": sum(entry.bytes for entry in left), "indexes": entries,
        "deleted_bytes": sum(entry.bytes for entry in deleted),
    }  # fmt: skip
    return _envelope(data)


def _envelope(data: dict[str, object]) -> dict[str, object]:
    """The envelope of other commands; `dump` is null."""
    from heapdump import __version__

    head = {"schema": "heapdump/1", "command": "cache", "tool": __version__, "dump": None}
    return head | {"complete": True, "notes": [], "data": data}
