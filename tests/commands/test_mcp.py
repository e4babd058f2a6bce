"""`mcp` asked by the SDK's own client over stdio: a whole investigation, budgets, limits, untrusted text, redaction."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fixtures.sample import BEFORE, NOW, sample
from heapdump.commands.common.assistant.budget import characters, fitted
from heapdump.commands.common.assistant.untrusted import redacted_places

anyio = pytest.importorskip("anyio")
pytestmark = pytest.mark.skipif(find_spec("mcp") is None, reason="the extra mcp is not installed")  # imports for 1 s
TOOLS = {
    "open_dump", "triage", "summary", "check", "heaps", "leaks", "blocks", "block", "refs", "retained", "regions",
    "threads", "modules", "memory", "managed", "gaps", "diff",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("served")
    (place / "dumps").mkdir()
    sample(NOW).write(place / "dumps" / "now.dmp")
    sample(BEFORE).write(place / "dumps" / "before.dmp")
    sample(BEFORE).write(place / "outside.dmp")
    return place


class Client:
    """Calls tools, and takes their answers apart."""

    def __init__(self, session: Any) -> None:
        self.session = session

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        result = await self.session.call_tool(name, arguments)
        text = result.content[0].text
        if result.is_error if hasattr(result, "is_error") else result.isError:
            return {"error": text}
        found: dict[str, Any] = json.loads(text)
        return found


@asynccontextmanager
async def served(folder: Path, *options: str) -> AsyncIterator[Client]:
    from mcp import ClientSession, StdioServerParameters, stdio_client

    words = ["-m", "heapdump", "mcp", "--root", str(folder / "dumps"), *options]
    parameters = StdioServerParameters(command=sys.executable, args=words, cwd=str(Path(__file__).parents[2]))
    async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield Client(session)


def test_a_whole_investigation(folder):
    async def investigate() -> None:
        async with served(folder) as client:
            listed = await client.session.list_tools()
            assert {tool.name for tool in listed.tools} == TOOLS
            prompts = await client.session.list_prompts()
            assert {one.name for one in prompts.prompts} == {
                "why_is_this_process_large",
                "what_broke_the_heap",
                "what_grew",
            }
            opened = await client.call("open_dump", path="now.dmp")
            dump = opened["dump"]
            page = await client.call("triage", dump=dump)
            assert page["data"]["heap"]["incidents"][0]["bug"] == "heap-buffer-overflow"
            assert page["data"]["who"][0]["bytes"] == 23_040_000
            group = (await client.call("leaks", dump=dump, group_by="stack"))["data"][0]
            assert group["count"] == 16
            block = await client.call("block", dump=dump, address=group["sample"][0])
            assert block["data"]["size"] == 1_228_800 and block["data"]["frames"]
            held = await client.call("refs", dump=dump, address=group["sample"][0])
            assert "visionsvc.exe!.data" in json.dumps(held["data"])
            older = (await client.call("open_dump", path="before.dmp"))["dump"]
            change = await client.call("diff", old=older, new=dump)
            assert change["data"]["groups"][0]["delta_bytes"] == 16_051_200

    anyio.run(investigate)


def test_answers_keep_to_the_budget_and_go_on(folder):
    async def ask() -> None:
        async with served(folder, "--tokens", "1000") as client:
            dump = (await client.call("open_dump", path="now.dmp"))["dump"]
            first = await client.call("blocks", dump=dump, size="..100")
            assert first["truncated"] and first["total"] > 2000 and first["next_cursor"] == len(first["data"])
            second = await client.call("blocks", dump=dump, size="..100", cursor=first["next_cursor"])
            assert second["data"][0] not in first["data"]
            for name in ("triage", "summary", "heaps", "gaps", "threads"):
                assert characters(await client.call(name, dump=dump)) < 6000, name

    anyio.run(ask)


def test_what_it_refuses(folder):
    async def ask() -> None:
        async with served(folder) as client:
            for path in ("../outside.dmp", str(folder / "outside.dmp"), "no.dmp", "/etc/passwd"):
                assert "error" in await client.call("open_dump", path=path), path
            assert "open_dump" in (await client.call("triage", dump="d7"))["error"]
            dump = (await client.call("open_dump", path="now.dmp"))["dump"]
            assert "error" in await client.call("block", dump=dump, address="nowhere!x")
            for name in ("block", "refs", "retained", "memory", "managed"):
                assert "neither an address" in (await client.call(name, dump=dump, address="--output=out.txt"))["error"]

    anyio.run(ask)


def test_text_of_the_dump_stands_apart_and_is_gone_with_redact(folder):
    async def ask(*options: str) -> dict[str, Any]:
        async with served(folder, *options) as client:
            dump = (await client.call("open_dump", path="now.dmp"))["dump"]
            return await client.call("block", dump=dump, address="0x28a66b01ae0")

    plain = anyio.run(ask)
    assert "label 00412" not in json.dumps(plain["data"]).replace(" ", "")
    assert any("untrusted_text" in one for one in plain["untrusted"])
    redacted = anyio.run(ask, "--redact")
    assert redacted["untrusted"] == [] and redacted["data"]["size"] == 24


def test_the_longest_list_is_cut_and_named():
    value: dict[str, Any] = {"a": [{"n": i} for i in range(1000)], "b": [1, 2, 3], "text": "x" * 1000}
    out, cuts = fitted(value, 2000)
    assert characters(out) <= 2000 and out["b"] == [1, 2, 3] and out["text"].endswith("(1,000 characters)")
    assert [(cut.at, cut.total, cut.shown) for cut in cuts] == [("a", 1000, len(out["a"]))]
    assert len(value["a"]) == 1000  # the answer itself is not changed


def test_what_is_taken_out_is_named_by_its_place():
    clean, original = {"a": [{"t": "[redacted]"}], "n": 1}, {"a": [{"t": "secret"}], "n": 1}
    assert list(redacted_places(clean, original, "data")) == [{"at": "data.a[0].t", "untrusted_text": "secret"}]


def test_a_server_of_the_environment_is_not_asked(folder, site, monkeypatch, tmp_path):
    from mcp import ClientSession, StdioServerParameters, stdio_client

    path = f"srv*{tmp_path}*{site.url}"

    async def ask(*options: str) -> None:
        words = ["-m", "heapdump", "mcp", "--root", str(folder / "dumps"), *options]
        variables = {"_NT_SYMBOL_PATH": path, "no_proxy": "*", **os.environ}
        parameters = StdioServerParameters(
            command=sys.executable, args=words, cwd=str(Path(__file__).parents[2]), env=variables
        )
        async with stdio_client(parameters) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            client = Client(session)
            dump = (await client.call("open_dump", path="now.dmp"))["dump"]
            await client.call("modules", dump=dump)
            await client.call("triage", dump=dump)

    anyio.run(ask)
    assert not site.asked
    anyio.run(ask, "--symbols", path)
    assert site.asked
