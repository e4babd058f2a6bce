"""Streams and address space → Process. Bad data never raises: it becomes a line in `Process.notes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from heapdump import layouts
from heapdump.dump import limits
from heapdump.dump.open import Minidump
from heapdump.dump.streams import PROCESSOR_NAMES, ExceptionRecord, ModuleRecord, ThreadRecord
from heapdump.memory.ranges import disjoint
from heapdump.memory.regions import RegionTable, rebuilt_table, region_table
from heapdump.memory.space import AddressSpace
from heapdump.process.model import Arch, Module, Process, Stack, Teb, Thread, View
from heapdump.process.stacks.registers import Registers, read_context
from heapdump.process.version import WindowsVersion, windows_version
from heapdump.process.views import read_view, thread_tebs
from heapdump.spans import Span

_SIGN_EXTENDED = 0xFFFFFFFF_00000000
_MAX_TEXT_BYTES = 65_534
_I386 = 0x14C
_MAX_STACK_BYTES = 4 << 30

NO_MEMORY_MAP = (
    "the dump has no memory map (MemoryInfoList): regions are rebuilt from the memory it holds and its modules, "
    "free and reserved memory is not known"
)
"""The note of a process whose dump lacks the map."""


def load_process(dump: Minidump) -> Process:
    """The process by the streams, the TEBs and the PEBs of the dump."""
    arch: Arch = "x64" if PROCESSOR_NAMES[dump.system_info.processor] == "x64" else "x86"
    gaps: list[str] = dump.notes
    space, missing = _address_space(dump, arch)
    records = tuple(_normal_module(m, arch) for m in dump.modules)
    threads = tuple(_normal_thread(t, arch) for t in dump.threads)
    ntdll = _ntdll_version(records)
    guess = windows_version(dump.system_info, ntdll, None)
    tebs = thread_tebs(arch, space, *_layout_pair(guess), threads)
    if arch == "x64" and not _has_narrow_half(space, records):
        tebs = {thread: tuple(teb for teb in found if teb.view == "x64") for thread, found in tebs.items()}
    windows = windows_version(dump.system_info, ntdll, _peb_version(arch, space, guess, tebs))
    views = tuple(
        read_view(a, space, windows, [t for found in tebs.values() for t in found], _ntdlls(records), gaps)
        for a in _arches(arch, records, tebs)
    )
    modules = _modules(records)
    parameters = _parameters(views)
    return Process(
        pid=_pid(dump, views, tebs),
        image=parameters[0] or _main_module(modules, views),
        command_line=parameters[1],
        windows=windows,
        views=views,
        modules=modules,
        unloaded=tuple(replace(m, span=_normal_span(m.span, arch)) for m in dump.unloaded_modules),
        threads=_threads(dump, threads, tebs, views),
        regions=_regions(dump, space, modules, arch),
        exception=_normal_exception(dump.exception, arch),
        misc=dump.misc_info,
        missing_bytes=missing,
        flags=dump.directory.header.flags,
        counters=dump.process_counters,
        system_memory=dump.system_memory,
        has_all_threads=bool(dump.threads) and not dump.thread_notes,
        notes=(*gaps, *dump.module_notes, *dump.thread_notes),
    )


# --- 32-bit dumps: dbghelp sign-extends addresses from 0x80000000 on


def _normal(address: int, arch: Arch) -> int:
    return address & 0xFFFFFFFF if arch == "x86" and address >= _SIGN_EXTENDED else address


def _normal_span(span: Span, arch: Arch) -> Span:
    start = _normal(span.start, arch)
    return Span(start, start + span.size)


def _normal_column(values: NDArray[np.uint64], arch: Arch) -> NDArray[np.uint64]:
    if arch != "x86":
        return values
    return np.where(values >= np.uint64(_SIGN_EXTENDED), values & np.uint64(0xFFFFFFFF), values)


def _normal_module(module: ModuleRecord, arch: Arch) -> ModuleRecord:
    return replace(module, span=_normal_span(module.span, arch))


def _normal_thread(thread: ThreadRecord, arch: Arch) -> ThreadRecord:
    return replace(thread, teb=_normal(thread.teb, arch), stack=_normal_span(thread.stack, arch))


def _normal_exception(record: ExceptionRecord | None, arch: Arch) -> ExceptionRecord | None:
    if record is None:
        return None
    parameters = tuple(_normal(p, arch) for p in record.parameters)
    return replace(record, address=_normal(record.address, arch), parameters=parameters)


# --- memory


def _address_space(dump: Minidump, arch: Arch) -> tuple[AddressSpace, int]:
    ranges = dump.memory_ranges.copy()
    ranges["start"] = _normal_column(ranges["start"], arch)
    room = np.uint64(dump.file_bytes) - np.minimum(ranges["offset"], np.uint64(dump.file_bytes))
    present = int(np.minimum(ranges["size"], room).sum())
    limits.require("bytes of memory in the dump", present, limits.MAX_MEMORY_PER_FILE * dump.file_bytes)
    ranges, missing = disjoint(ranges, dump.file_bytes, dump.notes, dump.remarks)
    return AddressSpace(dump, ranges, 8 if arch == "x64" else 4), missing


def _regions(dump: Minidump, space: AddressSpace, modules: Sequence[Module], arch: Arch) -> RegionTable:
    if dump.regions is not None:
        regions = dump.regions.copy()
        for column in ("base", "allocation_base"):
            regions[column] = _normal_column(regions[column], arch)
        return region_table(regions, dump.notes)
    dump.notes.append(NO_MEMORY_MAP)
    present = [Span(a, b) for a, b in zip(space.mapped.starts.tolist(), space.mapped.ends.tolist(), strict=True)]
    return rebuilt_table(present, [m.span for m in modules])


# --- modules


def _is_ntdll(module: ModuleRecord) -> bool:
    return _file_name(module.path).lower() == "ntdll.dll"


def _ntdll_version(records: Sequence[ModuleRecord]) -> tuple[int, int, int, int] | None:
    return next((m.version for m in records if m.version and _is_ntdll(m)), None)


def _ntdlls(records: Sequence[ModuleRecord]) -> tuple[Span, ...]:
    """The extents of ntdll: one, or two under WOW64. Of more in the list the first two count."""
    return tuple(dict.fromkeys(m.span for m in records if _is_ntdll(m)))[:2]


def _has_narrow_half(space: AddressSpace, records: Sequence[ModuleRecord]) -> bool:
    """True where the modules of a 64-bit dump say WOW64: a 32-bit ntdll, two ntdlls, wow64.dll; or there are none.

    Wine fills the WOW64 fields of every 64-bit TEB, and a 32-bit TEB lies behind it (recorded .NET and Java processes).
    """
    if not records or len(_ntdlls(records)) > 1 or any(_file_name(m.path).lower() == "wow64.dll" for m in records):
        return True
    return any(_machine(space, m.span.start) == _I386 for m in records if _is_ntdll(m))


def _machine(space: AddressSpace, base: int) -> int | None:
    """IMAGE_FILE_HEADER.Machine of an image; None where its headers are not in the dump."""
    at = space.try_integer(base + 0x3C, 4)
    return space.try_integer(base + at + 4, 2) if at is not None and at < 0x1000 else None


@cache
def _file_name(path: str) -> str:
    return path.replace("/", "\\").rpartition("\\")[2]


def _modules(records: Sequence[ModuleRecord]) -> tuple[Module, ...]:
    """Each extent once: both loaders of a WOW64 process list the program (Windows 7)."""
    out: dict[Span, Module] = {}
    for m in records:
        name = _file_name(m.path) or f"module@{m.span.start:#x}"
        out.setdefault(m.span, Module(name, m.path, m.span, m.version, m.checksum, m.timestamp, m.pdb))
    return tuple(out.values())


def _main_module(modules: Sequence[Module], views: Sequence[View]) -> str | None:
    bases = {v.peb_fields.get("ImageBaseAddress") for v in views}
    by_base = next((m.path for m in modules if m.span.start in bases), None)
    return by_base or next((m.path for m in modules if m.path.lower().endswith(".exe")), None)


# --- views


def _layout_pair(windows: WindowsVersion) -> tuple[layouts.Layout, layouts.Layout]:
    wide, narrow = (layouts.candidates(arch, windows.build, windows.revision)[0] for arch in ("x64", "x86"))
    return layouts.load(wide), layouts.load(narrow)


def _arches(arch: Arch, records: Sequence[ModuleRecord], tebs: dict[int, tuple[Teb, ...]]) -> tuple[Arch, ...]:
    found = {teb.view for group in tebs.values() for teb in group}
    if arch == "x64" and any(_file_name(m.path).lower() == "wow64.dll" for m in records):
        found.add("x86")
    found.add(arch)
    return tuple(a for a in ("x64", "x86") if a in found)


def _peb_version(
    arch: Arch, space: AddressSpace, guess: WindowsVersion, tebs: dict[int, tuple[Teb, ...]]
) -> tuple[int, int, int] | None:
    view = read_view(arch, space, guess, [t for found in tebs.values() for t in found], (), [])
    fields = view.peb_fields
    if "OSBuildNumber" not in fields:
        return None
    return fields["OSMajorVersion"], fields["OSMinorVersion"], fields["OSBuildNumber"]


def _parameters(views: Sequence[View]) -> tuple[str | None, str | None]:
    """(image path, command line) from the process parameters: of the 32-bit view where there are two."""
    for view in reversed(views):
        base = view.peb_fields.get("ProcessParameters")
        if base:
            parameters = view.layout["_RTL_USER_PROCESS_PARAMETERS"]
            image, line = (_text(view, base + parameters.offset(f), base) for f in ("ImagePathName", "CommandLine"))
            if image or line:
                return image, line
    return None, None


def _text(view: View, address: int, base: int) -> str | None:
    """A UNICODE_STRING; its buffer may be relative to the parameters' start when they are not normalised (XP)."""
    fields = view.struct("_UNICODE_STRING", address)
    if fields is None or not 0 < fields["Length"] <= _MAX_TEXT_BYTES:
        return None
    for at in (fields["Buffer"], base + fields["Buffer"]):
        raw = view.space.try_read(at, fields["Length"])
        if raw is not None:
            return raw.decode("utf-16-le", errors="replace")
    return None


