"""What some tests need of the system. Where it is missing (Windows), the test is skipped with the reason."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from functools import cache
from pathlib import Path

import pytest

from heapdump import system

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
HANG_UP = getattr(signal, "SIGHUP", signal.SIGTERM)

needs_signals = pytest.mark.skipif(system.IS_WINDOWS, reason="Windows ends a process without asking it")
needs_shell = pytest.mark.skipif(system.IS_WINDOWS or shutil.which("sh") is None, reason="there is no sh")
needs_modes = pytest.mark.skipif(system.IS_WINDOWS, reason="permissions of Windows are no numbers")
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes in folders")


@cache
def _has_links() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            (Path(folder) / "link").symlink_to("elsewhere")
        except (OSError, NotImplementedError):
            return False
    return True


needs_links = pytest.mark.skipif(not _has_links(), reason="links need a privilege")


def linked(place: Path, target: Path) -> None:
    """The file under another name: a link, or a copy where there are none."""
    if _has_links():
        place.symlink_to(target)
    else:
        shutil.copy(target, place)
