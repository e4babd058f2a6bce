"""Commands that an answer points to, written so that they can be pasted: with the dump's name, quoted where needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heapdump.snapshot import Snapshot

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./\\@~#!")
"""Characters that neither sh nor cmd.exe gives a meaning to."""


def command_text(snapshot: Snapshot, command: Sequence[str]) -> str:
    """`heapdump NAME DUMP ARGUMENTS…` of the name and arguments of a command."""
    name, *arguments = command
    return " ".join(["heapdump", name, *map(quoted, (str(snapshot.dump.path), *arguments))])


def arrow(snapshot: Snapshot, command: Sequence[str]) -> tuple[str, str]:
    """The last piece of a line: ` → heapdump …`."""
    from heapdump.render.view import COMMAND

    return f" → {command_text(snapshot, command)}", COMMAND


def quoted(word: str) -> str:
    """The word as it can be pasted into a command line."""
    return word if word and set(word) <= _PLAIN else f'"{word}"'
