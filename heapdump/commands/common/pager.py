"""A pager for pages that are longer than the terminal: $HEAPDUMP_PAGER, else $PAGER, else `less`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from typing import IO


def pager_command(stream: IO[str], *, is_wanted: bool) -> list[str]:
    """The command line of the pager; empty where the output is no terminal, or none is wanted (`HEAPDUMP_PAGER=`)."""
    named = os.environ.get("HEAPDUMP_PAGER", os.environ.get("PAGER"))
    if not is_wanted or named in ("", "cat") or not stream.isatty() or not sys.stdin.isatty():
        return []
    words = shlex.split(named, posix=os.name != "nt") if named else ["more" if os.name == "nt" else "less"]
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
        subprocess.run(command, input=text.encode("utf-8", "replace"), env=variables, check=False)
    except OSError:
        stream.write(text)
    stream.flush()
