"""Occupants of the address space in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.analyses.memory.occupants import Reason
from heapdump.render import text

if TYPE_CHECKING:
    from heapdump.analyses.memory.address_space import ExplainedDivider
    from heapdump.analyses.memory.occupants import ImagePlace, Occupant
    from heapdump.snapshot import Snapshot

TOO_MUCH = "more than 4 GiB of writable memory"
"""Why pointers to private memory were not searched for."""

_MOST_NAMES = 3
_ALWAYS = {
    Reason.RANDOMISED_IMAGE: "Windows chose the base of this image (ASLR)",
    Reason.MAPPED: "a mapped file or section",
    Reason.SYSTEM: "memory of Windows",
}
"""Reasons that are the same words for every allocation."""


def owner_words(explained: ExplainedDivider) -> str:
    """`Image hook.dll`; of several allocations the first three."""
    names = [one.allocation.words for one in explained.occupants[:_MOST_NAMES]]
    more = len(explained.occupants) - len(names)
    return ", ".join(names) + (f" and {more:,} more" if more else "")


def reason_words(snapshot: Snapshot, occupant: Occupant) -> str:
    """Why an allocation lies where it lies."""
    words = _ALWAYS.get(occupant.reason) or _own_words(snapshot, occupant)
    imports = occupant.image.memory_imports if occupant.image else ()
    return words + (f"; imports {_listed(imports)}" if imports else "")


def _own_words(snapshot: Snapshot, occupant: Occupant) -> str:
    """The reason with what is particular to the allocation."""
    if occupant.reason is Reason.MOVED_IMAGE:
        return _moved(occupant.image)
    if occupant.reason is Reason.FIXED_IMAGE:
        return _fixed(occupant.image)
    if occupant.reason is Reason.STACK:
        return f"stack of thread {occupant.allocation.detail}" + _started(occupant.start)
    if occupant.reason is Reason.HEAP:
        return f"memory of heap {occupant.allocation.detail}"
    return _hook(occupant) if occupant.reason is Reason.HOOK else _private(snapshot, occupant)


def reasons_words(snapshot: Snapshot, explained: ExplainedDivider) -> str:
    """The reasons of all occupants, each once."""
    if len(explained.occupants) == 1:
        return reason_words(snapshot, explained.occupants[0])
    named = [f"{one.allocation.words}: {reason_words(snapshot, one)}" for one in explained.occupants]
    return "; ".join(dict.fromkeys(named))


def place_words(snapshot: Snapshot, address: int) -> str:
    """`app.exe+0x1230`, `0x1234 (Stack ~1 tid 0x14)`."""
    if snapshot.process.module_map.at(address) is not None:
        return snapshot.process.where(address)
    usage = snapshot.usage
    row = usage.table.index_at(address)
    if row is None:
        return hex(address)
    claim = usage.table.row(row)[5]
    owner = f"{usage.names[int(usage.codes[row])]} {claim.detail if claim else ''}".rstrip()
    return f"{address:#x} ({owner})"


def _started(start: str) -> str:
    return f", which began at {start}" if start else ""


def _moved(image: ImagePlace | None) -> str:
    if image is None or image.preferred is None:
        return "loaded away from its preferred base"
    if not image.holders:
        return f"loaded away from its preferred base {image.preferred:#x}, where nothing lies now"
    holders = _listed(tuple(f"{one.words} ({text.short_size(one.span.size)})" for one in image.holders))
    return f"loaded away from its preferred base {image.preferred:#x}, where {holders} lies"


def _fixed(image: ImagePlace | None) -> str:
    if image is None or image.preferred is None:
        return "an image without ASLR; its preferred base is not known (--image-path has files with it)"
    return f"an image without ASLR at the base {image.preferred:#x} of its header"


def _hook(occupant: Occupant) -> str:
    hook = occupant.hook
    if hook is None:
        return "a hook"
    if not hook.patched:
        return f"code that jumps to {_listed(hook.targets)}"
    to = f"; they lead to {hook.target}" if hook.target else ""
    return f"hook trampolines: {_listed(hook.patched)} {'jumps' if len(hook.patched) == 1 else 'jump'} here{to}"


def _private(snapshot: Snapshot, occupant: Occupant) -> str:
    found = occupant.allocation
    first = f", first bytes {found.detail}" if found.detail else ""
    if occupant.has_more_referrers is None:
        return f"private memory{first}; pointers to it were not searched for ({TOO_MUCH})"
    places = tuple(place_words(snapshot, address) for address in occupant.referrers)
    more = " and more" if occupant.has_more_referrers else ""
    held = f"; pointers to it: {_listed(places)}{more}" if places else ""
    return f"private memory{first}{held}"


def _listed(names: tuple[str, ...]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "")
