"""The server of the page: loopback only, no way out of its files, no foreign host, the headers of a strict policy."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from espwire.errors import DataError, FileError, TransportError
from espwire.web.server import PageServer, find_files

INDEX = b"<!doctype html>\n" * 200


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "page"
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_bytes(INDEX)
    (folder / "sub/code.wasm").write_bytes(b"\0asm" * 100)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[PageServer]:
    with PageServer(find_files(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def request(
    server: PageServer, path: str, method: str = "GET", **headers: str
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(
        method, path, headers={name.replace("_", "-"): v for name, v in headers.items()}
    )
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    return reply, data


def send(server: PageServer, head: bytes) -> bytes:
    """The reply to a request that a browser would not send."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        host = f"Host: 127.0.0.1:{server.server_port}\r\nConnection: close\r\n\r\n"
        connection.sendall(head + host.encode())
        with contextlib.suppress(ConnectionResetError):  # it does not read all of a long request
            return connection.recv(20)
    return b""


def test_files_are_sent_compressed_with_a_strict_policy(server: PageServer) -> None:
    reply, data = request(server, "/", Accept_Encoding="gzip")
    assert (reply.status, reply.headers["Content-Encoding"]) == (200, "gzip")
    assert gzip.decompress(data) == INDEX
    assert len(data) < len(INDEX) / 10
    policy = reply.headers["Content-Security-Policy"]
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy
    assert "default-src 'none'" in policy
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert request(server, "/")[1] == INDEX
    reply, data = request(server, "/sub/code.wasm")
    assert (reply.headers["Content-Type"], data) == ("application/wasm", b"\0asm" * 100)


def test_an_unchanged_file_is_not_sent_again(server: PageServer) -> None:
    tag = request(server, "/index.html")[0].headers["ETag"]
    reply, data = request(server, "/index.html", If_None_Match=tag)
    assert (reply.status, data) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/sub/../../secret.txt",
        "/..%2fsecret.txt",
        "//secret.txt",
        "/sub",
        "/sub/",
        "/%00",
        "/..\\secret.txt",
    ],
)
def test_no_path_leads_out_of_the_page(server: PageServer, path: str) -> None:
    reply, data = request(server, path)
    assert (reply.status, data) == (404, b"")


@pytest.mark.parametrize(
    "host", ["example.org", "example.org:80", "127.0.0.1", "", "localhost.example.org"]
)
def test_a_foreign_host_gets_nothing(server: PageServer, host: str) -> None:
    reply, data = request(server, "/", Host=host)
    assert (reply.status, data) == (421, b"")
    assert request(server, "/", Host=f"localhost:{server.server_port}")[0].status == 200


def test_only_reading_is_possible(server: PageServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "<b>"):
        reply, data = request(server, "/", method)
        assert (reply.status, data) == (501, b"")
        assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    reply, data = request(server, "/", "HEAD")
    assert (reply.status, data) == (200, b"")


def test_requests_that_are_not_http_get_no_page(
    server: PageServer, capfd: pytest.CaptureFixture[str]
) -> None:
    assert b" 400 " in send(server, b"GET http://[ HTTP/1.1\r\n")
    assert b" 414 " in send(server, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n")
    assert b" 431 " in send(server, b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n")
    assert send(server, b"\x16\x03\x01\r\n") == b""
    assert capfd.readouterr().err == ""


def test_a_browser_that_closes_its_connection_is_not_an_error(
    server: PageServer, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        raise ConnectionResetError
    except ConnectionResetError:
        server.handle_error(None, None)
    assert capfd.readouterr().err == ""


def test_browsers_leave_the_default_port_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with PageServer({}) as server:
        monkeypatch.setattr("espwire.web.server.DEFAULT_PORT", server.server_port)
    with PageServer({}, server.server_port) as server:
        assert {"localhost", "127.0.0.1"} < server.hosts


def test_it_listens_on_loopback_only(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/"
    with pytest.raises(TransportError, match=r"cannot listen on 127\.0\.0\.1") as caught:
        PageServer({}, server.server_port)
    assert caught.value.code == "http-port"


def test_an_archive_is_served_like_a_folder(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "page.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "index.html", "index.html")
    assert find_files(archive) == {"index.html": INDEX}


def test_a_link_out_of_the_folder_is_not_served(folder: Path, tmp_path: Path) -> None:
    try:
        (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    except OSError:
        pytest.skip("symbolic links are for the privileged there")
    assert "link.txt" not in find_files(folder)


def test_what_is_not_the_page_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="does not contain the web page"):
        find_files(tmp_path)
    with pytest.raises(DataError, match="cannot be unpacked: File is not a zip file"):
        find_files(tmp_path / "other.zip")
    with pytest.raises(FileError):
        find_files(tmp_path / "missing.zip")
