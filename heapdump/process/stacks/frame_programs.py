"""The caller's registers by the frame data of an x86 PDB (process/symbols/frame_data.py)."""

from __future__ import annotations

from collections.abc import Callable

from heapdump.memory.space import AddressSpace
from heapdump.process.symbols.frame_data import FrameRecord

_MASK = 0xFFFFFFFF
_MOST_TOKENS = 256
_SEARCHED_BYTES = 0x200
_REGISTERS = ("eip", "esp", "ebp", "ebx", "esi", "edi")
_ALLOWED = frozenset(f"${name}" for name in _REGISTERS)
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "@": lambda a, b: a // b * b,
}
"""`@` rounds down to a multiple: it aligns a stack pointer."""


class BadProgram(ValueError):
    """A program that cannot be run: too long, words missing, memory not in the dump."""


def caller_of(
    space: AddressSpace,
    record: FrameRecord,
    registers: dict[str, int],
    callee_parameter_bytes: int,
    is_return: Callable[[int], bool],
) -> dict[str, int] | None:
    """The registers of the caller; None where no place of the stack gives a possible return address.

    The program's own place of the return address comes first. A program with `.raSearch` is tried with the next 127
    words above it, as Microsoft's debuggers do.

    Args:
        space: memory of the process.
        record: frame data of the code.
        registers: name → value in the frame, after the return of its callee: `eip`, `esp`, `ebp`, `ebx`.
        callee_parameter_bytes: bytes of the callee's parameters that still lie on the stack.
        is_return: True for an address that can be a return address.
    """
    start = registers["esp"] + callee_parameter_bytes + record.local_bytes + record.saved_bytes
    places = range(start, start + _SEARCHED_BYTES, 4) if ".raSearch" in record.program else (start,)
    for at in places:
        constants = {
            ".cbParams": record.parameter_bytes,
            ".cbCalleeParams": callee_parameter_bytes,
            ".cbSavedRegs": record.saved_bytes,
            ".cbLocals": record.local_bytes,
            ".raSearch": at,
            ".raSearchStart": at,
        }
        try:
            found = _run(space, record.program, registers, constants)
        except BadProgram:
            continue
        if is_return(found["eip"]):
            return found
    return None


def _run(space: AddressSpace, program: str, registers: dict[str, int], constants: dict[str, int]) -> dict[str, int]:
    """The registers after the program.

    Raises:
        BadProgram: see there.
    """
    variables = {f"${name}": registers[name] for name in _REGISTERS if name in registers}
    stack: list[int | str] = []
    tokens = program.split()
    if len(tokens) > _MOST_TOKENS:
        raise BadProgram("too many words")
    for token in tokens:
        if token == "=":
            value = _value(stack, variables)
            name = stack.pop() if stack else None
            if not isinstance(name, str):
                raise BadProgram("nothing to assign to")
            variables[name] = value
        else:
            stack.append(_result(space, token, stack, variables, constants))
    if "$eip" not in variables or "$esp" not in variables:
        raise BadProgram("no caller")
    return registers | {name[1:]: value for name, value in variables.items() if name in _ALLOWED}


def _result(
    space: AddressSpace, token: str, stack: list[int | str], variables: dict[str, int], constants: dict[str, int]
) -> int | str:
    """What a word of the program leaves on the stack."""
    if token in _ARITHMETIC:
        second, first = _value(stack, variables), _value(stack, variables)
        if second == 0 and token in "/%@":
            raise BadProgram("a division by zero")
        return _ARITHMETIC[token](first, second) & _MASK
    if token == "^":
        word = space.try_integer(_value(stack, variables), 4)
        if word is None:
            raise BadProgram("memory that is not in the dump")
        return word
    if token in constants:
        return constants[token]
    if token.startswith("$"):
        return token
    try:
        return int(token, 0) & _MASK
    except ValueError as error:
        raise BadProgram(f"an unknown word {token!r}") from error


def _value(stack: list[int | str], variables: dict[str, int]) -> int:
    """Takes the uppermost value off the stack."""
    top = stack.pop() if stack else None
    value = variables.get(top) if isinstance(top, str) else top
    if value is None:
        raise BadProgram("a value that is not there")
    return value
