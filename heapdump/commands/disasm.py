"""`disasm ADDRESS`: the code at an address, aligned, with named call targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.addresses import place_of
from heapdump.commands.common.options import option
from heapdump.commands.common.pointees import STYLES, pointee_record, pointees_of
from heapdump.commands.common.request import Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.by_hand.listing import Line, Listing
    from heapdump.analyses.by_hand.place import FramePlace
    from heapdump.process.symbols.namer import Namer

_DEFAULT = 8


@option("--before", type=int, metavar="N", help=f"Instructions before the address.  [default: {_DEFAULT}]")
@option("--after", type=int, metavar="N", help=f"Instructions after it.  [default: {_DEFAULT}]")
@option("--function", "as_function", is_flag=True, help="The whole function that holds the address.")
@dump_command("disasm", takes_address=True)
def command(request: Request, address: str, before: int | None, after: int | None, as_function: bool) -> int:
    """Code at an address, as WinDbg's u, ub and uf.

    Operands in memory show their values, those of registers by --thread and --frame. Code that the dump lacks is read
    from --image-path.

    \b
    heapdump disasm crash.dmp rip
    heapdump disasm crash.dmp eip --frame 6 --before 12
    heapdump disasm crash.dmp ntdll!RtlAllocateHeap --function
    """
    from heapdump.analyses.by_hand.expressions import Expressions
    from heapdump.analyses.by_hand.listing import Lister, code_view

    request.refuse_sorting("disasm")
    if as_function and (before is not None or after is not None):
        raise WrongUsage("--function shows the whole function, --before and --after show a part")
    with request.open() as snapshot:
        namer = snapshot.namer(request.image_path, request.symbol_path)
        place = place_of(request, snapshot, namer)
        at = Expressions(place).value(address)
        lister = Lister(place, code_view(place, at), pointees_of(snapshot, namer).at)
        listing = (
            lister.function_at(at)
            if as_function
            else lister.around(at, _DEFAULT if before is None else before, _DEFAULT if after is None else after)
        )
        answer = Answer(
            "disasm",
            data=lambda: [_record(line) for line in listing.lines],
            records=lambda: (_record(line) for line in listing.lines),
            page=lambda: _page(place, namer, at, listing),
            gaps=_gaps(at, listing),
            nested={"operand": ("text", "address", "value")},
        )
        return request.emit(snapshot, answer)


def _gaps(at: int, listing: Listing) -> tuple[str, ...]:
    if listing.stops is not None:
        end = None if listing.function is None else listing.function.end
        why = "the end of the function is not known" if end is None else f"the function goes on up to {end:#x}"
        return (f"the listing stops at {listing.stops:#x}: {why}",)
    if listing.missing is None and any(line.is_current for line in listing.lines):
        return ()
    where = at if listing.missing is None else listing.missing
    return (f"the code at {where:#x} is not in the dump; --image-path DIR names the folder of the module's file",)


def _record(line: Line) -> Record:
    one, target, operand = line.instruction, line.target, line.operand
    return {
        "address": hex(one.address),
        "bytes": one.data.hex(),
        "text": one.text,
        "target": target.name if target else None,
        "is_current": line.is_current,
        "target_address": hex(target.address) if target and target.address is not None else None,
        "operand": None
        if operand is None
        else {
            "text": operand.text,
            "address": hex(operand.address),
            "value": None if operand.value is None else hex(operand.value),
            "points_to": pointee_record(operand.pointee),
        },
    }


def _page(place: FramePlace, namer: Namer, at: int, listing: Listing) -> Iterator[PageItem]:
    how = f", function from {listing.function.start:#x} on by {listing.function.words}" if listing.function else ""
    yield Lines([[(str(namer.name(at, 0)), "bold"), (f"  {at:#x}{how}; registers of {place.words}", "dim")]])
    yield Table(_COLUMNS, listing.lines, empty="no code there")


def _comment(line: Line) -> str:
    """The target, or the operand: `[ebp+0xc] = 0xc350`."""
    if line.target is not None:
        return line.target.name
    operand = line.operand
    if operand is None:
        return ""
    leads = f"  {operand.pointee.text}" if operand.pointee else ""
    if operand.value is not None:
        return f"{operand.text} = {operand.value:#x}{leads}"
    if operand.is_address:
        return f"{operand.text} is {operand.address:#x}{leads}"
    return f"{operand.text} = ??, {operand.address:#x} is not in the dump"


def _style(line: Line) -> str:
    if line.target is not None:
        return "green"
    return STYLES[line.operand.pointee.kind] if line.operand and line.operand.pointee else "cyan"


_COLUMNS: tuple[Column[Line], ...] = (
    Column("", lambda r: ">" if r.is_current else "", "> = the asked address", style="red"),
    Column("Address", lambda r: f"{r.instruction.address:#x}", "of the instruction", right=True),
    Column("Bytes", lambda r: r.instruction.data.hex(), "its bytes", rank=2, style="dim"),
    Column("Instruction", lambda r: r.instruction.text, "in Intel's order: target first", style=lambda r: "bold" if r.is_current else ""),
    Column("Meaning", _comment, "where a call or a jump leads; the value of the operand in memory in this frame", rank=1, flexible=24, wraps=True, style=_style),
)  # fmt: skip
