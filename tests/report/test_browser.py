"""The page in a browser: it opens without complaints, goes into boxes, searches, and takes text of the dump as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from heapdump.cli import run
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.posix import linked
from tests.report.chromium import Page, browser, needs_chromium
from tests.samples import SAMPLES

pytestmark = needs_chromium
IMAGE = "<img src=x onerror=alert(3)>"
HOSTILE = '<img src=x onerror="alert(1)"></script><script>alert(2)</script>\u202e{{7*7}}'
RECORDED = [
    "oracle/17763.475/corrupt-crash", "oracle/19041.508/leak-ust", "oracle/2600.5512/pageheap", "asan/asan-llvm21-x64",
    "managed/t21", "real/partial/win10-19042-x64-fastfail", "real/partial/winxp-sp2-x86-breakpad",
    "damaged/silent-200171637553814", "real/win7sp1-wow64-fizzbuzz",
]  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page of a browser."""
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def written(dump: Path, *more: str) -> Path:
    """The report on a dump, as a file beside it."""
    target = dump.with_suffix(".html")
    assert run(["report", str(dump), *more, "-o", str(target), "-q"]) in (0, 4)
    return target


def sample(name: str, folder: Path) -> Path:
    """The report on a built dump."""
    SAMPLES[name](folder / f"{name}.dmp")
    return written(folder / f"{name}.dmp")


def opens(page: Page, report: Path) -> None:
    """Holds that the page opens without complaints at both widths, dark and light, and is not wider than the window."""
    page.complaints.clear()
    for width in (1280, 390):
        for scheme in ("light", "dark"):
            page.media(scheme=scheme)
            page.open(report, width=width)
            assert page.value("document.querySelectorAll('main > section').length") >= 8
            assert page.value("document.documentElement.scrollWidth") <= width
            assert page.value("getComputedStyle(document.body).backgroundColor") == {
                "light": "rgb(251, 251, 250)", "dark": "rgb(20, 23, 26)",
            }[scheme]  # fmt: skip
    assert page.complaints == []


@pytest.mark.parametrize("name", ["service", "stacks", "damaged", "page-heap", "managed", "before-vista", "wow64"])
def test_a_page_opens_without_complaints(name: str, page: Page, tmp_path: Path) -> None:
    opens(page, sample(name, tmp_path))


@pytest.mark.real
@pytest.mark.parametrize("name", RECORDED)
def test_pages_of_recorded_dumps_open(name: str, page: Page, recorded: Callable[[str], Path], tmp_path: Path) -> None:
    linked(tmp_path / "crash.dmp", recorded(f"{name}.dmp.xz"))
    report = written(tmp_path / "crash.dmp")
    assert report.stat().st_size < 2 << 20
    opens(page, report)


def test_a_click_goes_into_a_box_and_the_path_above_it_out(page: Page, tmp_path: Path) -> None:
    page.open(sample("service", tmp_path))
    labels = "[...document.querySelectorAll('#map-boxes .box.outer, #map-boxes .box')].map(box => box.title)"
    before = page.value(labels)
    heap = next(title.split("\n")[0] for title in before if title.startswith("heap #"))
    page.value(f"[...document.querySelectorAll('#map-boxes .box')].find(b => b.title.startsWith('{heap}')).click()")
    assert page.value("document.querySelector('#map-path b').textContent") == heap
    assert page.value("location.hash").startswith("#map=")
    assert "heapdump heap " in page.value("document.querySelector('#map-detail').textContent")
    page.value("document.querySelector('#map-path button').click()")
    assert page.value("document.querySelector('#map-path b').textContent") == "all memory"
    assert page.value(labels) == before


def test_the_address_of_the_page_opens_a_box_and_searches(page: Page, tmp_path: Path) -> None:
    report = sample("stacks", tmp_path)
    page.open(report, "#map=0&graph=0&q=0x&theme=dark")
    assert page.value("document.querySelector('#map-path b').textContent") == page.value("DATA.memory[6][0][0]")
    assert page.value("document.querySelectorAll('tr.hit').length") > 0
    assert page.value("document.querySelector('#found').textContent").endswith(("lines", "boxes"))
    assert page.value("document.documentElement.dataset.theme") == "dark"


def test_keys_search_move_between_boxes_and_go_in_and_out(page: Page, tmp_path: Path) -> None:
    page.open(sample("service", tmp_path))
    page.press("/")
    assert page.value("document.activeElement.id") == "find"
    page.press(*"ntdll", "Enter")
    assert page.value("document.querySelectorAll('.cur').length") == 1
    assert page.value("document.querySelector('.cur').textContent.toLowerCase()").count("ntdll") >= 1
    page.press("Escape")
    assert page.value("document.querySelectorAll('.hit').length") == 0
    page.value("document.querySelector('#map').focus()")
    page.press("ArrowDown")
    first = page.value("document.activeElement.title")
    page.press("ArrowRight")
    assert page.value("document.activeElement.classList.contains('box')")
    page.press("ArrowDown")
    assert page.value("document.activeElement.title") != first
    page.value("document.querySelector('#map-boxes .box.outer').focus()")
    page.press("Enter")
    assert page.value("map.path.length") == 1
    page.press("Backspace")
    assert page.value("map.path.length") == 0


def test_a_row_shows_the_command_about_it(page: Page, tmp_path: Path) -> None:
    page.open(sample("service", tmp_path))
    page.value("document.querySelector('#heaps tbody tr').click()")
    line = page.value("document.querySelector('#line-text').textContent")
    assert line.split()[:2] == ["heapdump", "heap"]
    assert run([*line.split()[1:], "-q"]) in (0, 4)


