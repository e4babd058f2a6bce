"""The dumps that an assistant has open, and its questions about them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heapdump.commands.common.assistant.budget import first_that_fit, fitted
from heapdump.commands.common.assistant.untrusted import redacted_places
from heapdump.commands.common.redaction import redaction_of
from heapdump.commands.common.report.asking import Asker
from heapdump.errors import HeapdumpError, WrongUsage
from heapdump.render.redaction import Redaction

if TYPE_CHECKING:
    from heapdump.commands.common.request import Request
    from heapdump.render.view import Answer
    from heapdump.snapshot import Snapshot

CHARACTERS = 16_000
"""Of one answer, some 4,000 tokens."""

_MOST_OPEN, _MOST_NOTES, _UNTRUSTED_SHARE = 4, 5, 4
_MANY = 100_000


class Session:
    """Opens dumps below `root`, keeps a few of them open, and asks commands about them."""

    def __init__(self, request: Request, root: Path | None, characters: int = CHARACTERS) -> None:
        """`root`: None allows every path. `characters`: of the JSON of an answer, at most."""
        self._request, self._root, self._characters = request, root, characters
        self._open: dict[str, tuple[Snapshot, ExitStack]] = {}
        self._numbers: dict[Path, str] = {}

    def open(self, path: str) -> dict[str, Any]:
        """The id of a dump, what it is, and what it can answer.

        Raises:
            HeapdumpError: it cannot be opened, or lies elsewhere.
        """
        from heapdump.snapshot import open_dump

        file = self._allowed(path)
        name = self._numbers.setdefault(file, f"d{len(self._numbers) + 1}")
        if name not in self._open:
            while len(self._open) >= _MOST_OPEN:
                self._close(next(iter(self._open)))
            stack = ExitStack()
            snapshot = stack.enter_context(open_dump(file, use_index=self._request.use_index))
            self._open[name] = snapshot, stack
        return {"dump": name} | self.ask(name, "info")

    def close(self) -> None:
        """Closes all dumps."""
        for name in list(self._open):
            self._close(name)

    def _close(self, name: str) -> None:
        self._open.pop(name)[1].close()

    def _allowed(self, path: str) -> Path:
        """The file of a path, below the root with all links resolved.

        Raises:
            WrongUsage: it lies elsewhere.
        """
        file = (self._root / path if self._root is not None else Path(path)).resolve()
        if self._root is not None and not file.is_relative_to(self._root.resolve()):
            raise WrongUsage(f"{path} is not below the folder that --root names")
        return file

    def snapshot(self, name: str) -> Snapshot:
        """The open dump of an id.

        Raises:
            WrongUsage: there is none of that id.
        """
        if name not in self._open:
            known = next((file for file, number in self._numbers.items() if number == name), None)
            if known is None:
                raise WrongUsage(f"no dump {name!r} is open: call open_dump with its path first")
            self.open(str(known))
        return self._open[name][0]

    def ask(self, dump: str, command: str, *arguments: str, cursor: int = 0, other: str = "") -> dict[str, Any]:
        """The answer of a command, within the budget; `other`: the id of the newer dump of a comparison.

        Raises:
            HeapdumpError: the command refuses; the message says what to try.
        """
        snapshots = [self.snapshot(name) for name in ([other] if other else []) + [dump]]
        asked = Asker(replace(self._request, redact=False), snapshots).ask(command, *arguments, limit=_MANY)
        if asked.answer is None:
            raise Refused(asked.refusal)
        return self._answer(snapshots, asked.answer, asked.line, cursor)

    def _answer(self, snapshots: list[Snapshot], answer: Answer, line: str, cursor: int) -> dict[str, Any]:
        redaction = redaction_of(snapshots) if self._request.redact else Redaction()
        room = self._characters * (_UNTRUSTED_SHARE - 1) // _UNTRUSTED_SHARE
        data = answer.data()
        more: dict[str, Any] = {}
        if isinstance(data, dict):
            original, cuts = fitted(data, room)
            clean: Any = redaction.record(answer.command, original)
            if cuts:
                more["cut"] = [{"list": cut.at, "total": cut.total, "shown": cut.shown} for cut in cuts]
        else:
            records = list(data)
            original, _ = fitted(first_that_fit(records[cursor:], room), _MANY * 100)
            clean = [redaction.record(answer.command, record) for record in original]
            end = cursor + len(original)
            more |= {"total": len(records), "next_cursor": end if end < len(records) else None}
        untrusted = [] if self._request.redact else list(redacted_places(clean, original, "data"))
        notes = list(dict.fromkeys(map(redaction.text, (*answer.gaps, *answer.notes))))
        shown = first_that_fit(untrusted, self._characters // _UNTRUSTED_SHARE) if untrusted else []
        is_cut = bool(more.get("cut")) or more.get("next_cursor") is not None or len(shown) < len(untrusted)
        return {
            "command": redaction.text(line) if self._request.redact else line,
            "complete": answer.complete,
            "notes": notes[:_MOST_NOTES],
            "more_notes": max(0, len(notes) - _MOST_NOTES),
            "truncated": is_cut,
            **more,
            "data": clean,
            "untrusted": shown,
        }


class Refused(HeapdumpError):
    """A command that does not answer; the message says why, and what to try."""

    exit_code = 2
