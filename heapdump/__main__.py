"""`python -m heapdump`."""

from __future__ import annotations

from heapdump.cli import main

if __name__ == "__main__":
    main()
