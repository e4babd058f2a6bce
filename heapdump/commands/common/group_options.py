"""Options of commands that group blocks, as values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from heapdump.errors import WrongUsage

if TYPE_CHECKING:
    from heapdump.analyses.allocated.suppressions import Suppressions

_MOST_RULE_BYTES = 16 << 20
"""Bytes of a file of suppressions."""


def regex(option: str, pattern: str | None) -> re.Pattern[str] | None:
    """The pattern of an option; None where the option is not given.

    Raises:
        WrongUsage: it is no regular expression.
    """
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise WrongUsage(f"{option} {pattern!r} is no regular expression: {error}") from error


def read_suppressions(path: Path | None) -> Suppressions:
    """The rules of a file; none without one.

    Raises:
        WrongUsage: a line is no rule; the file cannot be read, or is larger than rules are.
    """
    from heapdump.analyses.allocated.suppressions import Suppressions, parse

    if path is None:
        return Suppressions()
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_RULE_BYTES + 1)
    except OSError as error:
        raise WrongUsage(f"--suppressions: cannot read {path}: {error.strerror or error}") from error
    if len(data) > _MOST_RULE_BYTES:  # a device has no end
        raise WrongUsage(f"--suppressions: {path} has more than {_MOST_RULE_BYTES >> 20} MB: that is no list of rules")
    encoding = (
        "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    )  # as Notepad and PowerShell write them
    return parse(data.decode(encoding, errors="replace").splitlines())
