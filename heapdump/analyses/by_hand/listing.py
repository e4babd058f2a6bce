"""Code as a listing: instructions around an address, named call targets, operands with the values in a frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from heapdump.analyses.by_hand.code import Code, Function
from heapdump.analyses.by_hand.place import FramePlace
from heapdump.analyses.by_hand.pointees import Pointee
from heapdump.errors import WrongUsage
from heapdump.process.model import View
from heapdump.process.stacks.disassembly import Instruction, MemoryOperand

MOST_INSTRUCTIONS = 10_000
_STABLE = ("ebp", "rbp", "rsp")
"""Registers that keep their value between a function's prologue and epilogue; rsp on x64 only."""

_NEAR = 256
"""Bytes between the place's instruction and another one of the same function, where nothing says where it begins."""

_PROLOGUE = 16
"""Instructions at the start of a function in which its frame is set up."""

_FRAMES = ("sub rsp,", "mov ebp, esp", "mov rbp, rsp", "lea rbp,")
_IP = ("rip", "eip")
_SEGMENTS = ("fs", "gs")


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a call or a jump. `address`: None where the dump does not tell it; `name`: for a person."""

    address: int | None
    name: str


@dataclass(frozen=True, slots=True)
class OperandValue:
    """An operand in memory.

    Attributes:
        text: the operand as the instruction has it.
        address: its address.
        value: number that lies there; None where the dump does not hold it.
        pointee: the thing that the value, or the address where `is_address`, points to; None for none.
        is_address: True where the instruction takes the address alone, or more bytes than a number has.
    """

    text: str
    address: int
    value: int | None
    pointee: Pointee | None
    is_address: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a listing.

    Attributes:
        instruction: the instruction.
        is_current: True for the instruction that holds the asked address.
        target: target of a call or a jump; None for others.
        operand: operand in memory; None where its address is not known.
    """

    instruction: Instruction
    is_current: bool
    target: Target | None
    operand: OperandValue | None


@dataclass(frozen=True, slots=True)
class Listing:
    """Instructions around an address.

    Attributes:
        lines: the instructions, ascending.
        function: the function; None where its start is not known.
        missing: first address behind them that neither the dump nor an image file holds; None where they end for
            another reason.
        stops: of a function: address at which the listing ends before it does, or without its end known; else None.
    """

    lines: tuple[Line, ...]
    function: Function | None
    missing: int | None
    stops: int | None = None


