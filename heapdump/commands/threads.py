"""`threads`: the threads of the process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heapdump.commands.common.locks import ThreadLocks
from heapdump.commands.common.options import option
from heapdump.commands.common.pointees import POINTEE_MEMBERS, pointees_of
from heapdump.commands.common.request import Arguments, Request, dump_command
from heapdump.commands.common.thread_registers import ThreadRegisters
from heapdump.commands.common.thread_stacks import (
    GUESSED,
    StackPages,
    has_guesses,
    stack_frame_record,
    stack_gaps,
)
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from heapdump.process.model import Process, Stack, Thread
    from heapdump.process.symbols.namer import Namer


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


def _record(thread: Thread, locks: ThreadLocks) -> Record:
    """TEB and stack of the dump's own processor; the 32-bit ones of a WOW64 thread beside them."""
    first = thread.stacks[0] if thread.stacks else None
    other = thread.stacks[1] if len(thread.stacks) > 1 else None
    return {
        "id": thread.id,
        "index": thread.index,
        "name": thread.name,
        "teb": _hex(thread.tebs[0].address if thread.tebs else None),
        "stack_base": _hex(first.base if first else None),
        "stack_limit": _hex(first.limit if first else None),
        "stack_reserved": _hex(first.reserved if first else None),
        "ip": _hex(thread.ip),
        "sp": _hex(thread.sp),
        "start_address": _hex(thread.start_address),
        "teb32": _hex(thread.tebs[1].address if len(thread.tebs) > 1 else None),
        "stack32_base": _hex(other.base if other else None),
        "stack32_limit": _hex(other.limit if other else None),
        "ip32": _hex(thread.ip32),
        "sp32": _hex(thread.sp32),
        "waits_for": locks.waits_for(thread),
        "holds": locks.holds(thread),
    }


def columns(process: Process, namer: Namer, locks: ThreadLocks) -> tuple[Column[Thread], ...]:
    """The table's columns; `namer` names instruction pointers.

    Locks are shown where a thread holds one, or waits for one.
    """

    def where(address: int | None) -> str:
        """`module!symbol+0x8b`, or a dash."""
        return "-" if address is None else str(namer.name(address, 0))

    lock: Column[Thread] = Column(
        "Lock", locks.words, "heaps whose lock it holds, and the heap whose lock it waits for", style="red"
    )
    crashed = process.exception.thread_id if process.exception else None
    narrow: tuple[Column[Thread], ...] = (
        Column(
            "IP32", lambda t: where(t.ip32), "32-bit instruction pointer: TEB64.TlsSlots[1] holds the WOW64 CONTEXT"
        ),
        Column(
            "SP32", lambda t: text.address(t.sp32), "32-bit stack pointer, from the same CONTEXT", right=True, rank=4
        ),
    )
    return (
        Column("", lambda t: "*" if t.id == crashed else "", "* = the thread of the exception", style="red"),
        Column("#", lambda t: f"~{t.index}", "place in the dump's thread list, as ~ numbers them", right=True, rank=1),
        Column("Id", lambda t: f"{t.id:#x}", "thread id", right=True),
        Column("IP", lambda t: where(t.ip), "instruction pointer of its CONTEXT, as module!symbol+offset", style="green"),
        Column("SP", lambda t: text.address(t.sp), "stack pointer of its CONTEXT", right=True, rank=4),
        *(narrow if any(thread.ip32 is not None for thread in process.threads) else ()),
        Column("Stack", lambda t: _range(t.stacks), "[limit, base) of NtTib; of the dumped stack where no TEB is in the dump", rank=3),
        *((lock,) if any(locks.words(thread) for thread in process.threads) else ()),
        size_column("Depth", lambda t: _depth(t), "bytes between stack pointer and base", rank=2),
        Column("TEB", lambda t: text.address(t.tebs[0].address if t.tebs else None), "thread environment block", right=True, rank=5),
        Column("Name", lambda t: t.name or "", "SetThreadDescription's name (ThreadNames stream)", flexible=16, wraps=True),
    )  # fmt: skip


def _range(stacks: Sequence[Stack]) -> str:
    return f"{stacks[0].limit:#x}..{stacks[0].base:#x}" if stacks else "-"


def _depth(thread: Thread) -> int | None:
    if not thread.stacks or thread.sp is None or not thread.sp <= thread.stacks[0].base:
        return None
    return thread.stacks[0].base - thread.sp


