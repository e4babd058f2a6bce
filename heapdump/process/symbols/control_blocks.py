"""What the control block of a shared_ptr controls, by the name of its class.

    Visual C++    std::_Ref_count<T>, _Ref_count_resource<T *, …>; with the object in it _Ref_count_obj2<T> and others
    libstdc++     std::_Sp_counted_ptr<T*, …>, _Sp_counted_deleter<T*, …>; std::_Sp_counted_ptr_inplace<T, …>
    libc++        std::__1::__shared_ptr_pointer<T*, …>; std::__1::__shared_ptr_emplace<T, …>

Source: the libraries' public headers.
"""

from __future__ import annotations

import re

_BESIDE = re.compile(
    r"std::(?:__\w+::)?(?:_Ref_count|_Ref_count_resource|_Ref_count_resource_alloc|_Sp_counted_ptr|_Sp_counted_deleter"
    r"|__shared_ptr_pointer)<"
)
_INSIDE = re.compile(
    r"std::(?:__\w+::)?(?:_Ref_count_obj2?|_Ref_count_obj_alloc\d?|_Ref_count_(?:un)?bounded_array(?:_alloc)?"
    r"|_Sp_counted_ptr_inplace|__shared_ptr_emplace)<"
)


def control_block(name: str) -> str | None:
    """`control block and Frame`, `control block of a Frame` for its class; None for another class."""
    match = _INSIDE.match(name) or _BESIDE.match(name)
    held = None if match is None or not name.endswith(">") else _first_argument(name[match.end() : -1])
    if not held:
        return None
    if _INSIDE.match(name):
        return f"control block and {held}"
    return f"control block of a {held.removesuffix('*').rstrip()}"


def _first_argument(arguments: str) -> str:
    """The text up to the first comma outside of brackets."""
    depth = 0
    for place, letter in enumerate(arguments):
        depth += (letter in "<([") - (letter in ">)]")
        if letter == "," and depth == 0:
            return arguments[:place].strip()
    return arguments.strip()