class Lister:
    """Makes listings of one view with the registers of one place."""

    def __init__(self, place: FramePlace, view: View, pointees: Callable[[int], Pointee | None]) -> None:
        """`view`: the one that the code belongs to."""
        self._place, self._view, self._pointees = place, view, pointees
        self._namer = place.namer
        self._body = cache(self._prologue_end)
        self._code = Code(place.process, view, place.namer)

    def around(self, address: int, before: int, after: int) -> Listing:
        """`before` instructions that end at an address, the one there, and `after` behind it.

        Raises:
            WrongUsage: more than `MOST_INSTRUCTIONS` before or after.
        """
        if not (0 <= before <= MOST_INSTRUCTIONS and 0 <= after <= MOST_INSTRUCTIONS):
            raise WrongUsage(f"--before and --after are from 0 to {MOST_INSTRUCTIONS:,}")
        function = self._code.function(address)
        run = [*self._code.before(address, before, function), *self._code.after(address, after + 1)]
        return self._listing(run, address, function, after)

    def function_at(self, address: int) -> Listing:
        """All instructions of the function that holds an address.

        Raises:
            WrongUsage: its start is not known.
        """
        function = self._code.function(address)
        if function is None:
            raise WrongUsage(f"no function is known at {address:#x}; --before N and --after N show what is around it")
        body = self._code.all_of(function)
        lines = tuple(self._line(one, address, function) for one in body.run)
        return Listing(lines, function, body.missing, body.stops)

    def _listing(self, run: list[Instruction], address: int, function: Function | None, after: int) -> Listing:
        behind = [one for one in run if one.address >= address]
        missing = None
        if len(behind) <= after and not self._code.from_address(end := run[-1].end if run else address, 1):
            missing = end
        return Listing(tuple(self._line(one, address, function) for one in run), function, missing)

    def _line(self, one: Instruction, address: int, function: Function | None) -> Line:
        is_here = one.address == address
        return Line(one, is_here, self._target(one), self._operand(one, function))

    def _target(self, one: Instruction) -> Target | None:
        """The named target of a call or a jump; of a jump inside the function the address alone says it."""
        if not (one.is_call or one.is_jump):
            return None
        if one.target is not None:
            return Target(one.target, self._named(one.target))
        slot = self._fixed(one)
        if slot is None:
            return None
        imported = self._namer.import_at(slot)
        found = self._view.space.try_pointer(slot)
        if found is None:
            return Target(None, f"{imported} (import; its slot is not in the dump)") if imported else None
        name = str(self._namer.name(found, 0))
        if imported and "!" not in name:
            name = f"{name} ({imported})"
        return Target(found, name)

    def _named(self, target: int) -> str:
        """The name of a target; a thunk that jumps on is followed once."""
        name = str(self._namer.name(target, 0))
        if "!" in name:
            return name
        first = next(iter(self._code.after(target, 1)), None)
        if first is None or not first.is_jump or not first.text.startswith("jmp"):
            return name
        slot = self._fixed(first)
        beyond = first.target if slot is None else self._view.space.try_pointer(slot)
        if beyond is None:
            imported = self._namer.import_at(slot) if slot is not None else None
            return f"{name} → {imported}" if imported else name
        return f"{name} → {self._namer.name(beyond, 0)}"

    def _fixed(self, one: Instruction) -> int | None:
        """The address of an operand that no register but the instruction pointer decides."""
        memory = one.memory
        if memory is None or memory.index or memory.segment in _SEGMENTS or memory.base not in ("", *_IP):
            return None
        return (one.end if memory.base else 0) + memory.displacement & self._mask

    @property
    def _mask(self) -> int:
        return (1 << 8 * self._view.pointer_bytes) - 1

    def _operand(self, one: Instruction, function: Function | None) -> OperandValue | None:
        """The value of an operand in memory, where the registers that it takes are known at this instruction."""
        memory = one.memory
        if memory is None or memory.segment in _SEGMENTS or one.text.startswith("nop"):
            return None
        if self._fixed(one) is not None and (one.is_call or one.is_jump):
            return None  # its target says it
        address = self._fixed(one) if memory.base in ("", *_IP) else self._by_registers(memory, one, function)
        if address is None:
            return None
        size = memory.size if memory.size in (1, 2, 4, 8) else 0
        value = self._view.space.try_integer(address, size) if size else None
        leads = self._pointees(value if value is not None else address) if self._leads(memory, value) else None
        return OperandValue(str(memory), address, value, leads, is_address=not size)

    def _leads(self, memory: MemoryOperand, value: int | None) -> bool:
        """True for an address alone, and for a value as wide as a pointer."""
        return memory.size == 0 or (value is not None and memory.size == self._view.pointer_bytes)

    def _by_registers(self, memory: MemoryOperand, one: Instruction, function: Function | None) -> int | None:
        """The address by the registers of the place: at its own instruction all, in its function stable ones."""
        ip = next((self._place.registers[name] for name in _IP if name in self._place.registers), None)
        names = [name for name in (memory.base, memory.index) if name]
        if ip is None or not self._is_same_function(ip, one, function):
            return None
        if one.address != ip and not self._are_stable(names, one, function):
            return None
        values = [self._place.register(name) for name in names]
        if any(value is None for value in values):
            return None
        known = dict(zip(names, values, strict=True))
        base, index = known.get(memory.base) or 0, known.get(memory.index) or 0
        return base + index * memory.scale + memory.displacement & self._mask

    def _are_stable(self, names: list[str], one: Instruction, function: Function | None) -> bool:
        """True for registers that have the same value from the prologue on, and an instruction behind it."""
        if not all(name in _STABLE for name in names):
            return False
        return function is None or one.address >= self._body(function.start)

    def _prologue_end(self, start: int) -> int:
        """Behind the last instruction of a function's first ones that sets up its frame."""
        first = self._code.after(start, _PROLOGUE)
        return max((one.end for one in first if one.text.startswith(_FRAMES)), default=start)

    def _is_same_function(self, ip: int, one: Instruction, function: Function | None) -> bool:
        """True where the place's instruction is in the listed function; without a known function where it is near."""
        if self._place.view.arch != self._view.arch:
            return False
        own = self._code.function(ip)
        if function is not None and own is not None:
            return own.start == function.start
        return abs(ip - one.address) < _NEAR


def code_view(place: FramePlace, address: int) -> View:
    """The view that code at an address belongs to: by the image there, by the address, else that of the place."""
    views = place.process.views
    module = place.process.module_map.at(address)
    image = place.namer.image(module) if module else None
    is_wide = address >> 32 > 0 or (image is not None and image.is_x64)
    if not is_wide and image is None:
        return place.view
    return next((view for view in views if (view.arch == "x64") == is_wide), place.view)