# --- threads


def _pid(dump: Minidump, views: Sequence[View], tebs: dict[int, tuple[Teb, ...]]) -> int | None:
    if dump.misc_info is not None and dump.misc_info.process_id is not None:
        return dump.misc_info.process_id
    by_arch = {v.arch: v for v in views}
    for teb in (t for found in tebs.values() for t in found):
        view = by_arch[teb.view]
        pid = view.space.try_pointer(teb.address + view.layout["_TEB"].offset("ClientId"))
        if pid:
            return pid
    return None


def _threads(
    dump: Minidump, records: Sequence[ThreadRecord], tebs: dict[int, tuple[Teb, ...]], views: Sequence[View]
) -> tuple[Thread, ...]:
    own = views[0].arch if len(views) == 1 else "x64"
    starts = {info.id: _normal(info.start_address, own) for info in dump.thread_infos}
    by_arch = {v.arch: v for v in views}
    out = []
    for i, record in enumerate(records):
        found = tebs.get(record.id, ())
        stacks = tuple(s for s in (_stack(by_arch[t.view], t.address) for t in found) if s)
        if not stacks and record.stack.size:
            stacks = (Stack(views[0].arch, record.stack.start, record.stack.end, None),)
        own_registers = read_context(record.context)
        narrow = _wow_registers(by_arch.get("x64"), found) if len(views) == 2 else None
        shown = found or (Teb(views[0].arch, record.teb, 0),)
        name = dump.thread_names.get(record.id)
        start = starts.get(record.id) or None
        out.append(Thread(i, record.id, name, shown, stacks, own_registers, narrow, start))
    return tuple(out)


