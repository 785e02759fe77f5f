"""Serves the files of the web page on this computer. Reads the page's folder or archive once, writes nothing.

Only names that are in the folder or archive are served, so a path cannot lead out of it. A request whose ``Host`` is not
this server's address is refused: a foreign site whose name points to this computer gets nothing.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from espwire._version import __version__
from espwire.errors import DataError, FileError, TransportError
from espwire.web.archive import BadArchive, read_archive

HOST = "127.0.0.1"
NAMES = ("127.0.0.1", "localhost")  # in a Host header
DEFAULT_PORT = 80  # of http addresses
INDEX = "index.html"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".md": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".zip": "application/zip",
}
PACKED = (".zip", ".xz", ".bin")  # compressing them again gains nothing
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self'",
        "connect-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "serial=(self)",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # the browser checks that its copy is the newest
}


def find_files(source: Path) -> dict[str, bytes]:
    """The page's files by their names: of a folder, or of an archive.

    :raises FileError: it cannot be read
    :raises DataError: code ``web-page``: it is not the page of espwire
    """
    files: dict[str, bytes] = {}
    reason = "does not contain the web page"
    try:
        if source.is_dir():
            for path in source.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    files[path.relative_to(source).as_posix()] = path.read_bytes()
        else:
            with source.open("rb") as file:
                files = read_archive(file)
    except OSError as error:
        raise FileError(f"cannot read {source}: {error.strerror or error}") from None
    except BadArchive as error:
        reason = f"cannot be unpacked: {error}"
    if INDEX not in files:
        raise DataError(
            f"{source} {reason}",
            hint=f"Use espwire-web-{__version__}.zip of the release.",
            code="web-page",
        )
    return files


class PageServer(ThreadingHTTPServer):
    """A server on this computer's own address.

    :param port: TCP port; 0 chooses a free one
    :raises TransportError: code ``http-port``: the port cannot be used
    """

    daemon_threads = True
    request_queue_size = (
        128  # connections that wait to be accepted; a browser opens several at once
    )
    allow_reuse_address = os.name == "posix"  # on Windows, two programs could then use one port
    allow_reuse_port = False

    def __init__(self, files: Mapping[str, bytes], port: int = 0) -> None:
        self.files = files
        self._packed: dict[str, tuple[bytes, bool, str]] = {}
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise TransportError(
                f"cannot listen on {HOST}:{port}: {error.strerror or error}",
                hint="Choose another port with --http-port, or leave it out.",
                code="http-port",
            ) from None
        self.hosts = {f"{name}:{self.server_port}" for name in NAMES}
        if self.server_port == DEFAULT_PORT:  # which browsers leave out
            self.hosts.update(NAMES)

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that the browser has closed is not an error."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def find(self, name: str) -> tuple[bytes, bool, str] | None:
        """The file to send, whether it is gzip-compressed, and its entity tag; None: it does not exist."""
        if name not in self.files:
            return None
        if name not in self._packed:
            data = self.files[name]
            tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            if name.endswith(PACKED):
                self._packed[name] = data, False, tag
            else:
                self._packed[name] = gzip.compress(data, 6, mtime=0), True, tag
        return self._packed[name]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"espwire/{__version__}", ""
    timeout = 30

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        if self.headers.get("Host", "") not in self.server.hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST)
            return
        try:
            name = unquote(urlsplit(self.path).path).removeprefix("/") or INDEX
        except ValueError:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        found = self.server.find(name)
        if found is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        data, packed, tag = found
        if self.headers.get("If-None-Match") == tag:
            self._start(HTTPStatus.NOT_MODIFIED, tag)
            self.end_headers()
            return
        if packed and "gzip" not in self.headers.get("Accept-Encoding", ""):
            data, packed = gzip.decompress(data), False
        self._start(HTTPStatus.OK, tag)
        self.send_header("Content-Type", TYPES.get(Path(name).suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Vary", "Accept-Encoding")
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def _start(self, status: HTTPStatus, tag: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("ETag", tag)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Of a request that http.server refuses: no text, the same headers, and the connection ends."""
        self.close_connection = True
        self._refuse(HTTPStatus(code))

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Requests are not printed."""
