"""The order of rows that --sort and --reverse ask for: by a field of the JSON record, numbers descending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from heapdump.errors import WrongUsage
from heapdump.render.view import Record

T = TypeVar("T")
_TITLES = {
    "size": ("bytes", "retained_bytes"), "blocks": ("count", "retained_blocks"), "retained": ("retained_bytes",),
}  # fmt: skip
"""Titles of columns → the fields that they show, where these have other names."""

_ASCENDING = frozenset({"id", "index", "level", "line", "offset", "to_offset", "number"})
"""Numbers that name something, or count from its start: they ascend."""


@dataclass(frozen=True, slots=True)
class Order:
    """A field as it was typed. `descends`: True or False by `:desc`, `:asc` or `-`; None where the values decide."""

    text: str
    descends: bool | None

    @property
    def field(self) -> str:
        """The field's name in JSON spelling."""
        return self.text.replace("-", "_").lower()

    def among(self, fields: Iterable[str]) -> str:
        """The field of that name, else of the column with this title, else the only field that begins with the text.

        Raises:
            WrongUsage: none, or several.
        """
        known = list(fields)
        if self.field in known:
            return self.field
        titled = [name for name in _TITLES.get(self.field, ()) if name in known]
        if titled:
            return titled[0]
        begins = [name for name in known if name.startswith(self.field)]
        if len(begins) != 1:
            raise WrongUsage(f"cannot sort by {self.text!r}; there are: {', '.join(begins or known)}")
        return begins[0]

    def is_descending(self, field: str, example: object) -> bool:
        """True where large values come first; `example`: a value of the field."""
        if self.descends is not None:
            return self.descends
        return isinstance(example, (int, float)) and not isinstance(example, bool) and field not in _ASCENDING


def parse_order(text: str) -> Order:
    """`size`, `-size`, `size:desc`, `size:asc`.

    Raises:
        WrongUsage: another word behind the colon.
    """
    name, colon, direction = text.partition(":")
    if colon and direction not in ("asc", "desc"):
        raise WrongUsage(f"--sort {text!r}: write {name}:asc or {name}:desc")
    if name.startswith("-") and not colon:
        return Order(name[1:], True)
    return Order(name.removeprefix("-"), direction == "desc" if colon else None)


def ordered(
    rows: Sequence[T], record: Callable[[T], Record], sort: str | None, *, is_reversed: bool, fields: Sequence[str] = ()
) -> list[T]:
    """The rows by a field of their records; what is not known (null) comes last either way.

    `fields`: those that exist where there is no row.

    Raises:
        WrongUsage: no such field, or one that has no order.
    """
    out = list(rows)
    if sort is None:
        return out[::-1] if is_reversed else out
    order = parse_order(sort)
    records = [record(row) for row in out]
    if not records:
        if fields:
            order.among(fields)
        return out
    lists = {field for one in records for field, value in one.items() if isinstance(value, (list, dict))}
    name = order.among(field for field in records[0] if field not in lists)
    keyed = [(one.get(name), row) for one, row in zip(records, out, strict=True)]
    known = [(_comparable(key), row) for key, row in keyed if key is not None]
    descends = order.is_descending(name, next((key for key, _ in keyed if key is not None), None))
    known.sort(key=lambda pair: pair[0], reverse=descends != is_reversed)
    return [row for _, row in known] + [row for key, row in keyed if key is None]


def _comparable(key: Any) -> Any:
    """Addresses and hex values sort as numbers, words without regard to case."""
    if isinstance(key, str):
        return int(key, 16) if key.startswith("0x") and " " not in key else key.lower()
    return key
