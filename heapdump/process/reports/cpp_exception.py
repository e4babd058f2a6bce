"""A C++ exception of the Microsoft runtime: the thrown type and the message of a std::exception.

0xE06D7363 has the parameters magic, object, _ThrowInfo and on x64 the image base, to which all references inside
_ThrowInfo are relative. _ThrowInfo leads to the type descriptors of everything that could catch the object, the thrown
type first (ehdata.h of the Windows SDK).
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from heapdump.memory.space import AddressSpace
from heapdump.process.model import Process, View
from heapdump.process.symbols.msvc_names import undecorated

CPP_EXCEPTION = 0xE06D7363
_MAGICS = (0x19930520, 0x19930521, 0x19930522, 0x01994000)
_MOST_TYPES, _LONGEST_NAME, _LONGEST_MESSAGE = 32, 4096, 256
_STD_EXCEPTION = "std::exception"


@dataclass(frozen=True, slots=True)
class CppException:
    """`types`: the thrown type and its bases, () where the dump has none of their descriptors; `message`: of what()."""

    types: tuple[str, ...]
    message: str

    @property
    def words(self) -> str:
        """`std::bad_alloc ("bad allocation")`; that the type is missing where it is."""
        if not self.types:
            return "of a type that is not in the dump"
        return self.types[0] + (f" ({self.message!r})" if self.message else "")


def thrown(process: Process) -> CppException | None:
    """The exception object; None for other exceptions."""
    raised = process.exception
    if raised is None or raised.code != CPP_EXCEPTION or len(raised.parameters) < 3:
        return None
    magic, exception_object, info, *more = raised.parameters
    if magic not in _MAGICS:
        return None
    view = process.views[0] if more and process.views[0].arch == "x64" else process.views[-1]
    types = _types(view, info, more[0] if view.arch == "x64" and more else 0)
    message = _message(view.space, exception_object) if _STD_EXCEPTION in types else ""
    return CppException(types, message)


def _types(view: View, info: int, image_base: int) -> tuple[str, ...]:
    space = view.space
    array = space.try_integer(info + 12, 4)
    count = space.try_integer(image_base + array, 4) if array else None
    names = []
    for i in range(min(count or 0, _MOST_TYPES)):
        entry = space.try_integer(image_base + (array or 0) + 4 + 4 * i, 4)
        descriptor = space.try_integer(image_base + entry + 4, 4) if entry else None
        name = _text(space, image_base + descriptor + 2 * view.pointer_bytes, _LONGEST_NAME) if descriptor else ""
        if name:
            names.append(_class_name(name))
    return tuple(names)


def _class_name(decorated: str) -> str:
    """`.?AVbad_alloc@std@@` → `std::bad_alloc`, `.PEBD` (const char *) as it is."""
    return (
        undecorated(decorated[4:-1])
        if decorated.startswith((".?AV", ".?AU")) and decorated.endswith("@@")
        else decorated
    )


def _message(space: AddressSpace, exception_object: int) -> str:
    """The text behind the table of virtual functions: `_What` of std::exception; "…" ends a longer one."""
    pointer = space.try_pointer(exception_object + space.pointer_bytes)
    data, is_whole = _bytes(space, pointer, _LONGEST_MESSAGE) if pointer else (b"", True)
    text = _decoded(data, is_whole=is_whole)
    return text if is_whole or not text else f"{text}…"


def _decoded(data: bytes, *, is_whole: bool) -> str:
    """UTF-8, else mostly ASCII with some characters of Western Europe; "" for bytes that are no text.

    The dump does not say which code page the program used. `is_whole`: False where the last character may be cut.
    """
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(data, final=is_whole)
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace") if 2 * sum(byte < 0x80 for byte in data) > len(data) else ""
    strange = sum(not (one.isprintable() or one in "\r\n\t") for one in text)
    return "" if 8 * strange > len(text) else text


def _text(space: AddressSpace, address: int, longest: int) -> str:
    """The zero-terminated ASCII text at an address; "" where there is none."""
    data, is_whole = _bytes(space, address, longest)
    return data.decode("ascii") if is_whole and all(0x20 <= byte < 0x7F for byte in data) else ""


def _bytes(space: AddressSpace, address: int, most: int) -> tuple[bytes, bool]:
    """(the bytes from an address up to a zero byte, at most `most`; whether that byte was met)."""
    out = bytearray()
    while len(out) < most:
        byte = space.try_integer(address + len(out), 1)
        if not byte:
            return bytes(out), byte == 0
        out.append(byte)
    return bytes(out), False
