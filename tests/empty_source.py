"""A dump that holds no memory."""

from __future__ import annotations


class EmptySource:
    """A file without bytes."""

    file_bytes = 0

    def read_at(self, offset: int, size: int) -> bytes:
        """No bytes."""
        return b""

    def view_at(self, offset: int, size: int) -> memoryview:
        """No bytes."""
        return memoryview(b"")

    def forget(self, offset: int, size: int) -> None:
        """Nothing to forget."""

    def expect(self, offset: int, size: int) -> None:
        """Nothing to read ahead."""
