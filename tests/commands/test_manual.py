"""Pages of the manual: one for each command, with every option, in roff that formatters accept."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from heapdump import __version__
from heapdump.cli import cli
from heapdump.cli.manual import pages, write_pages

PAGES = pages(cli, __version__)
ROOT = Path(__file__).parents[2]


def test_every_command_has_a_page_with_its_options():
    root = click.Context(cli)
    names = [*cli.list_commands(root), "cache"]
    assert set(PAGES) == {"heapdump.1", *(f"heapdump-{name}.1" for name in names)}
    for name in names:
        command = cli.get_command(root, name)
        assert command is not None
        flags = [
            flag for one in command.params if isinstance(one, click.Option) and not one.hidden for flag in one.opts
        ]
        text = PAGES[f"heapdump-{name}.1"].replace("\\-", "-")
        assert all(flag in text for flag in flags) and "-h, --help" in text, name
        assert f"heapdump-{name}" in PAGES["heapdump.1"].replace("\\-", "-")


@pytest.mark.parametrize("name", sorted(PAGES))
def test_lines_are_text_or_known_requests(name):
    for line in PAGES[name].splitlines():
        assert not line.startswith("'") and "\b" not in line
        if line.startswith("."):
            assert re.match(r"\.(TH|SH|PP|TP|B|nf|fi)\b", line), line
        assert not re.search(r"\\(?![-e&]|f[BR]|\[u[0-9A-F]{4,5}\])", line), line
    assert PAGES[name].startswith('.TH "') and f"heapdump {__version__}" in PAGES[name]


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff: the pages are not formatted")
def test_groff_has_no_complaint(tmp_path):
    files = write_pages(tmp_path)
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", *files], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert done.stderr == ""
    page = subprocess.run(
        ["groff", "-man", "-Tascii", "-P-c", *[one for one in files if one.endswith("-leaks.1")]],
        capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    plain = re.sub(".\b", "", page)
    assert "       heapdump leaks crash.dmp --group-by stack\n" in plain and "UNREACHABLE BLOCKS" in plain


def test_a_build_needs_click_alone(tmp_path):
    code = (
        "import sys; before = set(sys.modules); from pathlib import Path; from heapdump.cli.manual import write_pages; "
        f"write_pages(Path({str(tmp_path)!r})); "
        "tops = {name.split('.')[0] for name in set(sys.modules) - before}; "
        "print(sorted(tops - set(sys.stdlib_module_names) - {'click', 'heapdump', 'colorama', '_colorama', '__mp_main__'}))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(ROOT), str(Path(click.__file__).parents[1])]!r}; {code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
