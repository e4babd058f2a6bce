"""Commands that are asked by the report: the page shows the answer, and the very command line that gave it."""

from __future__ import annotations

import contextlib
import importlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from heapdump.commands.common.next_command import command_text
from heapdump.commands.common.request import Request
from heapdump.errors import HeapdumpError
from heapdump.render.view import Answer

if TYPE_CHECKING:
    from heapdump.snapshot import Snapshot


_OWN = ("dump", "format", "output", "limit", "sort", "reverse", "verbosity", "progress", "thread", "frame")
"""Options that the report gives to a command that it asks; all others are those of the report."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A command line and its answer.

    Attributes:
        line: the command line.
        answer: None where the command refuses.
        refusal: why it refuses; "" where it answers.
    """

    line: str
    answer: Answer | None
    refusal: str = ""

    @property
    def gaps(self) -> tuple[str, ...]:
        """Lines on what is missing from the answer; the refusal where there is none."""
        return tuple(self.answer.gaps) if self.answer else (self.refusal,)


class Asker:
    """Asks commands about dumps that are open already."""

    def __init__(self, request: Request, snapshots: Sequence[Snapshot]) -> None:
        """`snapshots`: the first one is the dump that commands are about. `request`: whose files and index count."""
        self._request, self._snapshots = request, snapshots
        self._answers: list[Answer] = []

    def ask(self, name: str, *arguments: str, limit: int) -> Asked:
        """The answer of `heapdump NAME DUMP ARGUMENTS`, with at most `limit` rows in a table; with --all every row.

        Arguments that are no options, such as an address, come first.
        """
        snapshot = self._snapshots[0]
        words = [str(one.dump.path) for one in (self._snapshots[::-1] if name == "diff" else (snapshot,))]
        line = command_text(self._snapshots[-1] if name == "diff" else snapshot, (name, *words[1:], *arguments))
        module = importlib.import_module(f"heapdump.commands.{name.replace('-', '_')}")
        command: click.Command = module.command
        self._answers.clear()
        try:
            rows = ["--all"] if self._request.limit is None else ["--limit", str(limit)]
            own = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments))
            given = [*arguments[len(own) :], *rows, "--quiet", "--no-progress", "--", *words, *own]
            with command.make_context(name, given, obj=self) as context:
                command.invoke(context)
        except (HeapdumpError, click.ClickException) as error:
            return Asked(line, None, str(error))
        return Asked(line, self._answers[-1] if self._answers else None)

    def adopt(self, request: Request) -> Request:
        """The request of a command that is asked: about the open dumps, and answering to the report."""
        shared = {field.name: getattr(self._request, field.name) for field in fields(request)}
        own = {name: getattr(request, name) for name in _OWN}
        return _Embedded(**shared | own, opened=tuple(self._snapshots), answers=self._answers)


@dataclass(frozen=True, slots=True)
class _Embedded(Request):
    """A request about dumps that are open; its answer goes to `answers`."""

    opened: tuple[Snapshot, ...] = ()
    answers: list[Answer] | None = None

    @contextlib.contextmanager
    def open(self) -> Iterator[Snapshot]:
        """The open dump."""
        yield self.opened[0]

    @contextlib.contextmanager
    def open_all(self, paths: Sequence[Path]) -> Iterator[list[Snapshot]]:
        """The open dumps in the order of `paths`."""
        known = {one.dump.path: one for one in self.opened}
        yield [known[path] for path in paths]

    def emit(self, snapshot: Snapshot | list[Snapshot], answer: Answer) -> int:
        """Keeps the answer."""
        if self.answers is not None:
            self.answers.append(self.redacted(snapshot, answer))
        return 0
