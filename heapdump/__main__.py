"""`python -m heapdump`, and the start of the installed command: Ctrl-C is one line even while modules are loaded."""

from __future__ import annotations

import contextlib
import os
import sys


def main() -> None:
    """Runs the command line and exits."""
    try:
        from heapdump.cli import main as run

        run()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            os.write(2, b"heapdump: error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
