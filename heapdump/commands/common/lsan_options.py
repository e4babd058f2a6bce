"""LSAN_OPTIONS: the flags of LeakSanitizer that the user's environment sets, for `leaks --lsan-compat`.

Flags are `name=value` with `:`, `,` or white space between them, and a value may stand in quotes (LLVM,
sanitizer_flag_parser.cpp). The variable is read from the environment of heapdump, never from that of the dump.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from heapdump.errors import WrongUsage

_FLAG = re.compile(r"""([\w.]+)=("[^"]*"|'[^']*'|[^:,\s]*)""")
_WORDS = {"1": True, "yes": True, "true": True, "0": False, "no": False, "false": False}


def with_lsan_options(values: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """The values of the command's options, with those of LSAN_OPTIONS in the place of defaults; typed ones win.

    `say` gets a line with the flags that count.

    Raises:
        WrongUsage: a value means nothing, or the file of suppressions does not exist.
    """
    context, used = click.get_current_context(), {}
    for flag, text in _FLAG.findall(os.environ.get("LSAN_OPTIONS", "")):
        read = _READERS.get(flag)
        if read is not None and context.get_parameter_source(flag) is not ParameterSource.COMMANDLINE:
            used[flag] = read(flag, text.strip("\"'"))
    if used:
        say(f"LSAN_OPTIONS: {', '.join(f'{flag}={_text(value)}' for flag, value in used.items())}")
    return values | used


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _number(flag: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or (flag == "exitcode" and int(text) > 255):
        raise WrongUsage(f"LSAN_OPTIONS: {flag}={text} is no number that it can have")
    return int(text)


def _switch(flag: str, text: str) -> bool:
    if text.lower() not in _WORDS:
        raise WrongUsage(f"LSAN_OPTIONS: {flag}={text}: write 1 or 0")
    return _WORDS[text.lower()]


def _file(flag: str, text: str) -> Path | None:
    if text and not Path(text).is_file():
        raise WrongUsage(f"LSAN_OPTIONS: {flag}={text}: there is no such file")
    return Path(text) if text else None


_READERS: dict[str, Callable[[str, str], Any]] = {
    "suppressions": _file, "exitcode": _number, "max_leaks": _number, "report_objects": _switch,
    "use_unaligned": _switch, "print_suppressions": _switch,
}  # fmt: skip
"""The flags that heapdump has as options, and what reads their values; others are those of a running program."""