def test_a_click_on_a_head_sorts_the_table(page: Page, tmp_path: Path) -> None:
    page.open(sample("service", tmp_path))
    cells = "[...document.querySelectorAll('#modules tbody tr')].map(row => row.cells[3].textContent.toLowerCase())"
    before = page.value(cells)
    page.value("document.querySelectorAll('#modules thead th')[3].click()")
    assert page.value(cells) == sorted(before)
    page.value("document.querySelectorAll('#modules thead th')[3].click()")
    assert page.value(cells) == sorted(before, reverse=True)
    sizes = "[...document.querySelectorAll('#modules tbody tr')].map(row => valueOf(row.cells[2].textContent))"
    page.value("document.querySelectorAll('#modules thead th')[2].click()")
    assert page.value(sizes) == sorted(page.value(sizes), reverse=True)


def test_boxes_are_as_wide_as_their_bytes_or_their_blocks(page: Page, tmp_path: Path) -> None:
    page.open(sample("stacks", tmp_path))
    shares = """[...document.querySelectorAll('#graph-boxes .box')].every(box => {
        const node = graph.node(box.dataset.path ? box.dataset.path.split('.').map(Number) : []).at(-1);
        return Math.abs(box.offsetWidth / graph.boxes.clientWidth - node[%d] / DATA.graph[%d]) < 0.01; })"""
    assert page.value(shares % (1, 1))
    page.value("document.querySelector('#graph-choice input[value=\"2\"]').click()")
    assert page.value(shares % (2, 2))
    assert not page.value(shares % (1, 1))


def test_every_number_of_an_answer_shows_a_command(page: Page, tmp_path: Path) -> None:
    page.open(sample("stacks", tmp_path))
    bare = "[...document.querySelectorAll('main td.n')].filter(cell => !cell.closest('[data-command]')).length"
    assert page.value(bare) == 0


def test_the_older_dump_colours_what_changed(page: Page, tmp_path: Path) -> None:
    SAMPLES["growth"](tmp_path / "growth.dmp")
    page.open(written(tmp_path / "growth-later.dmp", str(tmp_path / "growth.dmp")))
    heap = "[...document.querySelectorAll('#map-boxes .box')].find(box => box.title.startsWith('Heap')).style.getPropertyValue('--k')"
    assert page.value(heap) == "var(--grew)"
    assert page.value("document.querySelectorAll('.legend .grew').length") >= 2
    page.value("document.querySelector('#map-delta').click()")
    assert page.value(heap) == ""


def test_text_of_the_dump_stays_text(page: Page, tmp_path: Path) -> None:
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(200)
    process = ProcessBuilder(exe=f"C:\\{HOSTILE}.exe").heap(heap.build()).thread(7, ip=0x401000, name=HOSTILE)
    process.module(0x10000000, 0x5000, f"C:\\{IMAGE}.dll").write(tmp_path / "crash.dmp")
    page.complaints.clear()
    page.open(written(tmp_path / "crash.dmp"))
    assert page.value("document.querySelectorAll('img, iframe, script:not([type])').length") == 1
    assert page.value("document.querySelectorAll('[onerror], [onclick], [onload]').length") == 0
    assert "onerror" in page.value("document.querySelector('#modules').textContent")
    assert "onerror" in page.value("document.querySelector('#threads').textContent")
    assert "\u202e" not in page.value("document.documentElement.textContent")
    assert page.dialogs == [] and page.complaints == []


def test_the_page_prints_all_it_can_fold(page: Page, tmp_path: Path) -> None:
    page.open(sample("service", tmp_path))
    page.value("dispatchEvent(new Event('beforeprint'))")
    assert page.value("[...document.querySelectorAll('details.part')].every(one => one.open)")
    page.media(media="print", scheme="dark")
    assert page.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.media()


def test_paper_narrower_than_the_window_cuts_no_box(page: Page, tmp_path: Path) -> None:
    page.open(sample("stacks", tmp_path))
    for figure in ("map", "graph"):
        page.value(f"document.getElementById('{figure}-boxes').style.width = '60%'")
        page.value(f"document.getElementById('{figure}-boxes').style.height = '200px'")
        inside = f"""(() => {{ const frame = {figure}.boxes.getBoundingClientRect();
            return [...{figure}.boxes.children].every(box => box.getBoundingClientRect().right <= frame.right + 1); }})()"""
        assert page.value(inside)
    assert page.value(
        "[...map.boxes.children].every(box => box.offsetTop + box.offsetHeight <= map.boxes.clientHeight + 1)"
    )


def test_paper_says_once_what_is_missing(page: Page, tmp_path: Path) -> None:
    page.open(sample("damaged", tmp_path))
    page.value("dispatchEvent(new Event('beforeprint'))")
    notes = page.value("[...document.querySelectorAll('details.gaps')].map(one => [one.textContent, one.open])")
    assert len(notes) > len({text for text, _ in notes})
    assert sorted(text for text, is_open in notes if is_open) == sorted({text for text, _ in notes})


def test_a_phone_shows_what_the_damage_is_below_its_address(page: Page, tmp_path: Path) -> None:
    page.open(sample("damaged", tmp_path), width=390)
    ends = "[...document.querySelectorAll('#damage td:last-child')].map(cell => cell.getBoundingClientRect().right)"
    assert max(page.value(ends)) <= 390
    heights = "[...document.querySelectorAll('#damage tbody tr')].map(row => row.offsetHeight)"
    assert max(page.value(heights)) < 150


def test_long_lines_of_a_report_go_on_in_the_next_line(page: Page, tmp_path: Path) -> None:
    page.open(sample("damaged", tmp_path))
    page.value("document.querySelector('#damage pre.lines .ln').textContent += ' word'.repeat(100)")
    wide = "[...document.querySelectorAll('pre.lines')].every(one => one.scrollWidth <= one.clientWidth)"
    assert page.value(wide)
