"""The letters of a decorated name, read from left to right with limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST, _DEEPEST = 1 << 16, 64


class NoNameError(ValueError):
    """The text is no decorated name, or has a form that is not known."""


class Cursor:
    """A place in a decorated name.

    Raises:
        NoNameError: by every method, where the text ends too early or has another form.
    """

    def __init__(self, text: str) -> None:
        """Begins at the first letter."""
        self._text, self.at, self._depth, self._written = text, 0, 0, 0

    @property
    def is_done(self) -> bool:
        """True at the end of the text."""
        return self.at == len(self._text)

    @contextmanager
    def deeper(self) -> Iterator[None]:
        """A part within a part; 64 of them at most."""
        self._depth += 1
        if self._depth > _DEEPEST:
            raise NoNameError
        yield
        self._depth -= 1

    def bounded(self, text: str) -> str:
        """The text, unless all that was put together is longer than a name may be."""
        self._written += len(text)
        if self._written > _LONGEST:
            raise NoNameError
        return text

    def take(self, *words: str) -> str:
        """The first of the words that comes next, behind which reading goes on; "" for none."""
        found = next((word for word in words if self._text.startswith(word, self.at)), "")
        self.at += len(found)
        return found

    def letter(self) -> str:
        """The next letter."""
        if self.is_done:
            raise NoNameError
        self.at += 1
        return self._text[self.at - 1]

    def peek(self) -> str:
        """The next letter, which stays the next; "" at the end."""
        return self._text[self.at : self.at + 1]

    def plain(self) -> str:
        """The text up to the next `@`, which is left out."""
        end = self._text.find("@", self.at)
        if end < 0:
            raise NoNameError
        found, self.at = self._text[self.at : end], end + 1
        return found

    def number(self) -> int:
        """A digit stands for itself + 1, else hexadecimal digits `A` to `P` up to an `@`; `?` before it: negative."""
        sign = -1 if self.take("?") else 1
        if self.peek().isdigit():
            return sign * (int(self.letter()) + 1)
        value = 0
        while not self.take("@"):
            digit = ord(self.letter()) - ord("A")
            if not 0 <= digit < 16 or value >> 64:
                raise NoNameError
            value = 16 * value + digit
        return sign * value