def split_arguments(arguments: tuple[str, ...]) -> dict[str, Any]:
    """`dump` and `thread_id` of [DUMP] [ID|~INDEX]; a lone argument is the thread unless a file has that name.

    Raises:
        WrongUsage: more than two arguments.
    """
    if len(arguments) > 2:
        raise WrongUsage(f"one dump and one thread, not {len(arguments)} arguments")
    if len(arguments) == 1 and not is_thread_name(arguments[0]):
        return {"dump": Path(arguments[0]), "thread_id": None}
    dump = Path(arguments[0]) if len(arguments) == 2 else None
    return {"dump": dump, "thread_id": arguments[-1] if arguments else None}


def is_thread_name(word: str) -> bool:
    """True for `~2`, `0x288c`, `10380`, where no file has that name."""
    return not Path(word).is_file() and re.fullmatch(r"~\d+|0n\d+|(0x)?[0-9a-f]+", word.lower()) is not None


@option("--frames", is_flag=True, help="The call stack of each thread; in csv a row for each frame.")
@option(
    "--registers", is_flag=True, help="The registers of each thread, and what they point to; in csv a row for each."
)
@option(
    "--args",
    is_flag=True,
    help="With --frames: arguments. x86: three words, as kv; x64: home slots that the function filled.",
)
@dump_command("threads", arguments=Arguments("[DUMP] [ID|~INDEX]", split_arguments))
def command(request: Request, thread_id: str | None, frames: bool, registers: bool, args: bool) -> int:
    """Every thread, or one: its stack, frames, registers.

    \b
    heapdump threads crash.dmp
    heapdump threads crash.dmp --frames
    heapdump threads crash.dmp ~2 --args --registers      as ~2 kv and ~2 r
    """
    from heapdump.analyses.by_hand.place import find_thread
    from heapdump.analyses.threads import all_stacks

    frames = frames or args
    with request.open() as snapshot:
        process, locks = snapshot.process, ThreadLocks(snapshot)
        namer = snapshot.namer(request.image_path, request.symbol_path)
        wanted = process.threads if thread_id is None else (find_thread(process, thread_id),)
        found = all_stacks(process, wanted, namer) if frames else {}
        values = ThreadRegisters(process, namer, pointees_of(snapshot, namer))

        def record(thread: Thread) -> Record:
            """The JSON record of a thread, with its frames and registers where they were asked for."""
            out = _record(thread, locks)
            if frames:
                stack_frames = (one for stack in found[thread.index] for one in stack.frames)
                out["frames"] = [stack_frame_record(one, args=args) for one in stack_frames]
            return out | ({"registers": values.records(thread)} if registers else {})

        rows = request.rows(wanted, lambda thread: _record(thread, locks))
        shown, hidden = request.shown(rows)
        empty = "no thread is known" if snapshot.dump.thread_notes else "the dump has no thread list"
        missing = snapshot.dump.thread_notes if rows or snapshot.dump.thread_notes else (empty,)

        def page() -> Iterator[PageItem]:
            """The table; in its place the frames and registers that were asked for, below a heading of each thread."""
            if not (frames or registers) or not shown:
                yield Table(columns(process, namer, locks), shown, hidden=hidden, empty=empty)
                return
            pages = StackPages.of(process, found, shown, args=args)
            for thread in shown:
                if frames:
                    yield from pages.page(thread, locks.words(thread))
                if registers:
                    yield from values.page(thread, "" if frames else locks.words(thread))
            if has_guesses(found):
                yield Lines([[(GUESSED, "dim")]])
            if hidden:
                yield Lines([[(f"… {text.plural(hidden, 'more thread')} (--all, or --limit N)", "dim")]])

        answer = Answer(
            "threads",
            data=lambda: [record(thread) for thread in rows],
            records=lambda: (record(thread) for thread in rows),
            page=page,
            gaps=(*missing, *stack_gaps(found)),
            nested={"points_to": POINTEE_MEMBERS} if registers else {},
            question=" ".join(["threads", *(["--frames"] if frames else []), *(["--registers"] if registers else [])]),
            lines=(lambda: _csv_rows(map(record, rows))) if frames or registers else None,
        )
        return request.emit(snapshot, answer)


def _csv_rows(records: Iterable[Record]) -> Iterator[Record]:
    """The rows of csv: one for each frame, numbered, and one for each register; an empty one where none is known."""
    for record in records:
        thread = {name: record[name] for name in ("id", "index", "name")}
        frames = [{"frame": number} | found for number, found in enumerate(record.get("frames", ()))]
        registers = [
            {"register": one["name"], "value": one["value"], "points_to": one["points_to"]}
            for one in record.get("registers", ())
        ]
        yield from (thread | row for row in (*frames, *registers) or ({},))
