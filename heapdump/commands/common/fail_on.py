"""`diff --fail-on`: limits of growth, for a build that must not grow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.errors import WrongUsage
from heapdump.render import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.compare.difference import Difference

Limits = dict[str, int]
"""Name of a limit (`growth`, `group`, `private`) → bytes by which it may grow."""

_NAMES = ("growth", "group", "private")


def parse_limits(texts: Sequence[str]) -> Limits:
    """`growth=10M` and the like; of one name given twice the last counts.

    Raises:
        WrongUsage: a name that is none, or no size.
    """
    out: Limits = {}
    for one in texts:
        name, equals, size = one.partition("=")
        if name not in _NAMES or not equals:
            raise WrongUsage(f"--fail-on {one!r}: write growth=10M, group=1M or private=100M")
        out[name] = text.parse_size(size)
    return out


def exceeded(difference: Difference, limits: Limits) -> list[str]:
    """A line for each limit that is exceeded."""
    return [line for name, most in limits.items() for line in _lines(difference, name, most)]


def _lines(difference: Difference, name: str, most: int) -> Iterator[str]:
    if name == "group":
        for group in difference.groups:
            if group.delta_bytes > most:
                yield f"grew by {text.size(group.delta_bytes)}, more than {text.size(most)}: {group.label}"
        return
    if name == "private":
        grown = next(row.delta for row in difference.counters if row.name == "private_bytes")
        what = "private memory"
    else:
        grown, what = difference.reconciliation.busy_delta, "busy memory"
    if grown is not None and grown > most:
        yield f"{what} grew by {text.size(grown)}, more than {text.size(most)}"
