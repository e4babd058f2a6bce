"""Signals of programs that tests start."""

from __future__ import annotations

import signal

from tests.posix import HANG_UP


def as_in_a_terminal() -> None:
    """Takes back what the runner of the tests ignores (`nohup`, a job in the background): children would inherit it."""
    for number in (signal.SIGINT, signal.SIGTERM, HANG_UP):
        signal.signal(number, signal.SIG_DFL)
