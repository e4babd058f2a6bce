"""The recipes of CONTRIBUTING.md, followed as a newcomer would."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from heapdump import cli, commands, heaps, layouts
from heapdump.analyses.damage.select import rule_sentences
from heapdump.blocks.findings import FINDING_RULES, Protected, define
from heapdump.render.sarif import sarif_document
from tests.builders import NtHeapBuilder, ProcessBuilder

ROOT = Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
Capture = pytest.CaptureFixture[str]


def recipe(title: str) -> str:
    """The text under a heading."""
    return CONTRIBUTING.split(f"\n## Recipe: {title}\n", 1)[1].split("\n## ", 1)[0]


def ask(capfd: Capture, *arguments: object) -> tuple[dict[str, Any], int]:
    code = cli.run([str(one) for one in arguments])
    return json.loads(capfd.readouterr().out), code


def dump_of(build: int, path: Path) -> Path:
    """A process of a build whose heap has the layout of 19041."""
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    heap.free(20)
    heap.busy(50)
    ProcessBuilder(build=build).heap(heap.build()).write(path)
    return path


@pytest.fixture
def layout_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the folder of layout files, in the place of the own one."""

    def forget() -> None:
        """Files are read once."""
        layouts.load.cache_clear()
        layouts.candidates.cache_clear()

    folder = tmp_path / "layouts"
    shutil.copytree(Path(layouts.__file__).parent, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    monkeypatch.setattr(layouts, "files", lambda _: folder)
    forget()
    yield folder
    forget()


def test_a_new_windows_build_is_one_file(layout_folder: Path, tmp_path: Path, capfd: Capture) -> None:
    dump = dump_of(27000, tmp_path / "crash.dmp")
    (before,) = ask(capfd, "heaps", dump, "--json", "--no-cache")[0]["data"]
    assert before["trust"] == "derived"
    document = json.loads((layout_folder / "x64_26100.json").read_text(encoding="utf-8"))
    document["first"], document["last"] = [27000, 0], [27000, 4294967295]
    (layout_folder / "x64_27000.json").write_text(json.dumps(document), encoding="utf-8")
    layouts.candidates.cache_clear()
    (heap,) = ask(capfd, "heaps", dump, "--json", "--no-cache")[0]["data"]
    assert (heap["layout"], heap["trust"], heap["busy_blocks"]) == ("x64_27000", "exact", before["busy_blocks"])


def test_the_table_of_layout_members_names_members_that_some_builds_lack() -> None:
    text = (ROOT / "heapdump" / "layouts" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ((?:`\w+`(?:, )?)+) \|", text, re.MULTILINE)
    assert len(rows) > 10
    names = [*layouts.layout_names("x64"), *layouts.layout_names("x86")]
    for struct, members in rows:
        for member in re.findall(r"`(\w+)`", members):
            has = {struct in layouts.load(name) and member in layouts.load(name)[struct] for name in names}
            assert has == {True, False}, f"{struct}.{member}"


def test_a_new_command_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    folder = tmp_path / "commands"
    folder.mkdir()
    text = recipe("a new command")
    (name,) = re.findall(r"`heapdump/commands/(\w+\.py)`", text)
    (code,) = re.findall(r"^    ```python\n(.*?)^    ```$", text, re.MULTILINE | re.DOTALL)
    (folder / name).write_text(textwrap.dedent(code), encoding="utf-8")
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(folder)])
    try:
        assert cli.run(["--help"]) == 0
        assert re.search(r"^  free-blocks +The free blocks of every heap", capfd.readouterr().out, re.MULTILINE)
        dump = dump_of(19041, tmp_path / "crash.dmp")
        document, exit_code = ask(capfd, "free-blocks", dump, "--json")
        assert exit_code == 0
        assert {block["state"] for block in document["data"]} == {"free"}
        assert cli.run(["free-blocks", str(dump)]) == 0
    finally:
        sys.modules.pop(f"{commands.__name__}.free_blocks", None)


def test_a_new_kind_of_heap_is_a_package_that_the_recipe_names() -> None:
    """tests/heaps/test_toy_kind.py follows the recipe; here its names are held."""
    text = recipe("a new kind of heap")
    assert (ROOT / "tests/heaps/toy/__init__.py").is_file() and "tests/heaps/toy/__init__.py" in text
    members = [name for name in vars(heaps.allocator.Allocator) if not name.startswith("_")]
    named = set(re.findall(r"`(\w+)`", text))
    assert {name for name in members if name != "kind"} <= named


@pytest.fixture
def extra_kind() -> Iterator[str]:
    """A kind of finding that only this test defines."""
    define("odd_kind", "Something odd was found", Protected.LIST)
    yield "odd_kind"
    del FINDING_RULES["odd_kind"]


def test_a_new_kind_of_finding_is_one_definition(extra_kind: str) -> None:
    assert rule_sentences()[extra_kind] == "Something odd was found"
    record = {
        "kind": extra_kind,
        "severity": "error",
        "address": "0x10",
        "length": 4,
        "message": "odd",
        "frames": [],
        "id": "1",
    }
    document = json.loads(sarif_document([record], rule_sentences(), "0", "crash.dmp"))
    (rule,) = document["runs"][0]["tool"]["driver"]["rules"]
    assert (rule["id"], rule["shortDescription"]["text"]) == (extra_kind, "Something odd was found")


@pytest.mark.golden
def test_kinds_of_findings_are_in_the_schema_and_on_the_page() -> None:
    schema = json.loads((ROOT / "docs" / "json-schema.json").read_text(encoding="utf-8"))
    heaps.allocators()  # a package defines its own kinds
    assert set(schema["$defs"]["findingKind"]["enum"]) == set(FINDING_RULES)
    page = ROOT / "docs" / "questions" / "what-broke-the-heap.md"
    rows = "".join(f"| `{rule.kind}` | {rule.sentence} |\n" for rule in FINDING_RULES.values())
    before, header, behind = re.split(r"(\| kind \| what .*\n\|---\|---\|\n)", page.read_text(encoding="utf-8"))
    now = before + header + rows + "\n" + behind.split("\n\n", 1)[1]
    if os.environ.get("HEAPDUMP_WRITE_GOLDEN"):
        page.write_text(now, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == now


def test_the_schema_names_the_kinds_of_blocks_that_allocators_bring() -> None:
    schema = json.loads((ROOT / "docs" / "json-schema.json").read_text(encoding="utf-8"))
    brought = {kind.word for one in heaps.allocators().values() for kind in one.block_kinds}
    assert set(schema["$defs"]["blockKind"]["enum"]) == brought


def paths() -> list[str]:
    """The files and folders of the repository that CONTRIBUTING.md names."""
    named = re.findall(r"`((?:heapdump|tests|docs|examples)/[\w./-]*)`", CONTRIBUTING)
    return sorted({path for path in named if path not in ("heapdump/commands/free_blocks.py",)})


@pytest.mark.parametrize("path", paths())
def test_what_contributing_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


def test_the_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = set(re.findall(r"^    make ([a-z]+)", CONTRIBUTING, re.MULTILINE))
    workflows = [path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    called |= {target for text in workflows for target in re.findall(r"run: make ([a-z]+)", text)}
    assert [target for target in sorted(called) if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_workflows_run_the_oldest_python_that_the_package_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = project["requires-python"].removeprefix(">=")
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert f'"{oldest}"' in path.read_text(encoding="utf-8")


def test_commits_that_blame_leaves_out_are_named_in_full() -> None:
    lines = (ROOT / ".git-blame-ignore-revs").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[0-9a-f]{40}", line) for line in lines if line and not line.startswith("#"))
