"""Symbol stores and servers: stores that the package symstore makes, and a server of this machine."""

from __future__ import annotations

from pathlib import Path

import cabarchive
import pytest

from heapdump.dump.streams import PdbId
from heapdump.process.symbols import symbol_server
from heapdump.process.symbols.pdb import source_of
from heapdump.process.symbols.store import SymbolStores
from heapdump.process.symbols.stored_files import is_plain, wanted_pdb
from heapdump.process.symbols.symbol_path import elements
from heapdump.process.symbols.symbol_server import Consent, place_of
from tests.builders.pdb import FrameStreams, TypeStream, pdb

GUID, AGE = bytes(range(16)), 11
ID = PdbId(r"C:\build\App.pdb", "03020100050407060809" + "0A0B0C0D0E0F", AGE)
KEY = f"{ID.guid}B"
FILE = pdb(TypeStream().build(), GUID, AGE, FrameStreams())
OTHER = pdb(TypeStream().build(), bytes(16), AGE, FrameStreams())


def cabinet(data: bytes, *, compress: bool = True) -> bytes:
    archive = cabarchive.CabArchive()
    archive["app.pdb"] = cabarchive.CabFile(data)
    return bytes(archive.save(compress))


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def found(path: str, notes: list[str] | None = None, default: Path | None = None) -> str | None:
    return source_of(SymbolStores(path, notes, default), ID).source


def test_a_store_of_symstore(tmp_path):
    symstore = pytest.importorskip("symstore")
    source = put(tmp_path / "App.pdb", FILE)
    store = symstore.Store(str(tmp_path / "store"))
    transaction = store.new_transaction("app", "1", "")
    transaction.add_entry(transaction.new_entry(str(source)))
    store.commit(transaction)
    notes: list[str] = []
    assert found(f"srv*{tmp_path / 'cache'}*{tmp_path / 'store'}", notes), notes
    assert not notes
    kept = tmp_path / "cache" / "App.pdb" / KEY / "App.pdb"
    assert kept.read_bytes() == FILE
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["App.pdb"]


@pytest.mark.parametrize(
    "place",
    ["App.pdb", f"App.pdb/{KEY}/App.pdb", f"app.pdb/{KEY.lower()}/app.pdb", f"ap/App.pdb/{KEY}/App.pdb",
     "symbols/pdb/App.pdb", "pdb/App.pdb", "symbols/App.pdb"],
)  # fmt: skip
def test_where_a_folder_has_a_pdb(tmp_path, place):
    path = put(tmp_path / place, FILE)
    assert found(str(tmp_path)) == str(path)


def test_another_builds_pdb_is_refused_and_the_next_store_asked(tmp_path):
    wrong = put(tmp_path / "a" / "App.pdb" / KEY / "App.pdb", OTHER)
    right = put(tmp_path / "b" / "App.pdb", FILE)
    notes: list[str] = []
    assert found(f"{tmp_path / 'a'};{tmp_path / 'b'}", notes) == str(right)
    assert notes == [f"{wrong} is another build's: its GUID or age is not the module's"]


@pytest.mark.parametrize("form", ["{}", "PATH:{}\r\n", "path:{}"])
def test_a_pointer_is_followed_inside_the_stores_only(tmp_path, form):
    target = put(tmp_path / "builds" / "7" / "App.pdb", FILE)
    pointer = put(tmp_path / "store" / "App.pdb" / KEY / "file.ptr", form.format(target).encode())
    notes: list[str] = []
    assert found(str(tmp_path / "store"), notes) is None
    assert len(notes) == 1 and notes[0].startswith(f"{pointer} leads to")
    assert found(f"{tmp_path / 'store'};{tmp_path / 'builds'}") == str(target)


@pytest.mark.parametrize(
    "text",
    [b"MSG: gone", b"", b"\0", b"../../../../etc/passwd", rb"\\host\share\App.pdb", b"D:\\x\\App.pdb", b"\xff" * 9000],
)
def test_a_pointer_to_nowhere_is_a_note(tmp_path, text):
    put(tmp_path / "App.pdb" / KEY / "file.ptr", text)
    notes: list[str] = []
    assert found(str(tmp_path), notes) is None
    assert len(notes) == 1


