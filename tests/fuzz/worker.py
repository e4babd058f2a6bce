"""Answers command lines in a process of its own: `python -m tests.fuzz.worker`, one JSON list a line."""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from pathlib import Path

from tests.asking import ask

_SHOWN = 2000


def main() -> None:
    """Reads the folder of the index, then questions; writes answers."""
    index = Path(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        before = time.process_time()
        answer = ask(index, json.loads(line))
        used = time.process_time() - before
        gc.collect()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        raw = "\x1b" in answer.stdout + answer.stderr or "\u202e" in answer.stdout + answer.stderr
        out = answer.stdout if len(answer.stdout) < 1 << 20 else ""
        reply = {"code": answer.exit_code, "err": answer.stderr[-_SHOWN:], "cpu": used, "peak": peak, "raw": raw}
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
