"""`espwire web`: the server answers while the browser starts, and Ctrl-C ends it without an error."""

from __future__ import annotations

import threading
import urllib.request
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.web.server import PageServer


def test_a_browser_that_runs_until_it_is_quit_gets_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "index.html").write_bytes(b"page")
    got: list[bytes] = []
    loaded = threading.Event()

    def browse(address: str) -> None:
        with urllib.request.urlopen(address, timeout=10) as reply:
            got.append(reply.read())
        loaded.set()

    def serve(server: PageServer) -> None:
        while not loaded.is_set():
            server.handle_request()
            loaded.wait(0.2)
        raise KeyboardInterrupt

    monkeypatch.setattr("webbrowser.open", browse)
    monkeypatch.setattr(PageServer, "serve_forever", serve)
    assert main(["web", str(tmp_path)]) == 0
    assert got == [b"page"]
    assert capsys.readouterr().err == ""
