"""Symbol paths and symbol stores: where the file of a module's build is, on disk or on a server that the path names.

In a store a file lies under `name/key/name`, with an index2.txt under `na/name/key/name`; in its
place may be a cabinet (`name_`), or a `file.ptr` that says where it is. Source: Microsoft's pages on symbol stores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, BinaryIO

from heapdump import system
from heapdump.process.symbols.stored_files import NotKept, Wanted, copy, keep, move_in, packed_name, unpack
from heapdump.process.symbols.symbol_path import SHARE, Element, elements

if TYPE_CHECKING:
    from heapdump.process.symbols.symbol_server import SymbolServer

_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_LONGEST_POINTER = 4096
Refusal = Callable[[Path], str]
"""Path of a file → why it is not the one that is wanted; "" where it is."""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A file of the right build. `source`: the URL, cabinet or pointer that it came from, else its own path."""

    path: Path
    source: str


class SymbolStores:
    """The stores of a symbol path. What was found or not found stays so for the life of this object."""

    def __init__(
        self,
        symbol_path: str = "",
        notes: list[str] | None = None,
        default: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`notes` gets a line for each file that cannot be used. `say` gets the lines that a user has to know.

        `default`: the folder that keeps what comes from a server or a cabinet where the path names none.
        """
        self.notes: list[str] = [] if notes is None else notes
        self.default, self.say = default, say
        self.elements = [self._with_default(one) for one in elements(symbol_path)]
        self._servers: dict[str, SymbolServer] = {}
        self._found: dict[Wanted, StorePlace | None] = {}
        self._reasons: dict[Wanted, dict[str, None]] = {}

    @classmethod
    def of_folder(cls, folder: Path) -> SymbolStores:
        """One folder, whatever characters its name has."""
        out = cls()
        out.elements = [Element((folder,), keeps=False)]
        return out

    def __bool__(self) -> bool:
        """True where there is a store to ask."""
        return bool(self.elements)

    def candidates(self, wanted: Wanted, refusal: Refusal) -> Iterator[StorePlace]:
        """The files that `refusal` accepts, best first; what lies behind is searched only if the caller goes on."""
        known = self._found.get(wanted)
        if wanted in self._found and known is None:
            return
        if known is not None:
            yield known
        for found in _FileSearch(self, wanted, refusal).run():
            if self._found.get(wanted) is None:
                self._found[wanted] = found
            if found != known:
                yield found
        self._found.setdefault(wanted, None)

    def reason(self, wanted: Wanted) -> str:
        """Why the file was not found, after it was searched: what each store said."""
        return "; ".join(self._reasons.get(wanted, {}))

    def note(self, wanted: Wanted, line: str, *, is_news: bool = True) -> None:
        """Keeps a line as a reason why the file is not there; `is_news`: in the notes, too."""
        self._reasons.setdefault(wanted, {})[line] = None
        if is_news and line not in self.notes:
            self.notes.append(line)

    def roots(self) -> list[Path]:
        """The folders of all elements: a pointer may lead there."""
        return [store for element in self.elements for store in element.stores if isinstance(store, Path)]

    def server(self, url: str) -> SymbolServer:
        """The server of an element; one object for each."""
        from heapdump.process.symbols.symbol_server import Consent, SymbolServer

        if url not in self._servers:
            named = [one for element in self.elements for one in element.stores if isinstance(one, str)]
            self._servers[url] = SymbolServer(url, Consent.of(named), self.say)
        return self._servers[url]

    def _with_default(self, element: Element) -> Element:
        """The element with the default folder to the left of a server that has none there."""
        first = element.stores[0]
        if self.default is None or isinstance(first, Path):
            return element
        return Element((self.default, *element.stores), element.keeps)


class _FileSearch:
    """The search for one file."""

    def __init__(self, stores: SymbolStores, wanted: Wanted, refusal: Refusal) -> None:
        self._stores, self._wanted, self._refusal = stores, wanted, refusal

    def run(self) -> Iterator[StorePlace]:
        """Every file of the right build, in the order of the path."""
        for element in self._stores.elements:
            for i, store in enumerate(element.stores):
                left = [one for one in element.stores[:i] if isinstance(one, Path)]
                found = self._in_folder(store, left) if isinstance(store, Path) else self._on_server(store, left)
                for one in found:
                    if element.keeps:
                        self._copy_left(one, left)
                    yield one

    def _in_folder(self, folder: Path, left: list[Path]) -> Iterator[StorePlace]:
        found_any = False
        for place in _places(folder, self._wanted):
            for path in self._forms(place, folder):
                found_any = True
                found = self._opened(path, [folder, *left])
                if found is not None:
                    yield found
        if not found_any:
            self._stores.note(self._wanted, f"not in {folder}", is_news=False)

    def _forms(self, place: Path, folder: Path) -> Iterator[Path]:
        """The file, its cabinet, and where a pointer in the folder of its key leads."""
        for path in (place, place.with_name(packed_name(place.name))):
            if _is_file(path):
                yield path
        pointer = place.with_name("file.ptr")
        if place.parent != folder and _is_file(pointer):
            target = self._pointed(pointer)
            if target is not None:
                yield target

    def _opened(self, path: Path, around: list[Path]) -> StorePlace | None:
        """The file itself, or what its cabinet holds. `around`: the store, then those to its left."""
        if not path.name.endswith("_") or self._wanted.name.endswith("_"):
            return StorePlace(path, str(path)) if self._is_right(path, str(path)) else None
        keeper = around[-1] if len(around) > 1 else self._stores.default
        if keeper is None:
            self._note(f"{path} is packed, and there is no folder to unpack it to: write srv*FOLDER*{around[0]}")
            return None
        unpacked = self._wanted.below(keeper)
        if _is_file(unpacked) and not self._refusal(unpacked):
            return StorePlace(unpacked, str(path))

        def write(out: BinaryIO) -> None:
            """The unpacked file."""
            with path.open("rb") as source:
                unpack(source, out)

        return self._stored(keeper, write, str(path))

    def _stored(self, keeper: Path, write: Callable[[BinaryIO], bool | None], source: str) -> StorePlace | None:
        """The file in the store that keeps it, if it is the right one; None without one, or where it cannot be kept."""
        is_kept = self._unless_refused(
            lambda: keep(keeper, self._wanted, write, lambda part: self._is_right(part, source)), keeper, source
        )
        return StorePlace(self._wanted.below(keeper), source) if is_kept else None

    def _downloaded(
        self, server: SymbolServer, below: tuple[str, ...], keeper: Path, *, is_packed: bool
    ) -> StorePlace | None:
        """A server's file in the store that keeps it; None where the server does not have it or it is not the one."""
        from heapdump.process.symbols.downloads import part_of

        source = server.address(below)

        def fill() -> bool:
            """Puts the file into the store; False where there is none."""
            with part_of(keeper, source) as part:
                if not server.download(below, part):
                    return False
                part.close()
                if not is_packed:
                    return move_in(part.path, keeper, self._wanted, lambda path: self._is_right(path, source))
                with part.path.open("rb") as packed:
                    return self._stored(keeper, lambda out: unpack(packed, out), source) is not None

        is_there = self._unless_refused(fill, keeper, source)
        return StorePlace(self._wanted.below(keeper), source) if is_there else None

    def _unless_refused(self, fill: Callable[[], bool], keeper: Path, source: str) -> bool:
        """What `fill` returns; False, with a note, where it cannot write or unpack the file."""
        try:
            return fill()
        except NotKept as error:
            self._note(f"{source} {error}")
        except OSError as error:
            self._note(f"{source} cannot be kept in {keeper}: {error.strerror or error}")
        return False

    def _is_right(self, path: Path, source: str) -> bool:
        why = self._refusal(path)
        if why:
            self._note(f"{source} {why.replace(str(path), source)}")
        return not why

    def _note(self, line: str) -> None:
        self._stores.note(self._wanted, line)

    def _copy_left(self, found: StorePlace, left: list[Path]) -> None:
        for folder in reversed(left):
            if self._wanted.below(folder) != found.path and not _is_file(self._wanted.below(folder)):
                self._stored(folder, lambda out: copy(found.path, out), str(found.path))

    def _on_server(self, url: str, left: list[Path]) -> Iterator[StorePlace]:
        from heapdump.process.symbols.symbol_server import ServerTrouble, place_of

        place = place_of(url)
        if place is None:
            what = (
                "a share, which cannot be opened on this system: mount it"
                if SHARE.match(url)
                else "not used: no plain URL"
            )
            self._note(f"an element of the symbol path is {what}")
            return
        if place[1].startswith("."):  # a domain that servers may send on to
            return
        if not left:
            self._note(f"{url} is not asked: there is no folder to keep its files in: write srv*FOLDER*{url}")
            return
        try:
            found = self._fetched(self._stores.server(url), left[-1])
        except ServerTrouble as trouble:
            self._note(f"{url} {trouble}")
            return
        if found is not None:
            yield found

    def _fetched(self, server: SymbolServer, keeper: Path) -> StorePlace | None:
        name, key = self._wanted.name, self._wanted.key
        tier = (name[:2].lower(),) if len(name) > 1 and server.is_two_tier else ()
        for folder, file in dict.fromkeys(((name, name), (name.lower(), name.lower()))):
            for form in (file, packed_name(file)):
                below = (*tier, folder, key, form)
                found = self._downloaded(server, below, keeper, is_packed=form != file)
                if found is not None:
                    return found
            pointer = BytesIO()
            if server.fetch((*tier, folder, key, "file.ptr"), pointer, _LONGEST_POINTER):
                target = self._target(pointer.getvalue(), server.address((*tier, folder, key, "file.ptr")), None)
                return self._opened(target, [keeper]) if target is not None and _is_file(target) else None
        self._stores.note(self._wanted, f"{server.url} does not have it", is_news=False)
        return None

    def _pointed(self, pointer: Path) -> Path | None:
        try:
            with pointer.open("rb") as file:
                text = file.read(_LONGEST_POINTER)
        except OSError as error:
            self._note(f"{pointer} cannot be read: {error.strerror or error}")
            return None
        return self._target(text, str(pointer), pointer.parent)

    def _target(self, text: bytes, source: str, folder: Path | None) -> Path | None:
        """The file that a file.ptr names, if it lies in a folder of the symbol path."""
        line = next(iter(text.decode("utf-8-sig", "replace").splitlines()), "").strip()
        if line[:4].upper() == "MSG:":
            self._note(f"{source} has only a message: {line[4:].strip()[:200]!r}")
            return None
        path = line[5:].strip() if line[:5].upper() == "PATH:" else line
        try:
            target = _inside(path, folder, self._stores.roots())
        except (OSError, ValueError, RuntimeError) as error:
            self._note(f"{source} names no path: {error}")
            return None
        if target is None:
            self._note(
                f"{source} leads to {path[:200]!r}, in no folder of the symbol path: name that folder in it, too"
            )
        elif not _is_file(target):
            self._note(f"{source} leads to {path[:200]!r}, where no file is")
            return None
        return target


def _inside(path: str, folder: Path | None, roots: list[Path]) -> Path | None:
    """The path, resolved, where it lies in one of the folders; None elsewhere, and for a share that none names."""
    if not path:
        return None
    if _WINDOWS.match(path):
        pure = PureWindowsPath(path)
        near = [root for root in roots if pure.is_relative_to(PureWindowsPath(str(root)))]
        if not system.IS_WINDOWS or ".." in pure.parts or (SHARE.match(path) and not near):
            return None
    target = (folder / path if folder else Path(path)).resolve()
    return target if any(target.is_relative_to(root.resolve()) for root in roots) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _places(folder: Path, wanted: Wanted) -> Iterator[Path]:
    """Where a folder may have the file: in itself, as a store of one or two tiers, as the debuggers' folders."""
    for name in dict.fromkeys((wanted.name, wanted.name.lower())):
        key = wanted.key
        keys = dict.fromkeys((key, key.upper(), key.lower(), key[:32] + key[32:].lower()))
        kind = name.rpartition(".")[2]
        yield folder / name
        yield from (folder / name / key / name for key in keys)
        yield folder / "symbols" / name
        yield from (folder / name[:2].lower() / name / key / name for key in keys)
        yield folder / "symbols" / kind / name
        yield folder / kind / name