def test_a_packed_file_is_unpacked_into_the_folder_to_the_left(tmp_path):
    packed = put(tmp_path / "store" / "App.pdb" / KEY / "App.pd_", cabinet(FILE))
    assert found(f"srv*{tmp_path / 'cache'}*{tmp_path / 'store'}") == str(packed)
    assert (tmp_path / "cache" / "App.pdb" / KEY / "App.pdb").read_bytes() == FILE
    notes: list[str] = []
    assert found(str(tmp_path / "store"), notes) is None and "no folder to unpack it to" in notes[0]
    assert found(str(tmp_path / "store"), default=tmp_path / "own") == str(packed)


def test_lzx_is_named(tmp_path):
    data = bytearray(cabinet(FILE))
    data[42:44] = (3 | 21 << 8).to_bytes(2, "little")  # typeCompress of the first CFFOLDER: LZX, window 21
    put(tmp_path / "store" / "App.pdb" / KEY / "App.pd_", bytes(data))
    notes: list[str] = []
    assert found(str(tmp_path / "store"), notes, tmp_path / "own") is None
    assert "is compressed with LZX: expand it" in notes[0]
    assert not [path for path in (tmp_path / "own").rglob("*") if path.is_file()]


@pytest.mark.parametrize("tier", ["", "ap/"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_server_is_asked_and_its_file_kept(tmp_path, site, tier, packed):
    if tier:
        site.answers["index2.txt"] = b""
    name = f"{tier}App.pdb/{KEY}/App.pd{'_' if packed else 'b'}"
    site.answers[name] = cabinet(FILE) if packed else FILE
    said: list[str] = []
    stores = SymbolStores(f"srv*{tmp_path}*{site.url}", [], None, said.append)
    assert source_of(stores, ID).source == f"{site.url}/{name}"
    assert len(said) == 1 and "127.0.0.1" in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ["App.pdb"]  # nothing half-written is left
    asked = len(site.asked)
    assert found(f"srv*{tmp_path}*{site.url}") == str(tmp_path / "App.pdb" / KEY / "App.pdb")
    assert len(site.asked) == asked


def test_what_a_server_does_not_have_is_asked_once(tmp_path, site):
    stores = SymbolStores(f"srv*{tmp_path}*{site.url}")
    reason = source_of(stores, ID).reason
    assert reason and f"{site.url} does not have it" in reason
    asked = list(site.asked)
    assert len(asked) == len(set(asked)) and f"/sym/App.pdb/{KEY}/App.pd_" in asked
    assert asked.index(f"/sym/App.pdb/{KEY}/App.pdb") < asked.index(f"/sym/App.pdb/{KEY}/App.pd_")
    source_of(stores, ID)
    assert site.asked == asked


def test_a_server_without_a_folder_keeps_in_the_default_one(tmp_path, site):
    site.answers[f"App.pdb/{KEY}/App.pdb"] = FILE
    assert found(site.url, default=tmp_path / "own") == f"{site.url}/App.pdb/{KEY}/App.pdb"
    assert found(site.url, default=tmp_path / "own") == str(tmp_path / "own" / "App.pdb" / KEY / "App.pdb")
    assert found(f"cache*{tmp_path / 'c'};{site.url}") and (tmp_path / "c" / "App.pdb" / KEY / "App.pdb").is_file()


def test_another_builds_pdb_of_a_server_is_not_kept(tmp_path, site):
    site.answers[f"App.pdb/{KEY}/App.pdb"] = OTHER
    notes: list[str] = []
    assert found(f"srv*{tmp_path}*{site.url}", notes) is None
    assert "another build" in notes[0] and site.url in notes[0]
    assert not list(tmp_path.iterdir())


def test_a_redirect_to_another_host_is_refused(tmp_path, site):
    site.answers[f"App.pdb/{KEY}/App.pdb"] = f"http://localhost:{site.server_port}/sym/other"
    site.answers["other"] = FILE
    notes: list[str] = []
    assert found(f"srv*{tmp_path}*{site.url}", notes) is None
    assert "http://localhost, which the symbol path does not name" in notes[0]
    assert "/sym/other" not in site.asked
    site.answers[f"App.pdb/{KEY}/App.pdb"] = "/sym/other"
    assert found(f"srv*{tmp_path}*{site.url}")


def test_more_than_the_limit_is_refused(tmp_path, site, monkeypatch):
    site.answers[f"App.pdb/{KEY}/App.pdb"] = FILE
    site.answers["index2.txt"] = 404
    monkeypatch.setattr(symbol_server, "MAX_FILE_BYTES", 1000)
    notes: list[str] = []
    assert found(f"srv*{tmp_path}*{site.url}", notes) is None
    assert "more than the 1,000 that are taken" in notes[0] and not list(tmp_path.iterdir())


def test_a_server_in_trouble_is_left_alone(tmp_path, site):
    site.answers["index2.txt"] = 503
    stores = SymbolStores(f"srv*{tmp_path}*{site.url}")
    for i in range(8):
        assert source_of(stores, PdbId(f"{i}.pdb", ID.guid, 1)).source is None
    assert len(site.asked) == 3


def test_a_server_that_is_not_there(tmp_path):
    notes: list[str] = []
    assert found(f"srv*{tmp_path}*http://127.0.0.1:9/x", notes) is None
    assert "does not answer" in notes[0]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a:b",
        "C:",
        "a\nb.pdb",
        "a\x7f.pdb",
        "con",
        "NUL.pdb",
        "x.pdb.",
        "x ",
        "a?b",
        "\ud800.pdb",
        "a" * 300,
        "\u202e.pdb",
    ],
)
def test_a_hostile_name_never_leaves(tmp_path, site, name):
    assert not is_plain(name)
    stores = SymbolStores(f"srv*{tmp_path}*{site.url}")
    for path in (name, f"..\\..\\{name}", f"C:/x/{name}"):
        if "/" not in path[-1:] and "\\" not in path[-1:]:
            assert source_of(stores, PdbId(path, ID.guid, 1)).source is None
    assert not site.asked and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("path", "reason"), [("", "the image names no file"), ("..", "its name is no file name")])
