"""`fleet` on built dumps: a row for each, buckets, failures, resuming, lost workers, a cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from fixtures.sample import BEFORE, NOW, sample
from heapdump.cli import run
from heapdump.fleet.engine import run_all
from heapdump.fleet.paths import dumps_of


def asked(*arguments: object) -> tuple[int, str, str]:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = run(["fleet", *map(str, arguments)])
    return code, out.getvalue(), err.getvalue()


def data(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(asked(*arguments, "--json")[1])["data"]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample twice at its crash, once before; a text that is no dump; a folder below."""
    place = tmp_path_factory.mktemp("dumps")
    (place / "below").mkdir()
    sample(NOW).write(place / "a.dmp")
    shutil.copy(place / "a.dmp", place / "below" / "b.dmp")
    sample(BEFORE).write(place / "before.dmp")
    (place / "broken.dmp").write_text("no dump")
    (place / "notes.txt").write_text("left out")
    return place


def test_every_dump_is_a_row_and_the_same_bug_one_bucket(folder):
    found = data(folder, "--jobs", 2)
    rows = {Path(row["path"]).name: row for row in found["rows"]}
    assert set(rows) == {"a.dmp", "b.dmp", "before.dmp", "broken.dmp"}
    assert found["dumps"] == 4 and found["failed"] == 1
    assert "text file" in rows["broken.dmp"]["error"] and rows["broken.dmp"]["process"] is None
    assert rows["a.dmp"]["incident"]["bug"] == "heap-buffer-overflow"
    assert rows["a.dmp"]["incident"]["where"] == "visioncore.dll!FormatLabel"
    assert rows["before.dmp"]["incident"] is None
    assert rows["a.dmp"]["top"]["key"].startswith("visioncore.dll!AllocImage")
    (bug,) = found["buckets"]["bugs"]
    assert bug["dumps"] == 2 and {Path(path).name for path in bug["paths"]} == {"a.dmp", "b.dmp"}
    (growth,) = found["buckets"]["growth"]
    assert growth["dumps"] == 3 and growth["least_bytes"] < growth["most_bytes"]
    (series,) = found["buckets"]["series"]
    assert Path(series["paths"][0]).name == "before.dmp" and series["dumps"] == 3


def test_a_dump_that_cannot_be_read_is_exit_code_4(folder):
    assert asked(folder / "a.dmp", "--jobs", 1)[0] in (0, 4)
    code, out, err = asked(folder / "broken.dmp", folder / "before.dmp")
    assert code == 4 and "broken.dmp" in err
    assert "heapdump: error" not in out and "1 could not be read" in out


def test_rows_that_are_there_are_not_made_again(folder, tmp_path):
    results = tmp_path / "rows.jsonl"
    first = data(folder, "--results", results)
    lines = results.read_text().splitlines()
    assert len(lines) == 4
    # a row of another file with this name, and a line that was cut
    changed = json.loads(lines[0]) | {"bytes": 1, "top": None}
    results.write_text("\n".join([*lines, json.dumps(changed)[:40]]) + "\n")
    assert data(folder, "--results", results) == first
    again = results.read_text().splitlines()
    assert len(again) == len(lines) + 2  # only the broken dump was tried again
    assert asked(folder / "a.dmp", "--results", folder / "a.dmp")[0] == 2


def test_parquet_and_csv_have_the_same_columns(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert asked(folder, "--parquet", tmp_path / "rows.parquet", "--format", "csv", "-o", tmp_path / "rows.csv")[0] == 4
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert table.num_rows == 4
    head = (tmp_path / "rows.csv").read_text().splitlines()[0].split(",")
    assert sorted(name.replace(".", "_") for name in head) == sorted(table.column_names)


def test_folders_patterns_and_names(folder, tmp_path):
    found, missing = dumps_of([str(folder / "*.dmp"), str(folder / "notes.txt"), str(tmp_path)])
    assert [Path(one).name for one in found] == ["a.dmp", "before.dmp", "broken.dmp", "notes.txt"]
    assert missing == [str(tmp_path)]
    assert asked(tmp_path)[0] == 2 and asked()[0] == 2


def length_or_death(mark: str, path: str) -> int:
    """The length of the path; the process dies at `dies`, and at `once` the first time."""
    if path == "dies" or (path == "once" and not Path(mark).exists()):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    time.sleep(0.05)
    return len(path)


def pool() -> Executor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def test_a_lost_worker_costs_its_dump_one_retry_and_others_nothing(tmp_path):
    paths = ["a", "bb", "once", "ccc", "dies", "dddd"]
    found = list(run_all(partial(length_or_death, str(tmp_path / "mark")), paths, pool, 2))
    assert sorted(done.path for done in found) == sorted(paths)
    assert {done.path: done.result for done in found if done.error is None} == {
        path: len(path) for path in paths if path != "dies"
    }
    assert [done.path for done in found if done.error is not None] == ["dies"]


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_loses_a_worker_loses_no_dump(folder):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp"
    ) as cluster:
        victim = next(iter(cluster.workers.values())).process.pid
        signal_ = getattr(signal, "SIGKILL", signal.SIGTERM)
        paths = [str(path) for path in sorted(folder.rglob("*.dmp"))] * 1
        os.kill(victim, signal_)  # its nanny starts another one
        found = data(*paths, "--scheduler", cluster.scheduler_address)
    assert [row["path"] for row in found["rows"]] == paths
    assert found["failed"] == 1


def test_a_scheduler_that_does_not_answer_is_one_line(folder):
    pytest.importorskip("distributed")
    code, _, err = asked(folder / "a.dmp", "--scheduler", "tcp://127.0.0.1:1")
    assert code == 2 and "no scheduler answers" in err
