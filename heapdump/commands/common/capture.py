"""How to capture a dump that answers more, as lines whose commands can be pasted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import COMMAND, StyledLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from heapdump.analyses.memory.capabilities import Capability


def capture_lines(questions: Iterable[Capability]) -> list[StyledLine]:
    """The advice of the questions, each line once: `about 12.3 MB: procdump -mc 1b01 app.exe`."""
    lines = (tuple(line) for question in questions for line in _lines(question))
    return list(dict.fromkeys(lines))


def most_captures(questions: Sequence[Capability]) -> list[StyledLine]:
    """The advice for one dump that answers all of the questions: the largest capture, and what must come before it."""
    largest = max((one for one in questions if one.capture), key=_size, default=None)
    return capture_lines([*(one for one in questions if one.hint), *([largest] if largest else [])])


def _size(question: Capability) -> tuple[int, bool]:
    size = question.capture.estimated_bytes if question.capture else None
    return (1 << 64 if size is None else size, bool(question.before))


def _lines(question: Capability) -> Iterator[StyledLine]:
    if question.hint:
        yield (((question.hint, "dim"),))
    capture = question.capture
    if capture is None:
        return
    size = "" if capture.estimated_bytes is None else f"about {text.short_size(capture.estimated_bytes)}: "
    if question.before:
        yield (("first: ", "dim"), (question.before, COMMAND))
        size = f"restart, then {size}"
    yield ((size, "dim"), (capture.command, COMMAND))
