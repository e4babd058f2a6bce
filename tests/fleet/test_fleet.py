"""`fleet` on built dumps: a row for each, buckets, failures, resuming, lost workers, a cluster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import pytest

from fixtures.sample import BEFORE, NOW, sample
from heapdump import system
from heapdump.cli import run
from heapdump.commands.common.fleet_row import RowMaker, need_of
from heapdump.fleet.engine import Plan, run_all
from heapdump.fleet.paths import dumps_of
from tests.builders import ProcessBuilder
from tests.posix import KILL, needs_signals
from tests.requests import a_request


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
    first = data(folder, "--jobs", 1, "--results", results)
    lines = results.read_text().splitlines()
    assert len(lines) == 4
    # a row of another file with this name, and a line that was cut
    changed = json.loads(lines[0]) | {"bytes": 1, "top": None}
    results.write_text("\n".join([*lines, json.dumps(changed)[:40]]) + "\n")
    assert data(folder, "--jobs", 1, "--results", results) == first
    again = results.read_text().splitlines()
    assert len(again) == len(lines) + 2  # only the broken dump was tried again
    assert asked(folder / "a.dmp", "--results", folder / "a.dmp")[0] == 2


def test_parquet_and_csv_have_the_same_columns(folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    files = ["--parquet", tmp_path / "rows.parquet", "--format", "csv", "-o", tmp_path / "rows.csv"]
    assert asked(folder, "--jobs", 1, *files)[0] == 4
    table = parquet.read_table(tmp_path / "rows.parquet")
    assert table.num_rows == 4
    head = (tmp_path / "rows.csv").read_text().splitlines()[0].split(",")
    assert sorted(name.replace(".", "_") for name in head) == sorted(table.column_names)


def test_parquet_takes_every_number_and_every_name(folder, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    path, rows = str(folder / "a.dmp"), tmp_path / "rows.parquet"
    names = {"process": "\udcff.exe", "os": "\u200c\n", "hang": [1 << 64, "\udc00"]}
    row = RowMaker(a_request())(path) | {"private_bytes": 1 << 63} | names
    monkeypatch.setattr("heapdump.commands.fleet.run_all", lambda *_: [SimpleNamespace(result=row, error=None)])
    code, _, said = asked(path, "--parquet", rows)
    (written,) = parquet.read_table(rows).to_pylist()
    assert (code, written["private_bytes"], written["process"]) == (4, None, "\\udcff.exe")
    assert (written["os"], written["hang"]) == ("\u200c\n", '[18446744073709551616, "\\\\udc00"]')
    assert f"{path}: private_bytes does not fit in a column of {rows}: null" in said


@pytest.mark.parametrize("option", ["--results", "--parquet"])
@pytest.mark.parametrize("target", ["no/such/file", "", "a.dmp"])
def test_a_file_that_cannot_be_written_is_a_line_and_no_defect(folder, monkeypatch, option, target):
    if option == "--parquet":
        pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(folder)
    before = (folder / "a.dmp").read_bytes()
    code, _, said = asked(folder / "a.dmp", "--jobs", 1, option, target)
    assert (code, (folder / "a.dmp").read_bytes()) == (2, before)
    assert said.count("heapdump fleet: error: ") == 1
    assert "defect" not in said


@pytest.mark.parametrize("option", ["--parquet", "-o"])
def test_a_file_that_cannot_be_written_is_said_before_the_dumps_are_read(folder, monkeypatch, option):
    pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("heapdump.commands.fleet.run_all", lambda *_: pytest.fail("the dumps are read"))
    code, _, said = asked(folder, option, folder / "no" / "rows")
    assert code == 2 and "cannot write" in said


def test_folders_patterns_and_names(folder, tmp_path):
    found, missing = dumps_of([str(folder / "*.dmp"), str(folder / "notes.txt"), str(tmp_path)])
    assert [Path(one).name for one in found] == ["a.dmp", "before.dmp", "broken.dmp", "notes.txt"]
    assert missing == [str(tmp_path)]
    assert asked(tmp_path)[0] == 2 and asked()[0] == 2


def length_or_death(mark: str, path: str) -> int:
    """The length of the path; the process dies at `dies`, and at `once` the first time."""
    if path == "dies" or (path == "once" and not Path(mark).exists()):
        Path(mark).touch()
        os.kill(os.getpid(), KILL)
    time.sleep(0.05)
    return len(path)


class Together:
    """A task of threads that remembers which paths ran at a time."""

    def __init__(self) -> None:
        self.running: set[str] = set()
        self.seen: list[frozenset[str]] = []
        self.lock = threading.Lock()

    def __call__(self, path: str) -> int:
        with self.lock:
            self.running.add(path)
            self.seen.append(frozenset(self.running))
        time.sleep(0.05)
        with self.lock:
            self.running.discard(path)
        return len(path)


@pytest.mark.parametrize("room", [None, 10, 4])
def test_dumps_run_together_as_far_as_memory_allows(room):
    task, sizes = Together(), {"a": 3, "b": 6, "c": 9, "d": 2, "e": 2, "f": 99}
    found = list(run_all(task, list(sizes), lambda: ThreadPoolExecutor(4), 4, Plan(sizes.__getitem__, room)))
    assert sorted(done.path for done in found) == sorted(sizes)
    held = [sum(map(sizes.__getitem__, together)) for together in task.seen if len(together) > 1]
    assert held and (room is None or max(held) <= room)


def test_a_dump_needs_memory_by_its_size(folder):
    size = (folder / "a.dmp").stat().st_size
    assert need_of(str(folder / "a.dmp")) == (250 << 20) + size // 4


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
def test_a_cluster_that_loses_a_worker_in_the_middle_loses_no_dump(folder, tmp_path):
    distributed = pytest.importorskip("distributed")
    paths = [str(tmp_path / f"{number}.dmp") for number in range(8)]
    for path in paths:
        shutil.copy(folder / "before.dmp", path)
    results = tmp_path / "rows.jsonl"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, protocol="tcp"
    ) as cluster:
        victim = next(iter(cluster.workers.values())).process.pid

        def kill_in_the_middle() -> None:
            while not results.is_file() or not results.read_text():
                time.sleep(0.05)
            os.kill(victim, KILL)  # its nanny starts another one

        killer = threading.Thread(target=kill_in_the_middle, daemon=True)
        killer.start()
        found = data(*paths, "--jobs", "2", "--scheduler", cluster.scheduler_address, "--results", results)
        killer.join(60)
    assert [row["path"] for row in found["rows"]] == paths and found["failed"] == 0
    kept = [json.loads(line)["path"] for line in results.read_text().splitlines()]
    assert sorted(kept) == sorted(paths)


def test_a_scheduler_that_does_not_answer_is_one_line(folder):
    pytest.importorskip("distributed")
    code, _, err = asked(folder / "a.dmp", "--scheduler", "tcp://127.0.0.1:1")
    assert code == 2 and "no scheduler answers" in err


def test_an_archive_of_several_dumps_stands_for_each(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "a.dmp", "a.dmp")
        archive.write(folder / "before.dmp", "below/before.dmp")
        archive.writestr("readme.txt", "left out")
    paths = [f"zip://{name}::{tmp_path / 'all.zip'}" for name in ("a.dmp", "below/before.dmp")]
    assert dumps_of([str(tmp_path)]) == dumps_of([str(tmp_path / "all.zip")]) == (paths, [])
    results = tmp_path / "rows.jsonl"
    found = data(tmp_path, "--jobs", 1, "--results", results)
    assert [row["path"] for row in found["rows"]] == paths and found["failed"] == 0
    assert found["rows"][0]["incident"]["bug"] == "heap-buffer-overflow"
    assert data(tmp_path, "--results", results) == found and len(results.read_text().splitlines()) == 2


def test_urls_of_fsspec(folder, tmp_path):
    pytest.importorskip("fsspec")
    place = f"file://{folder}"
    assert dumps_of([f"{place}/*.dmp"])[0] == [f"{place}/{name}" for name in ("a.dmp", "before.dmp", "broken.dmp")]
    assert f"{place}/below/b.dmp" in dumps_of([place])[0]
    results = tmp_path / "rows.jsonl"
    found = data(f"{place}/b*.dmp", f"{place}/none.dmp", "nosuch://x/a.dmp", "--jobs", 1, "--results", results)
    rows = {row["path"]: row for row in found["rows"]}
    assert rows[f"{place}/before.dmp"]["process"] == "visionsvc.exe"
    assert rows[f"{place}/before.dmp"]["bytes"] == (folder / "before.dmp").stat().st_size
    assert (
        "text file" in rows[f"{place}/broken.dmp"]["error"] and "proc/self" not in rows[f"{place}/broken.dmp"]["error"]
    )
    assert rows[f"{place}/none.dmp"]["error"] and "nosuch" in rows["nosuch://x/a.dmp"]["error"]
    lines = len(results.read_text().splitlines())
    assert data(f"{place}/before.dmp", "--results", results)["dumps"] == 1
    assert len(results.read_text().splitlines()) == lines  # not read again


def test_a_dump_in_the_memory_of_a_file_system(folder, temporary_folder):
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open("memory://store/now.dmp", "wb") as target:
        target.write((folder / "a.dmp").read_bytes())
    assert dumps_of(["memory://store/*.dmp"]) == (["memory:///store/now.dmp"], [])
    row = RowMaker(a_request())("memory://store/now.dmp")
    assert row["error"] is None and row["incident"]["bug"] == "heap-buffer-overflow"
    assert row["bytes"] == (folder / "a.dmp").stat().st_size
    assert not list(temporary_folder.iterdir())


@pytest.mark.skipif(system.IS_WINDOWS, reason="TerminateProcess leaves the copy until the next start")
def test_a_killed_worker_leaves_no_copy(folder, temporary_folder, monkeypatch):
    seen = []
    with system.temporary_copy("heapdump-fleet-", a_secret) as path:
        seen += temporary_folder.iterdir()
        assert path.read_bytes() == b"secret"
    if Path("/proc/self/fd").is_dir():
        assert not seen
    monkeypatch.setattr(system, "_OPEN_FILES", temporary_folder / "none")
    left = temporary_folder / "heapdump-fleet-left"
    left.mkdir()
    os.utime(left, (1, 1))
    with system.temporary_copy("heapdump-fleet-", a_secret) as path:
        assert path.read_bytes() == b"secret" and not left.exists()
    assert not list(temporary_folder.iterdir())


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A crash in a module whose PDB a server has."""
    made = ProcessBuilder().module(0x140000000, 0x8000, r"C:\acme\app.exe", pdb=("app.pdb", bytes(range(16)), 1))
    path = tmp_path_factory.mktemp("crashed") / "crash.dmp"
    path.write_bytes(made.thread(7, ip=0x140001010).exception(7, 0xC0000005, 0x140001010).build().data)
    return path


