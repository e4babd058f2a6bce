"""A pager for pages that are longer than the terminal: $HEAPDUMP_PAGER, else $PAGER, else `less`."""

from __future__ import annotations

import codecs
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import IO

from heapdump import system

_WINDOWS_PAGER = "more"
PLAIN = "heapdump.plain"
"""Error handler of streams: plain characters for those that an encoding does not have."""


def pager_command(stream: IO[str], *, is_wanted: bool) -> list[str]:
    """The command line of the pager; empty where the output is no terminal, or none is wanted (`HEAPDUMP_PAGER=`)."""
    named = os.environ.get("HEAPDUMP_PAGER", os.environ.get("PAGER"))
    if not is_wanted or named in ("", "cat") or not stream.isatty() or not sys.stdin.isatty():
        return []
    words = (
        shlex.split(named, posix=not system.IS_WINDOWS) if named else [_WINDOWS_PAGER if system.IS_WINDOWS else "less"]
    )
    return words if words and shutil.which(words[0]) else []


def page(pieces: Iterable[str], stream: IO[str], command: list[str]) -> None:
    """Writes the text, through the pager where it is longer than the terminal."""
    text = "".join(pieces)
    if not command or text.count("\n") < shutil.get_terminal_size().lines:
        stream.write(text)
        stream.flush()
        return
    variables = {"LESS": "FRX", "LESSCHARSET": "utf-8"} | os.environ
    try:
        encoding = system.pager_encoding() if command == [_WINDOWS_PAGER] else "utf-8"
        subprocess.run(command, input=text.encode(encoding, _errors()), env=variables, check=False)
    except OSError:
        stream.write(text)
    stream.flush()


def _errors() -> str:
    """The error handler that has plain characters, where `cli` registered it."""
    try:
        codecs.lookup_error(PLAIN)
    except LookupError:
        return "replace"
    return PLAIN
