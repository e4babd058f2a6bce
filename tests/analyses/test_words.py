"""Enums of the analyses hold the words of the command line and of the JSON."""

from __future__ import annotations

import click
import pytest

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.analyses.graph.unreachable import REPORTED, Reach
from heapdump.analyses.types.content_kind import LIBRARY_KINDS, ContentKind
from heapdump.commands import leaks
from heapdump.trust import Trust


def test_every_key_is_a_choice_of_leaks():
    assert isinstance(leaks.command, click.Command)
    (option,) = (one for one in leaks.command.params if one.name == "by")
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == [by.value for by in GroupKey]
    assert {by for by in GroupKey if by.needs_stacks} == {GroupKey.STACK, GroupKey.CALLER, GroupKey.MODULE}


def test_states_have_the_words_of_the_json():
    assert [reach.word for reach in REPORTED] == ["direct", "indirect", "possible"]
    assert Reach.REACHABLE.word == "reachable"


@pytest.mark.parametrize("kind", ContentKind)
def test_a_kind_of_content_has_a_number_of_its_own(kind):
    assert list(ContentKind)[kind.number] is kind
    assert (kind.trust is Trust.EXACT) == (kind in (ContentKind.ABSENT, ContentKind.EMPTY))
    assert kind not in LIBRARY_KINDS or kind.trust is Trust.GUESS
