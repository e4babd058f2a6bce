"""What the code cites exists: sections of docs/reference, pages of docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
SOURCES = sorted([*(ROOT / "heapdump").rglob("*.py"), *(ROOT / "heapdump" / "layouts").glob("*.json")])


def sections(name: str) -> set[str]:
    """Numbers of the headings of a page, with those of the chapters they lie in."""
    text = (REFERENCE / name).read_text(encoding="utf-8")
    numbers = re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", text, re.MULTILINE)
    return {*numbers, *(number.split(".")[0] for number in numbers)}


def citations(path: Path) -> list[tuple[str, str]]:
    """(page, section) of each citation of a file. A `§` that names no page means the page cited last."""
    found, page = [], ""
    for match in re.finditer(r"([a-z-]+\.md)|§(\d+(?:\.\d+)?)", path.read_text(encoding="utf-8")):
        page = match[1] or page
        if match[2]:
            found.append((page, match[2]))
    return found


CITED = sorted({(page, section, path) for path in SOURCES for page, section in citations(path)})


def test_the_code_cites_the_reference() -> None:
    assert len({path for _, _, path in CITED}) > 20


@pytest.mark.parametrize(
    ("page", "section", "path"), CITED, ids=[f"{p.relative_to(ROOT)}-{page}-{number}" for page, number, p in CITED]
)
def test_each_section_that_the_code_cites_exists(page: str, section: str, path: Path) -> None:
    assert (REFERENCE / page).is_file(), f"{path} cites {page}, which is not in docs/reference"
    assert section in sections(page), f"{page} has no section {section}"


@pytest.mark.parametrize("page", sorted(p.name for p in REFERENCE.glob("*.md")))
def test_sections_of_the_reference_stand_in_order_and_once(page: str) -> None:
    text = (REFERENCE / page).read_text(encoding="utf-8")
    numbers = [
        tuple(int(part) for part in number.split("."))
        for number in re.findall(r"^#{2,3} (\d+(?:\.\d+)?)\.? ", text, re.MULTILINE)
    ]
    assert numbers == sorted(set(numbers))


def test_decisions_are_numbered_listed_and_as_the_code_names_them() -> None:
    folder = ROOT / "docs" / "decisions"
    pages = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    listed = (folder / "index.md").read_text(encoding="utf-8")
    for number, name in enumerate(pages, 1):
        text = (folder / name).read_text(encoding="utf-8")
        title = text.partition("\n")[0].removeprefix(f"# {number}. ")
        assert f"{number}. [{title}]({name})" in listed
        assert [part for part in ("**Context.**", "**Choice.**", "**What we gave up.**") if part not in text] == []
    for source in (ROOT / "heapdump").rglob("*.py"):
        for cited in re.findall(r"docs/decisions/([\w-]+\.md)", source.read_text(encoding="utf-8")):
            assert cited in pages, f"{source} cites {cited}"
