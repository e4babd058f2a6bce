"""`retained` on built processes: suspects with their shape, the tree, groups, one block."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from heapdump import cli
from heapdump.analyses.graph.retained_top import STORED
from heapdump.snapshot import Snapshot
from tests.asking import ask
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.heaps.nt.plans import Generation, process_of
from tests.heaps.test_crt import NAMES, crt_heap
from tests.patching import poke, word

N = 60
Links = list[tuple[int, int, int]]
"""(block, offset, block that it points to)"""


def run(*arguments: str) -> tuple[int, str, str]:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = cli.run(["retained", *arguments])
    return code, out.getvalue(), err.getvalue()


def write(path: Path, sizes: list[int], links: Links, texts: dict[int, bytes] | None = None) -> list[int]:
    """A process whose .data holds block 0; the addresses of the blocks."""
    heap = NtHeapBuilder(base=0x20000000000)
    users = [heap.busy(size, (texts or {}).get(i, b"")) for i, size in enumerate(sizes)]
    process = ProcessBuilder().heap(heap.build())
    changes = [(users[a] + offset, word(users[b])) for a, offset, b in links]
    path.write_bytes(poke(process.build(), (process.plan.exe + 0xC000 - 0x1000, word(users[0])), *changes).data)
    return users


def linked(count: int, back: bool = False) -> Links:
    """Element i at number i + 1, the head is number 0."""
    out = [(0, 0, 1)] + [(i, 0, i + 1) for i in range(1, count)]
    return out + [(i + 1, 8, i) for i in range(1, count)] * back


def tree(count: int) -> Links:
    return [(0, 0, 1)] + [(i, 8 * (j % 2), j) for i in range(1, count + 1) for j in (2 * i, 2 * i + 1) if j <= count]


def array(count: int, chains: int = 1) -> Links:
    """Number 1 is an array of pointers to every so manieth element, the others follow those."""
    out = [(0, 0, 1)] + [(1, 8 * (i // chains), 2 + i) for i in range(0, count, chains)]
    return out + [(2 + i, 0, 3 + i) for i in range(count - 1) if (i + 1) % chains]


STRUCTURES = {
    "a linked list": ([32] + [48] * N, linked(N)),
    "a linked list, both ways": ([32] + [48] * N, linked(N, back=True)),
    "a tree or map": ([32] + [48] * N, tree(N)),
    "an array of pointers": ([32, 8 * N] + [48] * N, array(N)),
    "a hash table": ([32, 8 * N] + [48] * N, array(N, chains=3)),
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_suspects_say_what_holds_how_much_and_how_it_is_linked(tmp_path, structure):
    sizes, links = STRUCTURES[structure]
    path = tmp_path / "x.dmp"
    users = write(path, [*sizes, 100], links)
    data = json.loads(run(str(path), "--json")[1])["data"]
    assert data["total"] == {"bytes": sum(sizes), "blocks": len(sizes)}
    (suspect,) = data["suspects"]
    assert (suspect["address"], suspect["root"], suspect["retained_bytes"]) == (
        hex(users[0]),
        "app.exe!.data+0x1000",
        sum(sizes),
    )
    assert (suspect["elements"], suspect["element_size"]) == (N, 48)
    assert f"it looks like {structure.partition(',')[0]}" in suspect["text"]
    assert suspect["text"].startswith(f"one block at {users[0]:#x}, reached from app.exe!.data+0x1000, retains ")
    assert f"(100%) in {len(sizes)} blocks, {N} of them of 48 bytes" in suspect["text"]


def test_a_vector_and_its_strings_are_recognised(tmp_path):
    """{begin, end, end of capacity} of an array of pointers to texts."""
    sizes, links = [24, 8 * N] + [48] * N, array(N)[1:]
    path = tmp_path / "x.dmp"
    texts = {2 + i: b"a text of many" for i in range(N)}
    users = write(path, sizes, links, texts)
    vector = word(users[1]) + word(users[1] + 8 * N) * 2
    assert write(path, sizes, links, texts | {0: vector}) == users
    (suspect,) = json.loads(run(str(path), "--json")[1])["data"]["suspects"]
    assert (suspect["shape"], suspect["content"]) == ("vector of pointers", "text (ASCII)")
    assert suspect["accumulation_point"] == hex(users[1])


def test_blocks_alike_that_only_roots_hold_are_a_suspect_together(tmp_path):
    heap = NtHeapBuilder(base=0x20000000000)
    users = [heap.busy(100, b"many texts like this") for _ in range(30)]
    process = ProcessBuilder().heap(heap.build())
    data = process.plan.exe + 0xC000 - 0x1000
    path = tmp_path / "x.dmp"
    path.write_bytes(poke(process.build(), *((data + 8 * i, word(user)) for i, user in enumerate(users))).data)
    (suspect,) = json.loads(run(str(path), "--json")[1])["data"]["suspects"]
    assert suspect["text"] == "30 top-level blocks (text (ASCII)) together retain 2.9 kB (100%) in 30 blocks"


def test_one_block_with_what_is_above_and_below_it(tmp_path):
    path = tmp_path / "x.dmp"
    users = write(path, [32, *[48] * N], tree(N))
    data = json.loads(run(str(path), hex(users[2] + 8), "--json")[1])["data"]
    assert (
        data["block"]["address"] == hex(users[2])
        and data["block"]["retained_blocks"]
        == 1 + data["children"][0]["retained_blocks"] + data["children"][1]["retained_blocks"]
    )
    assert [row["address"] for row in data["dominators"]] == [hex(users[1]), hex(users[0])]
    assert {row["address"] for row in data["children"]} == {hex(users[4]), hex(users[5])}
    text = run(str(path), hex(users[2]))[1]
    assert "Held by, nearest first" in text and f"{users[1]:#x}" in text


def test_groups_count_what_they_retain_once(tmp_path):
    path = tmp_path / "x.dmp"
    write(path, [32, *[48] * N], linked(N), dict.fromkeys(range(1, N + 1), b"listed"))
    rows = json.loads(run(str(path), "--by", "type", "--json")[1])["data"]
    assert {row["key"]: row["retained_bytes"] for row in rows}["pointer to a heap block"] == 32 + 48 * N
    assert run(str(path), "--by", "stack")[0] == 4  # no stacks are recorded


def test_what_nothing_holds_retains_nothing(tmp_path):
    path = tmp_path / "x.dmp"
    users = write(path, [32, 48, 64], [])
    code, _, err = run(str(path), hex(users[1]))
    assert code == 2 and "no root leads to" in err
    assert run(str(path), "0x1234")[0] == 2


def test_blocks_of_the_crts_debug_heap_are_told_by_what_the_program_got(tmp_path):
    heap, users, changes = crt_heap(("x64", "ucrt"), [(64, NAMES, 10 + i, 1, i + 1) for i in range(12)])
    process = process_of(Generation("x64", 19041), heap.build())
    process.region(NAMES, 0x1000).memory(NAMES, b"main.cpp".ljust(0x1000, b"\0"))
    chain = [(users[i], word(users[i + 1])) for i in range(9)]
    path = tmp_path / "crt.dmp"
    path.write_bytes(poke(process.build(), *changes, (process.plan.exe + 0xC000 - 0x1000, word(users[0])), *chain).data)
    data = json.loads(run(str(path), "--json", "--no-cache")[1])["data"]
    assert [(block["address"], block["size"], block["retained_bytes"]) for block in data["blocks"]] == [
        (hex(users[0]), 64, 640)
    ]
    assert data["suspects"][0]["address"] == hex(users[0]) and f"{users[0]:#x}" in data["suspects"][0]["text"]
    below = json.loads(run(str(path), hex(users[0]), "--json", "--no-cache")[1])["data"]
    assert (below["children"][0]["address"], below["children"][0]["dominator"]) == (hex(users[1]), hex(users[0]))
    with redirect_stdout(StringIO()) as out:
        cli.run(["refs", str(path), hex(users[1]), "--json", "--no-cache"])
    answer = json.loads(out.getvalue())["data"]
    assert [(h["block"], h["offset"], h["to"], h["to_offset"]) for h in answer["holders"]] == [
        (hex(users[0]), 0, hex(users[1]), 0)
    ]
    assert [(t["offset"], t["to"], t["to_size"]) for t in answer["targets"]] == [(0, hex(users[2]), 64)]
    assert [block["address"] for block in answer["paths"][0]["blocks"]] == [hex(users[0]), hex(users[1])]


def test_what_top_and_limit_leave_out_is_said(tmp_path):
    path = tmp_path / "array.dmp"
    users = write(path, [32, 8 * N] + [48] * N, array(N))
    out = run(str(path), hex(users[1]), "--top", "5")[1]
    assert out.count("48 B      48 B") == 5 and f"… {N - 5} more (--all, or --limit N)" in out
    assert run(str(path), hex(users[1]), "--limit", "5")[1] == out
    assert run(str(path), hex(users[1]), "--all")[1].count("48 B      48 B") == N
    code, _, err = run(str(path), hex(users[1]), "--by", "type")
    assert code == 2 and "--group-by groups all blocks" in err


def held_by_roots(path: Path, contents: list[bytes]) -> list[int]:
    """A process whose .data holds each of some blocks; their addresses."""
    heap = NtHeapBuilder(base=0x20000000000, reserve=0x400000)
    users = [heap.busy(48 + 16 * (i % 3), content) for i, content in enumerate(contents)]
    process = ProcessBuilder().heap(heap.build())
    first = process.plan.exe + 0xC000 - 0x1000
    path.write_bytes(poke(process.build(), *((first + 8 * i, word(user)) for i, user in enumerate(users))).data)
    return users


def test_the_stored_answer_is_the_beginning_of_a_longer_one(tmp_path, monkeypatch):
    path = tmp_path / "many.dmp"
    users = held_by_roots(path, [b""] * (STORED + 20))
    asked = [[str(path), "--json", *more] for more in ([], ["--limit", "3"], ["--limit", str(STORED + 1)], ["--all"])]
    plain = [ask(tmp_path / "cache", ["retained", *call, "--no-cache"]) for call in asked]
    assert [ask(tmp_path / "cache", ["retained", *call]) for call in asked] == plain
    monkeypatch.setattr(Snapshot, "retained", property(lambda _: pytest.fail("the tree is not needed")))
    assert [ask(tmp_path / "cache", ["retained", *call]) for call in asked[:2]] == plain[:2]
    found = [[row["address"] for row in json.loads(one.stdout)["data"]["blocks"]] for one in plain]
    assert [len(rows) for rows in found] == [20, 3, STORED + 1, len(users)]
    assert all(rows == found[-1][: len(rows)] for rows in found)


def test_a_member_that_is_no_number_or_text_in_any_row_has_no_order(tmp_path):
    path = tmp_path / "texts.dmp"
    held_by_roots(path, [b"\x05", b"a text of many letters", b"another text of letters", b"\x06"])
    types = [row["type"] for row in json.loads(run(str(path), "--json")[1])["data"]["blocks"]]
    assert None in types and any(types), "some rows have a type, others have none"
    code, _, err = run(str(path), "--sort", "type", "--json")
    assert code == 2 and "cannot sort by 'type'" in err


def rows_of(path: Path, *arguments: str) -> list[tuple[int, str, int, int, list[int]]]:
    """(level, type, blocks, retained bytes, offsets) of each row of the tree."""
    code, out, _ = run(str(path), "--tree", "--json", "-q", *arguments)
    assert code == 0
    return [
        (row["level"], row["type"]["short"], row["count"], row["retained_bytes"], row["offsets"])
        for row in json.loads(out)["data"]
    ]


def test_the_tree_has_a_row_for_each_type_with_the_member_that_holds_it(tmp_path):
    path = tmp_path / "dump.dmp"
    names = {2 + 2 * i + 1: b"the name of an element" for i in range(N)}
    sizes = [32, 8 * N + 8, *[48, 24] * N]
    links = [(0, 0, 1), *((1, 8 * i, 2 + 2 * i) for i in range(N)), *((2 + 2 * i, 40, 3 + 2 * i) for i in range(N))]
    users = write(path, sizes, links, {**names, **{2 + 2 * i: b"\x01\x07" for i in range(N)}})
    found = rows_of(path)
    assert [(level, count, size) for level, _, count, size, _ in found] == [
        (0, 1, sum(sizes)), (1, 1, sum(sizes) - 32), (2, N, 72 * N), (3, N, 24 * N),
    ]  # fmt: skip
    assert [offsets for *_, offsets in found] == [[], [0], [0], [40]]
    assert found[3][1] == "text (ASCII)"
    assert [row[0] for row in rows_of(path, "--depth", "2")] == [0, 1]
    below = rows_of(path, hex(users[2]))
    assert [(level, count, size) for level, _, count, size, _ in below] == [(0, 1, 72), (1, 1, 24)]


def test_the_nodes_of_a_list_are_one_row_of_the_tree(tmp_path):
    path = tmp_path / "dump.dmp"
    users = write(path, [32] + [48] * N, linked(N))
    assert [(level, count) for level, _, count, *_ in rows_of(path)] == [(0, 1), (1, N)]
    below = rows_of(path, hex(users[N // 2]))
    assert below[0][2] == N - N // 2 + 1
    assert below[0][3] == 48 * (N - N // 2 + 1)


def test_options_of_the_tree_are_checked(tmp_path):
    path = tmp_path / "dump.dmp"
    write(path, [32, 48], [(0, 0, 1)])
    assert run(str(path), "--tree", "--group-by", "type")[0] == 2
    assert run(str(path), "--depth", "3")[0] == 2


def test_rows_that_machine_formats_leave_out_are_said(tmp_path):
    users = write(tmp_path / "a.dmp", [32] + [48] * 30, linked(30))
    last = f"{users[-1]:#x}"
    code, out, _ = run(str(tmp_path / "a.dmp"), last, "--json")
    answer = json.loads(out)
    assert (code, len(answer["data"]["dominators"])) == (0, 20)
    assert "20 of 30 blocks that hold it are listed: --all, or --limit N" in answer["notes"]
    assert "… 10 more (--all, or --limit N)" in run(str(tmp_path / "a.dmp"), last)[1]
    answer = json.loads(run(str(tmp_path / "a.dmp"), last, "--json", "--all")[1])
    assert len(answer["data"]["dominators"]) == 30 and not any("are listed" in note for note in answer["notes"])
    holder = f"{write(tmp_path / 'b.dmp', [32 * 8] + [48] * 30, [(0, 8 * i, i + 1) for i in range(30)])[0]:#x}"
    answer = json.loads(run(str(tmp_path / "b.dmp"), holder, "--json")[1])
    assert "20 of 30 blocks that it alone holds are listed: --all, or --limit N" in answer["notes"]
