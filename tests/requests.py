"""Requests of commands, made without a command line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from heapdump.commands.common.request import Request


def a_request(**changes: Any) -> Request:
    """A request without an index that prints nothing but its answer."""
    plain = Request(
        dump=None, format="json", output=None, limit=20, sort=None, reverse=False, color="never", verbosity=0, progress=False,
        explain=False, exact=False, pager=False, use_index=False, image_path="", symbol_path="",
    )  # fmt: skip
    return replace(plain, **changes)