def test_a_name_that_is_no_files_is_the_reason(path, reason):
    assert source_of(SymbolStores(), PdbId(path, ID.guid, 1)).reason == reason


@pytest.mark.parametrize("guid", ["", "0" * 31, "G" * 32, "../" + "0" * 30, "0" * 41])
def test_a_hostile_key_never_leaves(guid):
    assert wanted_pdb(PdbId("a.pdb", guid, 1)) is None


def test_only_the_last_component_of_a_name_counts_and_is_encoded(tmp_path, site):
    odd = PdbId(r"..\..\secret\a b%2F#.pdb", ID.guid, AGE)
    site.answers[f"a%20b%252F%23.pdb/{KEY}/a%20b%252F%23.pdb"] = FILE
    assert source_of(SymbolStores(f"srv*{tmp_path}*{site.url}"), odd).source
    assert not any("secret" in path for path in site.asked)
    assert (tmp_path / "a b%2F#.pdb" / KEY / "a b%2F#.pdb").is_file()


def test_consent_is_for_the_hosts_of_the_path():
    consent = Consent.of(["https://a.example/x", "https://.b.example", "https://msdl.microsoft.com/download/symbols"])
    assert consent.covers("https://a.example/y") and consent.covers("https://z.y.b.example/")
    assert consent.covers("https://store1.blob.core.windows.net/f")
    for url in (
        "http://a.example/",
        "https://a.example:444/",
        "https://b.example.evil/",
        "https://xb.example/",
        "ftp://a.example/",
    ):
        assert not consent.covers(url)
    assert place_of("https://user:word@a.example/") is None and place_of("https://[x") is None


def test_elements_of_a_path():
    path = r"cache*C:\c;srv*A*B*https://x/y;symsrv*symsrv.dll*F*http://z;D:\own;https://w"
    assert [(tuple(map(str, one.stores)), one.keeps) for one in elements(path)] == [
        (("C:\\c",), False), (("C:\\c", "A", "B", "https://x/y"), True), (("C:\\c", "F", "http://z"), True),
        (("D:\\own",), False), (("C:\\c", "https://w"), True),
    ]  # fmt: skip