@pytest.mark.parametrize("how", ["variable", "option"])
def test_a_server_is_asked_only_where_the_call_names_it(crashed, site, tmp_path, monkeypatch, how):
    path = f"srv*{tmp_path / 'kept'}*{site.url}"
    monkeypatch.setenv("_NT_SYMBOL_PATH", path)
    _, _, err = asked(crashed, crashed.parent, "--jobs", 1, *(["--symbols", path] if how == "option" else []))
    if how == "variable":
        assert not site.asked and err.count("not asked for symbols, as only _NT_SYMBOL_PATH names it") == 1
    else:
        assert any("app.pdb" in one for one in site.asked)
        assert err.count("asking http://127.0.0.1") == 1


def a_secret(target: BinaryIO) -> None:
    target.write(b"secret")


@needs_signals
def test_workers_end_with_a_killed_command(folder, tmp_path):
    """The worker holds the pipe of the standard output: it ends when both are gone."""
    code = (
        "import sys, time\nfrom heapdump.commands import fleet\nif __name__ == '__main__':\n"
        "    pool = fleet._opener(None, 1)()\n    pool.submit(time.sleep, 0).result()\n"
        "    print('ready', flush=True)\n    time.sleep(100)\n"
    )
    (tmp_path / "main.py").write_text(code)
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, str(tmp_path / "main.py")], env=variables, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline().strip() == b"ready"
        child.send_signal(KILL)
        reader = threading.Thread(target=child.stdout.read, daemon=True)
        reader.start()
        reader.join(60)
        assert not reader.is_alive()
