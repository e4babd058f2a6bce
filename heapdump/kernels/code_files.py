"""Files of machine code: one for each kernel and form of its arguments (`forms`). Writes, reads and runs them.

A file is valid for one text of the kernel and of what makes it, one processor and one version of LLVM. Files lie beside
the kernels, or in a folder of the user where that folder cannot be written. llvmlite loads a file in 0.04 s; importing
numba takes 0.25 s.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import mmap
import os
import re
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from heapdump import system
from heapdump.kernels.compiler import MachineCode

TRIED_ON = ("linux",)
"""`sys.platform` of the systems on which code from files was tested; on others numba runs the kernels."""

_MAGIC = b"heapdump machine code 1\n"
_MAKERS, _IMPORT = ("compiler", "pipeline", "row"), re.compile(rb"from heapdump\.kernels\.(\w+) import")
_ROOM_BYTES = 64 << 20
_OK = (0, -2)
"""Values of a successful call's status: numba's RETCODE_OK and RETCODE_NONE."""

Run = Callable[[list[int]], object]


def is_possible() -> bool:
    """True where this process can run code from files."""
    return sys.platform in TRIED_ON and has_room()


def has_room(size: int = _ROOM_BYTES) -> bool:
    """True where the process can get `size` more bytes of memory. LLVM ends a process that gets none."""
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    try:
        mmap.mmap(-1, size, **private).close()
    except (OSError, ValueError, MemoryError):
        return False
    return True


def read(function: Callable[..., object], form: str) -> MachineCode | None:
    """The machine code from the file; None where there is no file or it is damaged."""
    for folder in _folders():
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            found = _decoded((folder / _name(function, form)).read_bytes())
            if found is not None:
                return found
    return None


def _decoded(data: bytes) -> MachineCode | None:
    magic, digest, rest = data[: len(_MAGIC)], data[len(_MAGIC) : len(_MAGIC) + 32], data[len(_MAGIC) + 32 :]
    if magic != _MAGIC or hashlib.sha256(rest).digest() != digest:
        return None
    head, _, code = rest.partition(b"\n")
    described = json.loads(head)
    return MachineCode(code, *(described[name] for name in ("name", "arguments", "results", "triple")))


def write(function: Callable[..., object], form: str, code: MachineCode) -> bool:
    """Writes the machine code to a file; False where no folder can be written."""
    described = {"name": code.name, "arguments": code.arguments, "results": code.results, "triple": code.triple}
    rest = json.dumps(described).encode() + b"\n" + code.data
    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, part = system.create_exclusively(folder)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_MAGIC + hashlib.sha256(rest).digest() + rest)
                part.chmod(system.new_file_mode())
                part.replace(folder / _name(function, form))
            finally:
                part.unlink(missing_ok=True)
            return True
    return False


def can_be_written() -> bool:
    """True where there is a folder for files."""
    for folder in _folders():
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, path = system.create_exclusively(folder)
            os.close(handle)
            path.unlink(missing_ok=True)
            return True
    return False


def _folders() -> tuple[Path, ...]:
    """The folders for files: beside the kernels, and one of the user unless other users can write to it."""
    beside = Path(__file__).parent / "__pycache__"
    try:
        own = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "heapdump-kernels"
    except RuntimeError:  # no home folder is known
        return (beside,)
    return (beside,) if system.others_can_write(own) else (beside, own)


def _name(function: Callable[..., object], form: str) -> str:
    inputs = (*_machine(), _texts(function.__module__), form)
    digest = hashlib.sha256(repr(inputs).encode()).hexdigest()[:24]
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}-{digest}.code"


@cache
def _machine() -> tuple[str, ...]:
    import llvmlite
    from llvmlite import binding

    return llvmlite.__version__, binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten(), sys.platform


@cache
def _texts(module: str) -> bytes:
    """The SHA-256 of the files on which a module's machine code depends: its own, the kernels it imports, `_MAKERS`.

    Raises:
        OSError: there is no such file.
    """
    file = getattr(sys.modules[module], "__file__", None)
    if file is None:
        raise FileNotFoundError(module)
    own, folder = Path(file).read_bytes(), Path(__file__).parent
    imported = sorted({name.decode() for name in _IMPORT.findall(own)} | set(_MAKERS))
    found = hashlib.sha256(own)
    for name in imported:
        found.update((folder / f"{name}.py").read_bytes())
    return found.digest()


_ENGINES: list[Any] = []
_LOADING = threading.Lock()


def loaded(code: MachineCode) -> Run:
    """The function in the machine code. It takes the values of its arguments (`forms.split`) and releases the GIL.

    Raises:
        RuntimeError: LLVM refuses the code.
    """
    from llvmlite import binding

    with _LOADING:
        engine = _engine(binding, code.triple)
        engine.add_object_file(binding.ObjectFileRef.from_data(code.data))
        engine.finalize_object()
        address = engine.get_function_address(code.name)
    if not address:
        raise RuntimeError(f"no function {code.name}")
    call = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * code.arguments)(
        address
    )
    results = code.results

    def run(values: list[int]) -> object:
        """Calls the machine code; gives its integer, its tuple of integers, or None."""
        found = (ctypes.c_int64 * max(1, results))()
        error = ctypes.c_void_p()
        status = call(ctypes.addressof(found), ctypes.addressof(error), *values)
        if status not in _OK:
            raise ArithmeticError(f"kernel ended with status {status}")
        return None if results == 0 else found[0] if results == 1 else tuple(found)

    return run


def _engine(binding: Any, triple: str) -> Any:
    """The LLVM engine that holds loaded code until the process ends."""
    if not _ENGINES:
        with contextlib.suppress(RuntimeError):  # from 0.45 on it does so itself, and says that
            binding.initialize()
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_triple(triple).create_target_machine()
        _ENGINES.append(binding.create_mcjit_compiler(binding.parse_assembly(""), machine))
    return _ENGINES[0]
