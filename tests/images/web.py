"""A real HTTP server on loopback: a path is served by a function that writes whatever it likes to the connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

Page = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """``pages`` may be changed at any time; ``asked`` are the paths that were asked for, in order."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def url(self, path: str) -> str:
        """The whole address of a path."""
        return f"http://127.0.0.1:{self._server.server_address[1]}{path}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                page = web.pages.get(self.path, missing)
                try:
                    page(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Not into the test's output."""

        return Handler

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def missing(request: BaseHTTPRequestHandler) -> None:
    """404."""
    request.send_error(404)


def broken(request: BaseHTTPRequestHandler) -> None:
    """503."""
    request.send_error(503)


def body(data: bytes, announced: int | None = None) -> Page:
    """A file; announced: the length that the header claims."""

    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(data) if announced is None else announced))
        request.end_headers()
        request.wfile.write(data)
        request.close_connection = True

    return page


def redirect(url: str) -> Page:
    """Somewhere else."""

    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", url)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return page


def endless(request: BaseHTTPRequestHandler) -> None:
    """Bytes without end, and without a length."""
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(bytes(1 << 16))


def silent(released: threading.Event) -> Page:
    """Half a file, and then nothing until the test is over."""

    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(bytes(500))
        request.wfile.flush()
        released.wait()

    return page


def dripping(released: threading.Event) -> Page:
    """A byte every now and then."""

    def page(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100000")
        request.end_headers()
        while not released.wait(0.02):
            request.wfile.write(b"x")
            request.wfile.flush()

    return page
