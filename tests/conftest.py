"""Fixtures of all tests: built dumps on disk, opened dumps, recorded dumps beside the project."""

from __future__ import annotations

import gc
import lzma
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import heapdump
from heapdump import kernels
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, ProcessBuilder
from tests.loopback import Site, serving
from tests.recordings import FOLDER, Recorded

# the fixtures used inside properties write a new file at every call, so sharing them between examples is sound
_UNHURT = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("fuzz", deadline=None, max_examples=50, suppress_health_check=_UNHURT)
settings.register_profile("ci", settings.get_profile("fuzz"), max_examples=8, derandomize=True, database=None)
settings.load_profile("fuzz" if os.environ.get("HEAPDUMP_FUZZ") else "ci")

WriteDump = Callable[..., Path]
OpenBuilt = Callable[[BuiltDump | bytes | ProcessBuilder], AbstractContextManager[Snapshot]]


@pytest.fixture(autouse=True, scope="session")
def _index_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's own index; commands run in other processes have it from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEAPDUMP_CACHE", str(tmp_path_factory.mktemp("index")))
        patch.delenv("COLUMNS", raising=False)  # a wide terminal, or a runner of tests in parallel, sets it
        patch.setattr(
            kernels, "announce_compiling", lambda say: None
        )  # which test compiles a kernel depends on those before it
        yield


_FOLDER_NUMBERS = count()


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new folder. Pytest's own fixture lists all folders before each: 9 CPU seconds for 5,000 tests, this one 0.3."""
    folder = tmp_path_factory.getbasetemp() / f"test-{next(_FOLDER_NUMBERS)}"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def write_dump(tmp_path: Path) -> WriteDump:
    """Writes a built dump (or bytes) to a new file; returns its path."""
    numbers = count()

    def write(content: BuiltDump | bytes, name: str = "") -> Path:
        path = tmp_path / (name or f"{next(numbers)}.dmp")
        path.write_bytes(content if isinstance(content, bytes) else content.data)
        return path

    return write


@pytest.fixture
def open_built(write_dump: WriteDump) -> OpenBuilt:
    """Opens a built dump, without an index, for the length of a `with`; the file is gone afterwards."""

    @contextmanager
    def opened(content: BuiltDump | bytes | ProcessBuilder) -> Iterator[Snapshot]:
        path = write_dump(b"" if isinstance(content, ProcessBuilder) else content)
        if isinstance(content, ProcessBuilder):
            content.write(path)
        try:
            with heapdump.open_dump(path, use_index=False) as snapshot:
                yield snapshot
        finally:
            path.unlink()

    return opened


def pytest_configure() -> None:
    """Hardly any garbage has cycles: searched for at each 700 new objects, a tenth of the suite's time was spent on it."""
    gc.set_threshold(20_000)


def pytest_collection_finish() -> None:
    """Tests, modules and their parameters live as long as the run: the garbage collector passes them over."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that reads recorded dumps is marked so: `-m real` runs all that a clone without them skips."""
    for item in items:
        if "recorded" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("real"):
            raise pytest.UsageError(f"{item.nodeid} reads recorded dumps without the marker `real`")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the sums of what random damages did (`tests.heaps.nt.damage`): one line, where such tests ran."""
    sums = Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport) and report.when == "call":
                sums.update({name: value for name, value in report.user_properties if isinstance(value, int)})
    if sums["damages"]:
        terminalreporter.write_line("; ".join(f"{name}: {count:,}" for name, count in sums.items()))


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorded]:
    """The path of a recorded file, relative to ../shared/dumps; `.xz` ones come unpacked, once a session."""
    folder = tmp_path_factory.mktemp("recorded")

    def path_of(relative: str) -> Path:
        source = FOLDER / relative
        if not FOLDER.is_dir():
            pytest.skip(f"the recorded dumps are not beside the project: {FOLDER} is missing")
        if not source.is_file():
            pytest.skip(f"{relative} is not among the recorded dumps")
        if source.suffix != ".xz":
            return source
        target = folder / relative.replace("/", "_").removesuffix(".xz")
        if not target.exists():
            with lzma.open(source) as packed, target.open("wb") as out:
                shutil.copyfileobj(packed, out, 1 << 20)
        return target

    yield path_of
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The (empty) folder that temporary files go to during the test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web server on this machine."""
    monkeypatch.setenv("no_proxy", "*")
    with serving() as made:
        yield made
