"""A symbol server over http(s): the only file of heapdump that opens a connection.

A server is asked only where the symbol path names it, and sends on only to hosts that the path names. What it does not
have is asked for once; one that does not answer is left alone from then on. Nothing here trusts the bytes: the caller
compares the identity of the file before it is used. Source: Microsoft's pages on symbol stores and SymSrv.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPMessage
from io import BytesIO
from types import MappingProxyType
from typing import IO, BinaryIO, cast

from heapdump.process.symbols.downloads import PartialFile, version_of

MAX_FILE_BYTES = 2 << 30
MAX_FILE_SECONDS = 900
_SILENT_SECONDS = 30
_STEP, _WORTH_SAYING, _MOST_FAILURES, _MOST_BREAKS = 1 << 16, 32 << 20, 3, 5
_PORTS = {"https": 443, "http": 80}
_STORAGE_OF = {"msdl.microsoft.com": ".blob.core.windows.net"}
"""Microsoft's own server hands out its files from its storage: who names the one means the other."""


class ServerTrouble(Exception):
    """The server cannot be used for this file; the message says why."""


@dataclass(frozen=True, slots=True)
class Consent:
    """The hosts that the symbol path names, as (scheme, host, port); a host that begins with a dot means a domain."""

    places: frozenset[tuple[str, str, int]]

    @classmethod
    def of(cls, urls: Sequence[str]) -> Consent:
        """The consent that elements of a symbol path give."""
        found = {place for place in map(place_of, urls) if place}
        more = {("https", _STORAGE_OF[host], 443) for _, host, _ in found if host in _STORAGE_OF}
        return cls(frozenset(found | more))

    def covers(self, url: str) -> bool:
        """True for a URL on one of the hosts."""
        place = place_of(url)
        if place is None:
            return False
        scheme, host, port = place
        domains = (f".{host.split('.', i)[-1]}" for i in range(1, host.count(".") + 1))
        return place in self.places or any((scheme, domain, port) in self.places for domain in domains)


def place_of(url: str) -> tuple[str, str, int] | None:
    """(scheme, host, port) of a URL; None for one that is no plain http(s) URL: with a user, a query or a fragment."""
    try:
        path_parts = urllib.parse.urlsplit(url)
        port = path_parts.port
    except ValueError:
        return None
    if path_parts.scheme not in _PORTS or not path_parts.hostname or "@" in path_parts.netloc:
        return None
    return path_parts.scheme, path_parts.hostname, port or _PORTS[path_parts.scheme]


