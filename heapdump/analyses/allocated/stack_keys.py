"""Keys of allocation stacks in words: the first frames of the program; no two stacks have the same key."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from heapdump.process.symbols.namer import Frame

_KEY_FRAMES = 3
_ALLOCATORS = re.compile(
    r"(?:ntdll|kernelbase|kernel32|ucrtbased?|msvcrt|msvcr\d+d?|msvcp\w+|vcruntime\w+|verifier|vrfcore|vfbasics|vfcompat|"
    r"DynamicClass)"
    r"(?:\.dll)?",
    re.IGNORECASE,
)
"""Modules whose frames only pass an allocation on. `DynamicClass`: stubs of .NET between managed and native code."""
_VERIFIER = re.compile(r"(?:verifier|vrfcore|vfbasics|vfcompat)(?:\.dll)?", re.IGNORECASE)
"""Modules of Application Verifier: their frames lie between an allocation and who asked for it."""


_NTDLL = re.compile(r"ntdll(?:\.dll)?", re.IGNORECASE)


def passes_on(skip: Sequence[str]) -> Callable[[Frame], bool]:
    """A test that is True for frames that pass an allocation on: of allocator modules, and of modules in `skip`."""
    names = {name.lower().removesuffix(".dll") for name in skip}

    def test(frame: Frame) -> bool:
        """True where the frame's module is one of them."""
        module = (frame.module or "").lower()
        return bool(_ALLOCATORS.fullmatch(module)) or module.removesuffix(".dll") in names

    return test


def first_of_program(frames: Sequence[Frame], passes_on: Callable[[Frame], bool]) -> int | None:
    """The index of the innermost frame of the program; None where all frames pass on.

    Code in no module that a frame which passes on has called is a stub of Windows, such as that of a system call; it is
    the program's only where no other frame is.
    """
    own = [i for i, frame in enumerate(frames) if not passes_on(frame)]
    stubs = {i for i in own if frames[i].module is None and i + 1 < len(frames) and passes_on(frames[i + 1])}
    return next((i for i in own if i not in stubs), own[0] if own else None)


def stack_key(frames: Sequence[Frame], passes_on: Callable[[Frame], bool]) -> str:
    """`app.exe!Load+0x14 ← Parse ← main`: the first frames that do not only pass the allocation on.

    Where all of them do, Application Verifier's own, or the first ones behind them.
    """
    own = (
        [frame for frame in frames if not passes_on(frame)]
        or verifiers_own(frames, passes_on)
        or _behind_verifier(frames)
    )
    first, *callers = own[:_KEY_FRAMES]
    return " ← ".join([str(first), *(frame.symbol or str(frame) for frame in callers)])


def is_verifier(module: str) -> bool:
    """True for the name of a module of Application Verifier."""
    return _VERIFIER.fullmatch(module) is not None


def verifiers_own(frames: Sequence[Frame], passes_on: Callable[[Frame], bool]) -> Sequence[Frame]:
    """Frames of Application Verifier where it allocated for itself, innermost first; none where it passed it on.

    Verifier stands between a module and ntdll where the module's imports lead to it. No import of ntdll does: where
    ntdll called Verifier, and no frame of a program follows, the block is Verifier's own.
    """
    if any(not passes_on(frame) for frame in frames):
        return ()
    is_of_verifier = [is_verifier(frame.module or "") for frame in frames]
    if not any(is_of_verifier):
        return ()
    end = len(frames) - is_of_verifier[::-1].index(True)
    start = end - 1
    while start and is_of_verifier[start - 1]:
        start -= 1
    is_called_by_ntdll = end == len(frames) or _NTDLL.fullmatch(frames[end].module or "") is not None
    return frames[start:end] if is_called_by_ntdll else ()


def _behind_verifier(frames: Sequence[Frame]) -> Sequence[Frame]:
    last = max((i for i, frame in enumerate(frames) if is_verifier(frame.module or "")), default=-1)
    return frames[last + 1 :] or frames


def distinct(keys: Sequence[str], stacks: Sequence[Sequence[str]]) -> list[str]:
    """The keys, those of several stacks with a short hash of the whole stack: `… #3f2a91`.

    `stacks`: the frames of each key as module and offset, which do not depend on where modules are loaded.
    """
    counts = Counter(keys)
    named = [key if counts[key] == 1 else f"{key} #{_hash(stack)}" for key, stack in zip(keys, stacks, strict=True)]
    seen = Counter[str]()
    out = []
    for key in named:
        seen[key] += 1
        out.append(key if seen[key] == 1 else f"{key}-{seen[key]}")
    return out


def _hash(stack: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(stack).encode()).hexdigest()[:6]
