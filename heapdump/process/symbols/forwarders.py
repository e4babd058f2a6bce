"""Exports that are another DLL's: an address inside the export table is the text `NTDLL.RtlAllocateHeap`."""

from __future__ import annotations

from collections.abc import Callable

from heapdump.process.symbols.imports import text_at

ReadRva = Callable[[int, int], bytes | None]
_MOST = 1 << 16


def read_forwarders(read: ReadRva, rva: int, size: int) -> dict[str, str]:
    """Name of an export → the `DLL.Function` that it is forwarded to.

    Empty where the export directory of `size` bytes at the RVA is not there or has more than 65,536 functions or names.
    """
    table = read(rva, 40) if size else None
    if table is None:
        return {}
    functions, names, at_functions, at_names, at_ordinals = (
        int.from_bytes(table[i : i + 4], "little") for i in range(20, 40, 4)
    )
    if max(functions, names) > _MOST:
        return {}
    starts, texts, ordinals = read(at_functions, 4 * functions), read(at_names, 4 * names), read(at_ordinals, 2 * names)
    if starts is None or texts is None or ordinals is None:
        return {}
    out: dict[str, str] = {}
    for i in range(names):
        ordinal = int.from_bytes(ordinals[2 * i : 2 * i + 2], "little")
        start = int.from_bytes(starts[4 * ordinal : 4 * ordinal + 4], "little")
        if rva <= start < rva + size:
            name = text_at(read, int.from_bytes(texts[4 * i : 4 * i + 4], "little"))
            target = text_at(read, start)
            if name and "." in target:
                out[name] = target
    return out
