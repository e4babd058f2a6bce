"""The documentation is tested against the command table itself."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from heapdump.cli import cli

DOCS = Path(__file__).parent.parent / "docs"
README = (DOCS.parent / "README.md").read_text(encoding="utf-8")
COMMANDS, OUTPUT = (DOCS / "commands.md").read_text("utf-8"), (DOCS / "output.md").read_text("utf-8")
MOST_WORDS = 900
NAMES = cli.list_commands(click.Context(cli))
OF_DUMPS = [name for name in NAMES if name not in ("mcp", "cache", "help")]
"""Commands that take a dump."""


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_commands_has_a_section_and_an_example_for_each(name: str) -> None:
    assert f"## `{name}`" in COMMANDS
    assert re.search(rf"^    heapdump {name}\b", COMMANDS, re.MULTILINE)


def test_the_readme_is_short_and_names_only_commands_that_there_are() -> None:
    assert len(README.split()) <= MOST_WORDS
    assert set(re.findall(r"`heapdump ([a-z-]+)", README)) <= set(NAMES)
    lines = [line for line in README.splitlines() if line.startswith("| ") and "`heapdump " in line]
    assert len(lines) >= 10


def test_links_of_the_readme_lead_to_files() -> None:
    links = re.findall(r"\]\(([^):]+)\)", README)
    assert links and [link for link in links if not (DOCS.parent / link).is_file()] == []


@pytest.mark.parametrize("name", OF_DUMPS)
def test_a_page_of_the_documentation_shows_each_command(name: str) -> None:
    pages = [page.read_text(encoding="utf-8") for page in (DOCS / "questions").glob("*.md")]
    assert any(re.search(rf"^    heapdump {name} crash\.dmp", page, re.MULTILINE) for page in pages)


def test_every_page_of_the_documentation_is_in_its_menu() -> None:
    menu = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page for page in DOCS.rglob("*.md") if f"- {page.relative_to(DOCS).as_posix()}\n" not in menu] == []


@pytest.mark.parametrize("name", OF_DUMPS)
def test_help_of_each_command_has_an_example(name: str) -> None:
    assert f"heapdump {name} crash.dmp" in (command(name).help or "")


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_help_or_names_its_values(name: str) -> None:
    for option in command(name).params:
        if isinstance(option, click.Option):
            assert option.help or isinstance(option.type, click.Choice), option.name


@pytest.mark.parametrize("name", NAMES)
def test_shared_options_are_on_every_command_and_in_the_documentation(name: str) -> None:
    shared = {"--json", "--format", "--output", "--limit", "--all", "--sort", "--reverse", "--symbols", "--image-path",
              "--color", "--quiet", "--verbose", "--no-progress", "--explain"}  # fmt: skip
    own = {flag for option in command(name).params for flag in option.opts}
    assert shared <= own
    short = {"--quiet": "`-q`", "--verbose": "`-v`"}
    assert all(short.get(flag, flag) in OUTPUT for flag in shared)


@pytest.mark.parametrize("name", NAMES)
def test_short_help_is_a_whole_sentence(name: str) -> None:
    assert not command(name).get_short_help_str(limit=72).endswith("..."), command(name).get_short_help_str(72)


def test_readme_names_the_two_commands_of_a_fresh_machine() -> None:
    assert re.findall(r"^    make (\w+)", README, re.MULTILINE)[:2] == ["demo", "test"]


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.builders import NtHeapBuilder, ProcessBuilder

    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    ProcessBuilder().heap(heap.build()).write(tmp_path / "crash.dmp")
    monkeypatch.chdir(tmp_path)
    code = (DOCS / "api.md").read_text("utf-8").split("```python\n", 1)[1].split("```", 1)[0]
    exec(compile(code, "api.md", "exec"), {})


def test_the_changelog_begins_with_what_is_unreleased_and_names_every_command() -> None:
    text = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert all(re.fullmatch(r"\[?\d+\.\d+\.\d+\]?( - \d{4}-\d\d-\d\d)?", heading) for heading in headings[1:])
    assert [name for name in NAMES if f"`{name}`" not in text] == []
