"""`cache`: where the index of walked blocks is, how large, and its deletion."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from heapdump.commands.common.options import CONTEXT
from heapdump.render.text import plural, size

if TYPE_CHECKING:
    from heapdump.cache.contents import Entry


@click.command("cache", context_settings=CONTEXT)
@click.option("--clear", is_flag=True, help="Delete it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(clear: bool, as_json: bool) -> int:
    """Where the index of walked blocks is, and how large.

    The second question about a dump is answered from the index, without walking again. HEAPDUMP_CACHE names another
    folder.

    \b
    heapdump cache
    heapdump cache --clear
    """
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


def _sum(found: tuple[Entry, ...]) -> str:
    number = "index of 1 dump" if len(found) == 1 else f"indexes of {plural(len(found), 'dump')}"
    return f"{number}, {size(sum(entry.bytes for entry in found))}"


def _time(seconds: float) -> str:
    return f"used {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _record(folder: str, left: tuple[Entry, ...], deleted: tuple[Entry, ...]) -> dict[str, object]:
    """The envelope of other commands; `dump` is null."""
    from heapdump import __version__

    entries = [
        {"name": entry.folder.name, "bytes": entry.bytes, "files": entry.files, "last_used": entry.last_used}
        for entry in left
    ]
    data = {
        "folder": folder, "bytes": sum(entry.bytes for entry in left), "indexes": entries,
        "deleted_bytes": sum(entry.bytes for entry in deleted),
    }  # fmt: skip
    head = {"schema": "heapdump/1", "command": "cache", "tool": __version__, "dump": None}
    return head | {"complete": True, "notes": [], "data": data}