def _wow_registers(wide: View | None, tebs: Sequence[Teb]) -> Registers | None:
    """The 32-bit registers of a WOW64 thread: TEB64.TlsSlots[1] points to {u16 flags, u16 machine, x86 CONTEXT}.

    The structure is WOW64_CPURESERVED. None where it, or its integer registers, are not in the dump.
    """
    teb = next((t for t in tebs if t.view == "x64"), None)
    if wide is None or teb is None:
        return None
    area = wide.space.try_pointer(teb.address + wide.layout["_TEB"].offset("TlsSlots") + 8)
    context = wide.space.try_read(area + 4, 0xCC) if area else None
    if context is None or not int.from_bytes(context[:4], "little") & 0x10000:
        return None
    return read_context(context)


def _stack(view: View, teb: int) -> Stack | None:
    """The stack that a TEB names; None unless 0 < StackLimit < StackBase, at most 4 GiB apart."""
    tib = view.struct("_NT_TIB", teb)
    if tib is None:
        return None
    limit, base = tib["StackLimit"], tib["StackBase"]
    reserved = view.space.try_pointer(teb + view.layout["_TEB"].offset("DeallocationStack"))
    if not 0 < limit < base or base - limit > _MAX_STACK_BYTES:
        return None
    if reserved is not None and not (0 < reserved <= limit and base - reserved <= _MAX_STACK_BYTES):
        reserved = None
    return Stack(view.arch, limit, base, reserved)
