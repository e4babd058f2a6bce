"""Calls of the commands that a table of calls does not name: without arguments, as a new command is asked at first.

A command that needs an argument ends with exit code 2 then: the tests that use this refuse it, and its call is added to
their table: `CALLS` of test_schema.py, test_asked_twice.py and commands/test_redact.py, `CASES` of golden/test_golden.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import click

from heapdump.cli import cli


def plain_calls(named: Iterable[str], *others: str) -> list[str]:
    """Names of commands with which no call in `named` begins, without `others`; in the order of the help."""
    known = {call.split()[0] for call in named} | set(others)
    return [name for name in cli.list_commands(click.Context(cli)) if name not in known]
