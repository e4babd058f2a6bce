"""Commands that ask other commands: the report asks them, and shows what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import click

if TYPE_CHECKING:
    from heapdump.commands.common.request import Request


class Host(Protocol):
    """A command that asks other commands: the `obj` of their click context. It replaces their requests."""

    def adopt(self, request: Request) -> Request:
        """The request that the asked command gets in place of `request`."""


def adopted(request: Request) -> Request:
    """The request of a command: that of its host, or the request itself where a person asks."""
    host: Host | None = click.get_current_context().obj
    return request if host is None else host.adopt(request)
