"""Records cut to a number of characters of JSON, with a word on everything that was cut."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

_LONGEST_TEXT = 400


@dataclass(frozen=True, slots=True)
class Cut:
    """A list that was cut.

    Attributes:
        at: its place in the answer: `data.groups`.
        total: number of its items.
        shown: number of items that are left.
    """

    at: str
    total: int
    shown: int


def characters(value: Any) -> int:
    """Length of the value as JSON."""
    return len(json.dumps(value, separators=(",", ":"), default=str))


def fitted(value: Any, budget: int) -> tuple[Any, list[Cut]]:
    """(the value within the budget, what was cut). The longest list is halved until it fits; long texts are cut."""
    value, cuts = _shortened(value), dict[str, Cut]()
    while characters(value) > budget:
        lists = [(characters(found), at, found) for at, found in _lists(value, "") if len(found) > 1]
        if not lists:
            break
        _, at, found = max(lists, key=lambda one: one[0])
        total = cuts[at].total if at in cuts else len(found)
        del found[len(found) // 2 :]
        cuts[at] = Cut(at, total, len(found))
    return value, list(cuts.values())


def first_that_fit(items: Sequence[Any], budget: int) -> list[Any]:
    """The first items that together fit into `budget` characters of JSON; at least one."""
    out: list[Any] = []
    used = 0
    for item in items:
        used += characters(item) + 1
        if out and used > budget:
            break
        out.append(item)
    return out


def _lists(value: Any, at: str) -> Iterator[tuple[str, list[Any]]]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _lists(one, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        yield at, value
        for one in value[:1]:
            yield from _lists(one, f"{at}[]")


def _shortened(value: Any) -> Any:
    """A copy with long texts cut; lists are the copy's own."""
    if isinstance(value, dict):
        return {name: _shortened(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(one) for one in value]
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        return f"{value[:_LONGEST_TEXT]}… ({len(value):,} characters)"
    return value
