"""A web server on this machine: answers by a table, knows ranges, and breaks off where it is told to."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Site(http.server.ThreadingHTTPServer):
    """Answers by a table of paths: bytes, a number (status), or a text (where it sends on).

    `breaks`: path → bytes of the body after which the connection ends, for one answer each. `tag`: of every file.
    `takes_ranges`: whether Range is obeyed. `asked`: the paths of requests, `ranges`: their Range and If-Range.
    """

    def __init__(self) -> None:
        """Listens on a free port."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, bytes | int | str] = {}
        self.breaks: dict[str, list[int]] = {}
        self.tag: str | None = None
        self.modified: str | None = None
        self.takes_ranges = True
        self.asked: list[str] = []
        self.ranges: list[tuple[str | None, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/sym"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """One answer."""
        site = self.server
        assert isinstance(site, Site)
        site.asked.append(self.path)
        name = self.path.removeprefix("/sym/")
        answer = site.answers.get(name, 404)
        if not isinstance(answer, bytes):
            self.send_response(302 if isinstance(answer, str) else answer)
            if isinstance(answer, str):
                self.send_header("Location", answer)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        wanted, condition = self.headers.get("Range"), self.headers.get("If-Range")
        site.ranges.append((wanted, condition))
        validator = site.tag or site.modified
        start = int(wanted[6:-1]) if wanted and site.takes_ranges and condition in (None, validator) else None
        body = answer if start is None else answer[start:]
        self.send_response(416 if start is not None and not body else 200 if start is None else 206)
        if start is not None:
            span = f"{start}-{len(answer) - 1}" if body else "*"
            self.send_header("Content-Range", f"bytes {span}/{len(answer)}")
        if site.tag:
            self.send_header("ETag", site.tag)
        if site.modified:
            self.send_header("Last-Modified", site.modified)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = site.breaks.get(name)
        self.wfile.write(body[: cut.pop(0)] if cut else body)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@contextmanager
def serving() -> Iterator[Site]:
    """A server, until the end of the block."""
    with Site() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()
