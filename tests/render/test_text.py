"""Sizes, shares, addresses and escaping."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.errors import WrongUsage
from heapdump.render.text import (
    a_size,
    bar,
    exact_share,
    parse_address,
    parse_size,
    plural,
    printable,
    share,
    short_size,
    size,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 kB"),
        (14_331_232_256, "13.35 GB"),
        (1536, "1.500 kB"),
        (1_027_999, "1004 kB"),
        (-44_280, "-43.24 kB"),
        (None, "-"),
        (1 << 47, "128 TB"),
    ],
)
def test_sizes_read_as_windbg_prints_them(value: int | None, text: str) -> None:
    assert size(value) == text


def test_sentence_sizes_and_shares() -> None:
    assert short_size(14_331_232_256) == "13.3 GB"
    assert short_size(12) == "12 bytes"
    shares = (0.92891, 0.0001, 0.999, 1.0, 0.0, None)
    assert [share(one) for one in shares] == ["93%", "<1%", ">99%", "100%", "0%", ""]
    assert exact_share(0.92891) == "92.89%"
    assert plural(1, "heap") == "1 heap"
    assert plural(2000, "heap") == "2,000 heaps"


@pytest.mark.parametrize("number", [8, 11, 18, 80, 88, 800, 8421, 11_000, 18_432, 8_000_000])
def test_numbers_that_begin_with_a_vowel_have_the_article_an(number: int) -> None:
    assert a_size(number, "block") == f"an {number:,}-byte block"


@pytest.mark.parametrize("number", [1, 10, 12, 16, 110, 180, 1100, 1800, 4003, 110_000])
def test_other_numbers_have_the_article_a(number: int) -> None:
    assert a_size(number, "block") == f"a {number:,}-byte block"


def test_bars_are_relative_and_show_what_is_not_nothing() -> None:
    assert [bar(value, 100, 4) for value in (100, 50, 1, 0)] == ["████", "██", "▏", ""]
    assert bar(0, 0, 4) == ""


@pytest.mark.parametrize("text", ["0x29fb0000", "29fb0000", "00000000`29fb0000", " 0X29FB0000 ", "29FB0000"])
def test_addresses_in_every_form_of_windbg(text: str) -> None:
    assert parse_address(text) == 0x29FB0000


@pytest.mark.parametrize("text", ["", "0x", "hello", "12345678901234567", "-1", "0x1 2"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(WrongUsage, match="is not an address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "value"), [("4096", 4096), ("0x1000", 4096), ("64K", 65536), ("1M", 1 << 20), ("2gb", 2 << 30)]
)
def test_sizes_are_read_back(text: str, value: int) -> None:
    assert parse_size(text) == value


@pytest.mark.parametrize("text", ["", "K", "1.5M", "0x10K", "-4"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(WrongUsage, match="is not a size"):
        parse_size(text)


@pytest.mark.property
@given(st.text(st.characters(codec=None)))
def test_printable_text_has_no_character_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable() or all(c.isprintable() or c.isspace() for c in shown)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in shown)


def test_escapes_name_the_character() -> None:
    assert printable("a\x1b[31m\u202e\n\ud800") == "a\\x1b[31m\\u202e\\x0a\\ud800"
    assert printable("Ünïcödé 漢字") == "Ünïcödé 漢字"
