"""Encodings of the standard streams: UTF-8 to files and pipes, plain characters on a terminal that has no others."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from pathlib import Path

from heapdump.commands.common.pager import PLAIN

_PLAIN = {
    "→": "->", "←": "<-", "•": "*", "…": "...", "×": "x", "–": "-", "—": "-", "±": "+-", "≥": ">=", "≤": "<=",
    "’": "'", "“": '"', "”": '"', "·": ".", "█": "#", "▉": "#", "▊": "#", "▋": "#", "▌": "#", "▍": "|", "▎": "|",
    "▏": "|", "░": ".", "▒": ":", "▓": "#", "│": "|", "├": "|", "└": "`", "─": "-", "▲": "^", "▼": "v", "✓": "+",
    "✗": "x", "§": "section ", "Σ": "sum",
}  # fmt: skip
"""Character of our pages → the plain text that replaces it."""


class _Diagnostics(io.TextIOWrapper):
    """The standard error stream. Where it is closed or full, lines are lost: there is nobody to complain to."""

    def write(self, text: str) -> int:
        """Writes the text; nothing where the stream is closed or full. The number of its characters."""
        with contextlib.suppress(OSError, ValueError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream; nothing where it is closed or full."""
        with contextlib.suppress(OSError, ValueError):
            super().flush()


def open_standard_streams() -> None:
    """Makes standard output and error ready for every character; the latter never fails for want of a reader."""
    if sys.stdout is None:  # started with a closed stream (`>&-`): nobody reads
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # open to the end
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    codecs.register_error(PLAIN, plain)
    if isinstance(sys.stdout, io.TextIOWrapper):
        encoding, errors = _encoding(sys.stdout)
        sys.stdout.reconfigure(encoding=encoding, errors=errors)
    if isinstance(sys.stderr, io.TextIOWrapper):
        encoding, errors = _encoding(sys.stderr)
        sys.stderr = _Diagnostics(sys.stderr.detach(), encoding=encoding, errors=errors, line_buffering=True)


def _encoding(stream: io.TextIOWrapper) -> tuple[str, str]:
    """(encoding, error handler): that of a terminal, with plain characters for those it lacks; else UTF-8."""
    return (stream.encoding, PLAIN) if stream.isatty() else ("utf-8", "backslashreplace")


def plain(error: UnicodeError) -> tuple[str | bytes, int]:
    """Plain characters for those that an encoding does not have; `\\u1234` for characters that are not ours."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wanted = error.object[error.start : error.end]
    return "".join(_PLAIN.get(one) or ascii(one)[1:-1] for one in wanted), error.end
