"""Answers command lines in a process of its own: `python -m tests.fuzz.worker`, one JSON list a line."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from heapdump.commands.common.assistant.session import Session
from heapdump.errors import HeapdumpError
from tests.asking import Answer, ask
from tests.requests import a_request

_SHOWN = 2000


def called(index: Path, dump: str, calls: list[tuple[str, dict[str, Any]]], options: list[str]) -> Answer:
    """What a session of `mcp` answers to calls of its tools, as JSON lines; exit code 70 for a defect."""
    from heapdump.commands.common.assistant.server import Tools

    os.environ["HEAPDUMP_CACHE"] = str(index)
    session = Session(a_request(redact="--redact" in options), None, 2000 if "--tokens" in options else 16_000)
    out: list[str] = []
    try:
        tools = Tools(session)
        name = tools.open_dump(dump)["dump"]
        for tool, given in calls:
            dumps = {"old": name, "new": name} if tool == "diff" else {"dump": name}
            try:
                out.append(json.dumps(getattr(tools, tool)(**dumps, **given)))
            except Exception as error:
                if type(error).__name__ != "ToolError":
                    raise
                out.append(str(error))
    except Exception as error:  # noqa: BLE001  # a defect is what is looked for
        is_refused = isinstance(error, HeapdumpError) or type(error).__name__ == "ToolError"
        return Answer(3 if is_refused else 70, "\n".join(out), f"{type(error).__name__}: {error}")
    finally:
        session.close()
    return Answer(0, "\n".join(out), "")


def peak_bytes() -> int:
    """The highest memory of this process so far; 0 where the system does not say it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak: int = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak << 10


def main() -> None:
    """Reads the folder of the index, then questions; writes answers."""
    index = Path(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        before = time.process_time()
        words = json.loads(line)
        answer = called(index, words[1], json.loads(words[2]), words[3:]) if words[0] == "mcp" else ask(index, words)
        used = time.process_time() - before
        gc.collect()
        raw = "\x1b" in answer.stdout + answer.stderr or "\u202e" in answer.stdout + answer.stderr
        out = answer.stdout if len(answer.stdout) < 1 << 20 else ""
        reply = {
            "code": answer.exit_code,
            "err": answer.stderr[-_SHOWN:],
            "cpu": used,
            "peak": peak_bytes(),
            "raw": raw,
        }
        is_json = True
        if "--json" in json.loads(line) and answer.exit_code in (0, 1, 4) and out.lstrip().startswith("{"):
            try:
                json.loads(out)
            except ValueError:
                is_json = False
        sys.__stdout__.write(json.dumps(reply | {"is_json": is_json}) + "\n")  # type: ignore[union-attr]
        sys.__stdout__.flush()  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
