"""Answers without contents of the program's memory: no contents, no texts, no command line, no names of people.

Addresses, sizes, types, functions and the modules of the program stay. What memory holds is told by where it stands:
by the name of a member or a column, in quotes in a sentence, or as a row of hex digits. Names of the user and of the
machine are given by the caller; they go wherever they stand, and so does the folder of a user in a path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from heapdump.render.view import Answer, Lines, PageItem, Record, Section, Sections, StyledLine, Table

T = TypeVar("T")
HIDDEN = "[redacted]"
_MEMBERS = frozenset({
    "command_line", "preview", "looks_like", "found", "expected", "strings", "decoded", "untrusted_text",
    "first_bytes", "shadow",
})  # fmt: skip
"""Members that hold contents of memory in the records of every command."""
_BY_COMMAND = {
    "search": {"text"}, "memory": {"bytes", "value", "text"}, "managed": {"text"}, "struct": {"value", "meaning"},
    "disasm": {"bytes"},
}  # fmt: skip
_TITLES = frozenset({"Text", "Content", "Preview", "Found", "Expected", "Value", "Meaning", "First bytes", "Bytes"})
_TITLES_OF = {"search": _TITLES, "memory": _TITLES, "managed": {"Text"}, "struct": {"Value", "Meaning"},
              "disasm": {"Bytes"}, "modules": {"Text"}, "block": {"Text", "Content", "Value", "Meaning"},
              "blocks": {"Content"}, "virt-blocks": {"Content"}}  # fmt: skip
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|“[^”]*”")
_UNKNOWN = re.compile(r"<unknown> \[[^\]]*\]")
_UNKNOWN_CELL = re.compile(r"^<unknown> .+|(?<=first bytes) .+", re.DOTALL)
_HEX = re.compile(r"(?:\b[0-9a-fA-F]{2}\b[ \[\]|]{1,3}){3,}(?:[0-9a-fA-F]{2}\b)?.*", re.DOTALL)
_HOME = re.compile(r"(?i)((?:[a-z]:|\\|/)[\\/]?(?:users|home|documents and settings)[\\/])([^\\/\"']+)")


@dataclass(frozen=True)
class Redaction:
    """Removes contents from answers. `names`: of the user, the machine, the domain; `lines`: the command line."""

    names: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    def answer(self, answer: Answer) -> Answer:
        """The answer without contents."""
        lines = answer.lines
        return replace(
            answer,
            lines=lines and (lambda: (self.record(answer.command, record) for record in lines())),
            data=lambda: self._data(answer.command, answer.data()),
            records=lambda: (self.record(answer.command, record) for record in answer.records()),
            page=lambda: self.page(answer.command, answer.page()),
            gaps=tuple(map(self.text, answer.gaps)),
            notes=tuple(map(self.text, answer.notes)),
        )

    def record(self, command: str, record: Record) -> Record:
        """One record without contents."""
        hidden = _MEMBERS | _BY_COMMAND.get(command, set())
        out: Record = self._value(record, hidden, "")
        return out

    def text(self, text: str) -> str:
        """A line without quoted texts, hex digits of memory, and names of people."""
        for line in self.lines:
            text = text.replace(line, HIDDEN)
        for name in self.names:
            text = re.sub(re.escape(name), HIDDEN, text, flags=re.IGNORECASE)
        text = _HOME.sub(rf"\1{HIDDEN}", text)
        return _HEX.sub(HIDDEN, _QUOTED.sub(HIDDEN, _UNKNOWN.sub("<unknown>", text)))

    def tree(self, value: T) -> T:
        """A value, or records in records, with each text redacted and all else unchanged."""
        found: Any = value
        if is_dataclass(value) and not isinstance(value, type):
            found = replace(value, **{one.name: self.tree(getattr(value, one.name)) for one in fields(value)})
        elif type(value) is str:
            found = self._cell(str(value))
        elif isinstance(value, (list, tuple)):
            found = type(value)(map(self.tree, value))
        elif isinstance(value, dict):
            found = {name: self.tree(one) for name, one in value.items()}
        return cast("T", found)

    def page(self, command: str, items: Iterable[PageItem]) -> Iterator[PageItem]:
        """The items of a page without contents."""
        for item in items:
            if isinstance(item, Table):
                yield replace(item, columns=[self._column(command, column) for column in item.columns])
            elif isinstance(item, Lines):
                yield Lines([[(HIDDEN, "")]] if command == "memory" else [self._line(line) for line in item.lines])
            else:
                yield Sections([Section(one.label, [self._line(line) for line in one.lines]) for one in item.sections])

    def _data(self, command: str, data: Any) -> Any:
        if isinstance(data, dict):
            return self.record(command, data)
        return (self.record(command, record) for record in data)

    def _value(self, value: Any, hidden: frozenset[str] | set[str], name: str) -> Any:
        if isinstance(value, dict):
            if value.get("usage") == "<unknown>":
                hidden = {*hidden, "detail"}
            return {
                member: _blank(one) if member in hidden or _is_hex(member, one) else self._value(one, hidden, member)
                for member, one in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._value(one, hidden, name) for one in value]
        return self._cell(value) if isinstance(value, str) and not value.startswith("0x") else value

    def _cell(self, text: str) -> str:
        return self.text(_UNKNOWN_CELL.sub(_without_content, text))

    def _column(self, command: str, column: Any) -> Any:
        is_hidden = column.title in _TITLES_OF.get(command, ())
        cell: Callable[[Any], str] = column.text
        is_detail = column.title == "Detail"

        def shown(row: Any) -> str:
            """The cell without contents."""
            text = cell(row)
            if is_hidden or (is_detail and not text.startswith("#") and getattr(row, "usage", "") == "<unknown>"):
                return HIDDEN if text.strip("- ") else text
            return self._cell(text)

        return replace(column, text=shown)

    def _line(self, line: StyledLine) -> StyledLine:
        text_of_line = "".join(text for text, _ in line)
        redacted = self.text(text_of_line)
        if redacted == text_of_line:
            return line
        pieces = [(self.text(text), style) for text, style in line]
        return pieces if "".join(text for text, _ in pieces) == redacted else [(redacted, line[0][1] if line else "")]


def _without_content(match: re.Match[str]) -> str:
    return "<unknown>" if match[0].startswith("<unknown>") else f" {HIDDEN}"


def _blank(value: Any) -> Any:
    """The value that replaces a hidden one: of the same type, so that the record keeps its form."""
    return None if value is None or not isinstance(value, (str, list)) else HIDDEN if isinstance(value, str) else []


def _is_hex(name: str, value: Any) -> bool:
    """True for bytes of memory as hex digits; numbers of bytes are integers."""
    return name in ("bytes", "data", "value") and isinstance(value, str) and not value.startswith("0x")


def user_names(paths: Sequence[str]) -> tuple[str, ...]:
    """Names of users by the folders in paths; `Public` and the like are nobody's."""
    found = (match[2] for path in paths for match in _HOME.finditer(path))
    return tuple(dict.fromkeys(name for name in found if name.lower() not in ("public", "default", "all users")))