class _SameHosts(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to hosts of the symbol path only, and never from https to http."""

    max_redirections = 5

    def __init__(self, consent: Consent) -> None:
        self._consent = consent

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        """The request of the other URL."""
        old, new = place_of(req.full_url), place_of(newurl)
        if new is None or old is None or (old[0], new[0]) == ("https", "http"):
            raise ServerTrouble("sends on to a place that is no https URL: refused")
        if not self._consent.covers(newurl):
            raise ServerTrouble(
                f"sends on to {new[0]}://{new[1]}, which the symbol path does not name: refused "
                f"(the element {new[0]}://{new[1]} allows it)"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class SymbolServer:
    """One element of a symbol path that is a URL. Remembers what it does not have."""

    def __init__(self, url: str, consent: Consent, say: Callable[[str], None]) -> None:
        """`say`: is told once, before the first request, who is asked for what."""
        self.url = url.rstrip("/")
        self._say, self._has_said = say, False
        self._missing: set[str] = set()
        self._trouble, self._failures = "", 0
        self._two_tiers: bool | None = None
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(), urllib.request.HTTPErrorProcessor(), _SameHosts(consent),
        ):  # fmt: skip
            self._opener.add_handler(handler)
        self._opener.addheaders = [("User-Agent", "heapdump"), ("Accept-Encoding", "identity")]

    @property
    def is_two_tier(self) -> bool:
        """True where the server has an index2.txt: files lie one folder deeper, by their first two letters."""
        if self._two_tiers is None:
            self._two_tiers = self.fetch(("index2.txt",), BytesIO(), _STEP)
        return self._two_tiers

    def address(self, path_parts: Sequence[str]) -> str:
        """The URL of a file, each part percent-encoded."""
        return "/".join((self.url, *(urllib.parse.quote(part, safe="") for part in path_parts)))

    def fetch(self, path_parts: Sequence[str], out: BinaryIO, most: int = MAX_FILE_BYTES) -> bool:
        """Writes the file to `out`; False where the server does not have it, which is asked once.

        Raises:
            ServerTrouble: the server does not answer, sends on elsewhere, or sends more than `most` bytes.
            OSError: `out` cannot be written.
        """
        return self._asked(path_parts, lambda url: self._fetch_all(url, out, most))

    def download(self, path_parts: Sequence[str], part: PartialFile) -> bool:
        """Writes what is missing of the file; False where the server does not have it, which is asked once.

        A part of the version that the server has now is gone on with. A connection that breaks is opened again, as
        long as it brings something. What has come stays in `part` where it ends in trouble.

        Raises:
            ServerTrouble, OSError: as `fetch`.
        """
        return self._asked(path_parts, lambda url: self._rest(url, part, path_parts[-1]))

    def _asked(self, path_parts: Sequence[str], take: Callable[[str], None]) -> bool:
        """True after `take` has the file of a URL; False where the server does not have it."""
        url = self.address(path_parts)
        if url in self._missing:
            return False
        if self._trouble:
            raise ServerTrouble(self._trouble)
        self._announce()
        try:
            take(url)
        except urllib.error.HTTPError as error:
            error.close()
            return self._refusal(url, error.code)
        except ServerTrouble as trouble:
            raise self._failed(str(trouble)) from trouble
        except _NoAnswer as silence:
            self._trouble = f"does not answer: {silence}"
            raise ServerTrouble(self._trouble) from silence
        self._failures = 0
        return True

    def _fetch_all(self, url: str, out: BinaryIO, most: int) -> None:
        with self._answer(url) as answer:
            chunks = _AnswerBytes(answer, most, time.monotonic() + MAX_FILE_SECONDS)
            while data := chunks.next():
                out.write(data)

    def _rest(self, url: str, part: PartialFile, name: str) -> None:
        until = time.monotonic() + MAX_FILE_SECONDS
        for attempt in range(_MOST_BREAKS + 1):
            before = part.size
            try:
                return self._go_on(url, part, name, until)
            except _TooMuch:
                part.restart("")
                raise
            except (_NoAnswer, _AnswerCut):
                if not part.version or part.size <= before or attempt == _MOST_BREAKS:
                    raise
        return None

    def _go_on(self, url: str, part: PartialFile, name: str, until: float) -> None:
        """Asks for the bytes behind those of the part, and writes them."""
        goes_on = bool(part.size and part.version)
        headers = {"Range": f"bytes={part.size}-", "If-Range": part.version} if goes_on else {}
        try:
            answer = self._answer(url, headers)
        except urllib.error.HTTPError as error:
            if error.code != 416 or not goes_on:
                raise
            error.close()
            if error.headers.get("Content-Range", "") == f"bytes */{part.size}":  # it was complete
                return
            part.restart("")
            answer = self._answer(url)
        with answer:
            if not goes_on or answer.status != 206:
                part.restart(version_of(answer.headers))
            if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {part.size}-"):
                part.restart("")
                raise ServerTrouble("sends another part of the file than it was asked for")
            chunks = _AnswerBytes(answer, MAX_FILE_BYTES - part.size, until)
            if chunks.size is not None and chunks.size >= _WORTH_SAYING:
                there = f", {part.size >> 20:,} MiB are there" if part.size else ""
                self._say(f"fetching {name}, {part.size + chunks.size >> 20:,} MiB{there}")
            while data := chunks.next():
                part.write(data)

    def _answer(self, url: str, headers: Mapping[str, str] = MappingProxyType({})) -> http.client.HTTPResponse:
        request = urllib.request.Request(url, headers=dict(headers))
        try:
            return cast(http.client.HTTPResponse, self._opener.open(request, timeout=_SILENT_SECONDS))
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _NoAnswer(getattr(error, "reason", error)) from error

    def _announce(self) -> None:
        if not self._has_said:
            self._has_said = True
            place = place_of(self.url)
            host = f"{place[0]}://{place[1]}" if place else self.url
            self._say(f"asking {host} for symbols, by name and build of modules; the symbol path names it")

    def _refusal(self, url: str, code: int) -> bool:
        """False for an answer that means: not there.

        Raises:
            ServerTrouble: the server is in trouble.
        """
        if code >= 500 or code in (407, 408, 429):
            raise self._failed(f"answered {code}")
        self._missing.add(url)
        if code not in (404, 410):
            raise ServerTrouble(f"answered {code}")
        self._failures = 0
        return False

    def _failed(self, why: str) -> ServerTrouble:
        """The trouble; the third one in a row ends the use of the server."""
        self._failures += 1
        if self._failures >= _MOST_FAILURES:
            self._trouble = why
        return ServerTrouble(why)


class _NoAnswer(Exception):
    """The connection broke, or nothing came for too long."""


class _AnswerCut(ServerTrouble):
    """The answer ended early."""


class _TooMuch(ServerTrouble):
    """The answer has more bytes than are taken."""


class _AnswerBytes:
    """The bytes of an answer within the limits of size and time."""

    def __init__(self, answer: http.client.HTTPResponse, most: int, until: float) -> None:
        self._answer, self._most = answer, most
        length = answer.headers.get("Content-Length", "")
        self.size = int(length) if length.isascii() and length.isdecimal() else None
        self._left, self._until = most, until
        if self.size is not None and self.size > most:
            raise _TooMuch(f"sends {self.size:,} bytes, more than the {most:,} that are taken")

    def next(self) -> bytes:
        """The next bytes of the answer, at most 65,536; b"" at the end.

        Raises:
            ServerTrouble: the answer is too large, takes too long, or ends early.
            _NoAnswer: the connection broke.
        """
        try:
            data = self._answer.read1(_STEP)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _NoAnswer(error) from error
        self._left -= len(data)
        if self._left < 0:
            raise _TooMuch(f"sends more than the {self._most:,} bytes that are taken")
        if time.monotonic() > self._until:
            raise ServerTrouble(f"needs more than {MAX_FILE_SECONDS} seconds for one file")
        if not data and self.size not in (None, self._most - self._left):
            raise _AnswerCut(f"ended after {self._most - self._left:,} of {self.size:,} bytes")
        return data
