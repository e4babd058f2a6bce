"""Work on many dumps through an executor: results as they come, each dump once, a lost worker costs one retry."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
_MOST_ATTEMPTS = 2


@dataclass(frozen=True, slots=True)
class Done:
    """A dump that was worked on. `result`: of the task; `error`: that it ended with, None for a result."""

    path: str
    result: Any
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The memory that may be used at a time.

    Attributes:
        need: path of a dump → bytes that work on it needs.
        room: bytes for all dumps that run at a time; None for no limit.
    """

    need: Callable[[str], int] = lambda path: 0
    room: int | None = None

    def allows(self, path: str, running: Iterable[str]) -> bool:
        """True where the needs of the dump and of those that run fit into `room`; True for a dump alone."""
        held = [self.need(one) for one in running]
        return not held or self.room is None or sum(held) + self.need(path) <= self.room


NO_PLAN = Plan()


@dataclass(slots=True)
class _Work:
    """The dumps that are left. `alone`: those whose worker was lost: they run one at a time.

    `waiting`: those that were not begun; `attempts`: dump → number of its attempts; `running`: future → its dump.
    """

    waiting: deque[str]
    plan: Plan
    alone: deque[str] = field(default_factory=deque)
    attempts: dict[str, int] = field(default_factory=dict)
    running: dict[Future[Any], str] = field(default_factory=dict)

    def next(self, most: int) -> str | None:
        """The next dump to begin with; None while others run that it must not disturb."""
        if self.waiting and len(self.running) < most and self.plan.allows(self.waiting[0], self.running.values()):
            return self.waiting.popleft()
        return self.alone.popleft() if self.alone and not self.waiting and not self.running else None


def run_all(
    task: Callable[[str], T],
    paths: Sequence[str],
    open_executor: Callable[[], Executor],
    most: int,
    plan: Plan = NO_PLAN,
) -> Iterator[Done]:
    """Carries out `task` for each path, at most `most` at a time and within the plan; results in the order they end in.

    `open_executor`: makes the executor, and another one when its workers are lost. A path whose worker is lost twice
    is done with that error.
    """
    work = _Work(deque(dict.fromkeys(paths)), plan)
    executor = open_executor()
    try:
        while work.waiting or work.alone or work.running:
            is_lost = _begin(work, executor, task, most)
            for future in wait(work.running, return_when=FIRST_COMPLETED).done if work.running else ():
                path, error = work.running.pop(future), future.exception()
                if isinstance(error, BrokenExecutor):
                    is_lost = True
                    if work.attempts[path] < _MOST_ATTEMPTS:
                        work.alone.append(path)
                        continue
                yield Done(path, None if error else future.result(), error)
            if is_lost:
                work.alone.extend(work.running.values())
                _end(work, executor)
                executor = open_executor()
    finally:
        _end(work, executor)


def _end(work: _Work, executor: Executor) -> None:
    """Gives up what runs. `cancel_futures` is not every executor's."""
    for future in work.running:
        future.cancel()
    work.running.clear()
    executor.shutdown(wait=False)


def _begin(work: _Work, executor: Executor, task: Callable[[str], T], most: int) -> bool:
    """Hands out as many paths as may run; True where the executor has lost its workers meanwhile."""
    while (path := work.next(most)) is not None:
        try:
            work.running[executor.submit(task, path)] = path
        except BrokenExecutor:
            work.alone.append(path)
            return True
        work.attempts[path] = work.attempts.get(path, 0) + 1
    return False
